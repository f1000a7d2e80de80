"""Ramps as the broker sees them: which may be asked for, which are under way, and which failed."""

from collections.abc import Iterator, Mapping, Sequence

from zloom.errors import Refused
from zloom.messages import Status
from zloom.model import Event, Key, Ramp, Replica, Value
from zloom.schema import describe, is_number
from zloom_broker.attempt import Attempt
from zloom_broker.ledger import Ledger
from zloom_broker.validation import check_values

MAX_STEPS = 10**12
"""Steps of a ramp, and from now on until a change: a step must still fit into a message."""


def check_ramps(
    ramps: Mapping[str, Ramp],
    changes: Mapping[str, Value],
    declared: Mapping[str, Sequence[tuple[Replica, Key]]],
) -> None:
    """Refuse what is no ramp. With both ends all values between them are within a key's bounds.

    Args:
        ramps: By key.
        changes: Where they lead to.
        declared: Who declares each key, and how.
    """
    for name, ramp in ramps.items():
        if not is_number(changes.get(name)):
            text = f"{name}: a ramp needs a number to end at, got {changes.get(name)!r}"
            raise Refused("bad_ramp", text)
        if not 1 <= ramp.steps <= MAX_STEPS:
            text = f"{name}: a ramp over {ramp.steps} steps; expected 1 to {MAX_STEPS}"
            raise Refused("bad_ramp", text)
        for _, key in declared[name]:
            _check_key(key)
        if ramp.start is not None:
            check_values(ramp.start, declared[name], "the start of its ramp, ")


def _check_key(key: Key) -> None:
    numeric = {"integer", "number"} & set(key.schema.type)
    if not numeric or key.schema.enum is not None:
        text = f"{key.name} is {describe(key.schema)}; only a number can change step by step"
        raise Refused("bad_ramp", text)
    if key.immediate:
        text = f"{key.name} changes at once, not at a step, so it cannot change step by step"
        raise Refused("bad_ramp", text)


def under_way(ledger: Ledger, statuses: Mapping[str, Status | None]) -> set[str]:
    """Return the targets on which a ramp of the revision may be under way.

    Args:
        ledger: The revision.
        statuses: The newest of each replica that is there.
    """
    number = ledger.revision.revision
    found = set()
    for name in ledger.targets if ledger.revision.ramps else ():
        outcome, status = ledger.outcomes.get(name), statuses.get(name)
        if outcome is None or outcome.outcome != "applied" or name not in statuses:
            continue
        # A status from before it began knows nothing of it.
        if (
            status is None
            or status.step <= (outcome.step or 0)
            or any(ramp.revision == number and not ramp.error for ramp in status.ramps.values())
        ):
            found.add(name)
    return found


def failures(attempt: Attempt, replica: Replica, before: Status | None, status: Status) -> Iterator[Event]:
    """Yield an event for each ramp that has failed since the status before."""
    for name, ramp in status.ramps.items():
        known = before.ramps.get(name) if before is not None else None
        if ramp.error and (known is None or (known.revision, known.error) != (ramp.revision, ramp.error)):
            where = f"rank {replica.rank} stays at {ramp.value}"
            text = f"the ramp of {name} in revision {ramp.revision} failed, {where}: {ramp.error}"
            yield Event("ramp_failed", attempt.run, attempt.id, text=text, replicas=[replica.id])
