"""What may be changed: every reason for which the broker refuses a change, before anything is sent."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

from zloom.errors import Refused
from zloom.messages import Cancel, Follow, Rollback, SendCommand, SetConfig
from zloom.model import MAX_NOTE, Key, Mode, Outcome, Ramp, Replica, Revision, Value
from zloom.schema import describe
from zloom.words import MAX_NAMED, nobody_there, shorten, unknown_command, unknown_key
from zloom_broker.attempt import Attempt
from zloom_broker.ledger import Ledger, Setting
from zloom_broker.ramping import MAX_STEPS, check_ramps
from zloom_broker.records import ReplicaLeft
from zloom_broker.validation import check, check_values, declared_by

MAX_VALUES_SIZE = 64 * 1024
"""Bytes of one revision's values: a page of history must fit into one message."""

MAX_STATE_SIZE = 512 * 1024
"""Bytes of the whole config with what waits for a step: a snapshot must fit into one message."""

ALWAYS_CONSISTENT = frozenset({"pause", "stop", "checkpoint", "validate"})
"""Commands that split or hang a job of several ranks unless all of them carry them out at one step."""

Early = Callable[[], bool]
"""Whether no replica has told a step above 0 yet, so that more may be declared; asked only for a refusal."""


class Proposal(NamedTuple):
    """A revision that may be made, still without number, author, time and digest."""

    revision: Revision
    targets: list[str]
    """Ids of the replicas that must answer, by rank."""


def check_expected(expected: int | None, newest: int) -> None:
    """Refuse a change that was made for another state than the present one."""
    if expected is not None and expected != newest:
        raise Refused(
            "revision_conflict",
            f"expected revision {expected}, but the newest is {newest}; look at what changed and try again",
        )


def check_room(attempt: Attempt, more: int) -> None:
    """Refuse a change that would make the attempt's snapshot too long for a message.

    Args:
        attempt: What is on disk.
        more: Bytes of the values of the change, and of what is being written.
    """
    size = attempt.size() + more
    if size > MAX_STATE_SIZE:
        raise Refused(
            "too_large",
            f"the config and what waits for a step would have {size} bytes; at most {MAX_STATE_SIZE} can be "
            "sent to a trainer that joins",
        )


def check_note(note: str) -> None:
    """Refuse a note that is too long to stand in a table."""
    if len(note) > MAX_NOTE:
        raise Refused(
            "too_large", f"the note has {len(note)} characters; at most {MAX_NOTE} fit into history"
        )


def counted(attempt: Attempt, request: SetConfig, step: int | None) -> SetConfig:
    """Return a request that names its step, where it asks for some steps after the present one.

    Args:
        attempt: That it is for.
        request: What is asked for.
        step: The highest that a rank is about to have reached; None where no rank has told one.
    """
    if request.after is None:
        return request
    if request.at_step is not None or request.mode not in (None, "at_step"):
        raise Refused(
            "bad_mode", "`after` counts the steps until a change; no other mode goes with it, and no at_step"
        )
    if not 1 <= request.after <= MAX_STEPS:
        raise Refused("bad_value", f"a change after {request.after} steps; expected 1 to {MAX_STEPS}")
    if step is None:
        _present(attempt)  # nobody will tell one where none is there
        text = (
            f"no replica of {attempt.run} has told its step and pace yet; try again when it has trained some "
            "steps, or name the step"
        )
        raise Refused("step_unknown", text)
    at_step, note = step + request.after, f"{request.after} steps after about {step}"
    return msgspec.structs.replace(
        request, mode="at_step", at_step=at_step, after=None, note=_notes(note, request.note)
    )


def propose_set(
    attempt: Attempt, request: SetConfig, tentative: Sequence[Revision], *, early: Early
) -> Proposal:
    """Return the revision of a config update, or raise `Refused`.

    Args:
        attempt: What is on disk.
        request: What is asked for.
        tentative: Revisions that are being written and will wait.
        early: Tells whether more may still be declared.
    """
    wanted = _Wanted(
        request.changes,
        request.mode,
        request.at_step,
        request.supersede,
        request.note,
        request.ramps,
        request.revert_if,
        request.queue,
    )
    return _config(attempt, wanted, tentative, early=early)


