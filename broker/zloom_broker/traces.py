"""How far a replica had come that has told nothing since the broker began, as its outcomes show. Pure."""

from typing import NamedTuple

from zloom_broker.attempt import Attempt

LOOK_BACK = 100
"""Revisions that are looked at for a replica: it is asked for all of them at once."""


class Trace(NamedTuple):
    """What is known of a replica without its status: at least so far it was."""

    step: int | None = None
    """Of its newest outcome that names one."""
    revision: int | None = None
    """The newest that it answered."""


def trace_of(attempt: Attempt, replica: str) -> Trace:
    """Return what the newest outcomes of a replica tell of it; what the broker itself concluded does not."""
    revision = None
    for number in range(attempt.revision, max(0, attempt.revision - LOOK_BACK), -1):
        outcome = attempt.ledgers[number].outcomes.get(replica)
        if outcome is None or outcome.outcome in ("lost", "not_reached"):
            continue
        revision = revision or number
        if outcome.step is not None:
            return Trace(outcome.step, revision)
    return Trace(None, revision)