def propose_rollback(
    attempt: Attempt, request: Rollback, config: Mapping[str, Setting], tentative: Sequence[Revision]
) -> Proposal:
    """Return the revision that brings back the config of an earlier one, or raise `Refused`.

    Args:
        attempt: What is on disk.
        request: What is asked for.
        config: The config now, with what is being written.
        tentative: Revisions that are being written and will wait.
    """
    if not 0 <= request.to_revision <= attempt.revision:
        raise _unknown_revision(attempt, request.to_revision)
    wanted = attempt.config.at(request.to_revision)
    declared = attempt.keys()
    changes = {key: s.value for key, s in wanted.items() if key in declared and config[key].value != s.value}
    if not changes:
        raise Refused("no_change", f"the config is already that of revision {request.to_revision}")
    note = _notes(f"rollback to {request.to_revision}", request.note)
    return _config(attempt, _Wanted(changes, request.mode, None, request.supersede, note), tentative)


def propose_command(attempt: Attempt, request: SendCommand, *, early: Early) -> Proposal:
    """Return the revision of a command, or raise `Refused`.

    Args:
        attempt: What is on disk.
        request: What is asked for.
        early: Tells whether more may still be declared.
    """
    present = _present(attempt)
    known = sorted({command.name for replica in present for command in replica.commands})
    if request.command not in known:
        text = unknown_command(attempt.run, request.command, known, early=early(), most=64)
        raise Refused("unknown_command", text)
    _check_size(request.arguments)
    declaring = [r for r in _reachable(attempt) if any(c.name == request.command for c in r.commands)]
    for replica in present:
        schema = next((c.schema for c in replica.commands if c.name == request.command), None)
        problem = check(request.arguments, schema) if schema is not None else None
        if problem is not None and schema is not None:
            expected = ", ".join(f"{n} ({describe(p)})" for n, p in (schema.properties or {}).items())
            text = f"{request.command}: {problem[1]}; expected arguments: {expected or 'none'}"
            raise Refused("bad_arguments", text)
    mode = _command_mode(attempt, request)
    revision = Revision(
        0, "command", command=request.command, arguments=request.arguments, mode=mode, note=request.note
    )
    return Proposal(revision, _ids(present if mode == "consistent" else declaring))


def propose_cancel(
    attempt: Attempt, request: Cancel, *, agreed: bool, ramping: Container[str] = ()
) -> Proposal:
    """Return the revision that takes back another, or raise `Refused`.

    Args:
        attempt: What is on disk.
        request: What is asked for.
        agreed: All ranks promised to carry it out, so they must agree on this too.
        ramping: Replicas on which a ramp of it may be under way, which ends then.
    """
    ledger = named(attempt, request)
    if ledger.revision.kind == "cancel":
        raise Refused("bad_value", f"revision {request.revision} is a cancel itself")
    still_ramping = [replica for replica in attempt.present() if replica.id in ramping]
    if ledger.settled and not still_ramping:
        said = ", ".join(sorted({_said(outcome) for outcome in attempt.outcomes(ledger)}))
        raise Refused("already_settled", f"revision {request.revision} cannot be taken back: {said}")
    if agreed:
        mode = _resolved(attempt, "consistent")
        return Proposal(Revision(0, "cancel", cancels=request.revision, mode=mode), _ids(_present(attempt)))
    waiting = [r for r in _reachable(attempt) if r.id in ledger.targets and r.id not in ledger.outcomes]
    return Proposal(Revision(0, "cancel", cancels=request.revision), _ids(waiting + still_ramping))


# --- config ----------------------------------------------------------------------------------


class _Wanted(NamedTuple):
    changes: Mapping[str, Value]
    mode: Mode | None
    at_step: int | None
    supersede: bool
    note: str = ""
    ramps: Mapping[str, Ramp] = {}
    revert_if: str = ""
    queue: bool = False


def _config(
    attempt: Attempt, wanted: _Wanted, tentative: Sequence[Revision], *, early: Early = lambda: False
) -> Proposal:
    present, changes = _present(attempt), wanted.changes
    if not changes:
        raise Refused("bad_value", "no key was named; expected at least one key=value")
    _check_size(changes)  # before each item is looked at
    declared = declared_by(present, changes)
    for name, value in changes.items():
        if name not in declared:
            known = sorted({key.name for replica in present for key in replica.keys})
            raise Refused("unknown_key", unknown_key(attempt.run, name, known, early=early(), most=64))
        check_values(value, declared[name])
    check_ramps(wanted.ramps, changes, declared)
    pending = _pending(changes, attempt, tentative)
    if wanted.queue:
        pending = _not_before(wanted, pending)
    if pending and not wanted.supersede:
        raise _key_pending(changes, pending)
    keys = [key for each in declared.values() for _, key in each]
    mode = _config_mode(attempt, wanted.mode, wanted.at_step, keys)
    together = next((each.revision for each in pending if each.mode == "consistent"), None)
    if together is not None and mode != "consistent":
        text = (
            f"revision {together} is for all ranks at one step, so what supersedes it is too; leave mode out"
        )
        raise Refused("bad_mode", text)
    away = declared_by(_away(attempt), changes)
    targets = {replica.id: replica for each in (*declared.values(), *away.values()) for replica, _ in each}
    revision = Revision(
        0,
        "config",
        changes=dict(changes),
        ramps=dict(wanted.ramps),
        supersedes=[each.revision for each in pending],
        mode=mode,
        at_step=wanted.at_step,
        note=wanted.note,
        revert_if=wanted.revert_if,
    )
    return Proposal(revision, _ids(present if mode == "consistent" else targets.values()))


def _pending(names: Iterable[str], attempt: Attempt, tentative: Sequence[Revision]) -> list[Revision]:
    """Return the updates that wait for a step, or for the ranks to agree, and touch one of the keys."""
    revisions = [each.revision for each in attempt.deferred.values() if each.scheduled]
    return [each for each in (*revisions, *tentative) if not each.changes.keys().isdisjoint(names)]


def _not_before(wanted: _Wanted, pending: Sequence[Revision]) -> list[Revision]:
    """Return what waits and is not sure to happen before the change that is wanted, or at its step."""
    if wanted.at_step is None or wanted.supersede:
        text = "queue is for a change at a step, behind what waits for its keys; supersede would end that"
        raise Refused("bad_mode", text)
    return [each for each in pending if each.at_step is None or each.at_step > wanted.at_step]


def _key_pending(names: Iterable[str], pending: Sequence[Revision]) -> Refused:
    """A later change would wait behind the pending one, perhaps for days, and nobody would see why."""
    first = pending[0]
    name = next(name for name in names if name in first.changes)
    what = "until all ranks have agreed" if first.at_step is None else f"for step {first.at_step}"
    return Refused(
        "key_pending",
        f"{name} waits in revision {first.revision} {what}; let it happen, cancel it, or send this with "
        "--supersede (in Python supersede=True), which ends it",
    )


def _config_mode(attempt: Attempt, mode: Mode | None, at_step: int | None, keys: list[Key]) -> Mode:
    immediate = {key.name for key in keys if key.immediate}
    at_safe_point = {key.name for key in keys} - immediate
    if immediate and at_safe_point:
        raise Refused(
            "mixed_immediate",
            f"{', '.join(sorted(immediate))} changes at once, {', '.join(sorted(at_safe_point))} at a safe "
            "point; send them as two updates",
        )
    if mode == "immediate" and at_safe_point:
        text = f"{', '.join(sorted(at_safe_point))} has no immediate handler; use mode next"
        raise Refused("bad_mode", text)
    if (mode == "at_step") != (at_step is not None):
        raise Refused("bad_mode", "mode at_step and a step go together")
    if immediate and mode in (None, "immediate"):
        return "immediate"
    return _resolved(attempt, mode)


def _command_mode(attempt: Attempt, request: SendCommand) -> Mode:
    if request.mode in ("at_step", "immediate"):
        raise Refused(
            "bad_mode", f"a command cannot be sent with mode {request.mode}; use next or consistent"
        )
    # Ranks that count steps until they pause again must count from the same one.
    counts = request.command == "resume" and request.arguments.get("steps") is not None
    if attempt.world_size > 1 and (counts or request.command in ALWAYS_CONSISTENT):
        return _resolved(attempt, "consistent")
    if request.mode is None and request.command == "resume":
        return "next"
    return _resolved(attempt, request.mode)


def _resolved(attempt: Attempt, mode: Mode | None) -> Mode:
    """Return what a mode means for this attempt: on several ranks a step is one for all of them."""
    if attempt.world_size == 1:
        return "next" if mode in (None, "consistent") else mode
    if mode in ("next", "immediate"):
        return mode
    here = {replica.rank for replica in attempt.present()}
    absent = (rank for rank in range(attempt.world_size) if rank not in here)
    missing = list(islice(absent, MAX_NAMED + 1))  # whatever a replica says that the world size is
    if missing:
        raise Refused(
            "ranks_missing",
            f"{attempt.run} has {attempt.world_size} ranks, and a consistent change needs all; missing: "
            f"{_with_reasons(attempt, missing[:MAX_NAMED])}{', …' if len(missing) > MAX_NAMED else ''}",
        )
    return "consistent"


def _with_reasons(attempt: Attempt, missing: Sequence[int]) -> str:
    """Return ranks with what is known of why they are not there: `1 (lost: …); 2, 3 (no hello yet)`."""
    left = {attempt.replicas[name].rank: each for name, each in attempt.left.items()}  # the newest of a rank
    ranks: dict[str, list[str]] = {}
    for rank in missing:
        ranks.setdefault(_why_gone(left.get(rank)), []).append(str(rank))
    return "; ".join(f"{', '.join(members)} ({why})" for why, members in ranks.items())


def _why_gone(left: ReplicaLeft | None) -> str:
    if left is None:
        return "no hello yet"
    lost = "lost: " if left.outcome == "lost" else ""
    return shorten(lost + left.reason) or "left"


# --- replicas --------------------------------------------------------------------------------


def _present(attempt: Attempt) -> list[Replica]:
    present = list(attempt.present())
    if not present:
        newest = list(attempt.left.items())[-MAX_NAMED:]
        gone = sorted((attempt.replicas[name].rank, left.reason) for name, left in newest)
        raise Refused("no_replica", nobody_there(attempt.run, attempt.id, gone))
    return present


def _reachable(attempt: Attempt) -> list[Replica]:
    """Those who are there, and those who may come back and catch up."""
    return [*attempt.present(), *_away(attempt)]


def _away(attempt: Attempt) -> list[Replica]:
    """Those who were lost and may come back: none whose rank is held by another process."""
    held = {replica.rank for replica in attempt.present()}
    return [replica for replica in attempt.lost() if replica.rank not in held]


def _ids(replicas: Iterable[Replica]) -> list[str]:
    return [replica.id for replica in sorted(replicas, key=lambda replica: replica.rank)]


def _check_size(values: Mapping[str, Value]) -> None:
    size = len(msgspec.msgpack.encode(values))
    if size > MAX_VALUES_SIZE:
        raise Refused(
            "too_large", f"the values have {size} bytes; at most {MAX_VALUES_SIZE} fit into one revision"
        )


def _notes(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def named(attempt: Attempt, request: Cancel | Follow) -> Ledger:
    """Return the revision that a request names.

    Raises:
        Refused: There is none of that number, or it is not the one that was meant.
    """
    number, ledger = request.revision, attempt.ledger(request.revision)
    if request.chain and (ledger is None or ledger.revision.chain != request.chain):
        whose = "nobody's" if ledger is None else "another's"
        text = (
            f"revision {number} is no longer in the broker's history, as after a backup was restored; that "
            f"number is {whose} now: make the change again if it is still wanted"
        )
        raise Refused("history_replaced", text)
    if ledger is None:
        raise _unknown_revision(attempt, number)
    return ledger


def _unknown_revision(attempt: Attempt, revision: int) -> Refused:
    return Refused("unknown_revision", f"there is no revision {revision}; the newest is {attempt.revision}")


def _said(outcome: Outcome) -> str:
    at = "" if outcome.step is None else f" at step {outcome.step}"
    return f"{outcome.outcome}{at} on rank {outcome.rank}"
