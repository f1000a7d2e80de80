"""What a recording says that a new run must do at which step, to be steered as the recorded one was. Pure."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from zloom import recording
from zloom.model import Outcome, Ramp, Revision, Value
from zloom.recording import AnyRecord

_NO_PARAMETER = "changes no parameter"
LEFT_OUT_COMMANDS = {
    "pause": _NO_PARAMETER,
    "resume": _NO_PARAMETER,
    "checkpoint": _NO_PARAMETER,
    "stop": "ended the recorded run, and changes no parameter",
}
"""Commands that are left out, and why. What any other does nobody knows."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of keys at a step.

    Attributes:
        revision: Of the recording.
        step: At whose start it was applied, on all ranks.
        changes: Values by key; of a ramp the one at its end.
        ramps: Of the keys that get to their value step by step.
    """

    revision: int
    step: int
    changes: dict[str, Value]
    ramps: dict[str, Ramp]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A revision that is not replayed, and why."""

    revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is to be replayed.

    Attributes:
        changes: In order of (step, revision), which is the order in which they were applied.
        left_out: What need not be replayed, or is not by the wish of the caller.
        obstacles: Why the recording cannot be replayed exactly, in words; empty when it can.
    """

    changes: list[Change]
    left_out: list[LeftOut]
    obstacles: list[str]


class _Ledger:
    """The revisions of a recording with their newest outcomes."""

    def __init__(self, records: Iterable[AnyRecord]) -> None:
        self.revisions: dict[int, Revision] = {}
        self.outcomes: dict[int, dict[str, Outcome]] = {}
        self.settled: set[int] = set()
        for record in records:
            if isinstance(record, recording.Revised):
                self.revisions[record.revision.revision] = record.revision
            elif isinstance(record, recording.Answered):
                known = self.outcomes.setdefault(record.revision, {})
                known |= {outcome.replica: outcome for outcome in record.outcomes}
                self.settled |= {record.revision} if record.settled else set()

    def applied(self, number: int) -> list[Outcome]:
        return [each for each in self.outcomes.get(number, {}).values() if each.outcome == "applied"]

    def others(self, number: int) -> list[str]:
        kinds = {str(each.outcome) for each in self.outcomes.get(number, {}).values()} - {"applied"}
        unanswered = set() if number in self.settled else {"not answered when the recording ended"}
        return sorted(kind.replace("_", " ") for kind in kinds | unanswered)


def schedule_of(records: Iterable[AnyRecord], skip: Collection[int] = ()) -> Schedule:
    """Return what the records say that is to be replayed.

    Args:
        records: Of one recording.
        skip: Revisions to be left out, whatever they did.
    """
    ledger = _Ledger(records)
    schedule = Schedule([], [], [])
    for number, revision in sorted(ledger.revisions.items()):
        if number in skip:
            schedule.left_out.append(LeftOut(number, "as you asked"))
        else:
            _schedule(revision, ledger, schedule)
    schedule.changes.sort(key=lambda change: (change.step, change.revision))
    used = {change.revision for change in schedule.changes}
    schedule.obstacles.extend(_restarts(ledger, used))
    schedule.obstacles.extend(f"there is no revision {n} to skip" for n in skip if n not in ledger.revisions)
    return schedule


def _schedule(revision: Revision, ledger: _Ledger, schedule: Schedule) -> None:
    number = revision.revision
    applied, changes = ledger.applied(number), _changes(revision, ledger)
    if not applied:
        schedule.left_out.append(LeftOut(number, " and ".join(ledger.others(number)) or "for no replica"))
    elif revision.kind == "command" and revision.command in LEFT_OUT_COMMANDS:
        why = LEFT_OUT_COMMANDS[revision.command]
        schedule.left_out.append(LeftOut(number, f"{revision.command} {why}"))
    elif revision.kind == "cancel" and not changes:
        schedule.left_out.append(LeftOut(number, f"revision {revision.cancels}, which it took back, is too"))
    else:
        obstacle = _obstacle(revision, applied, ledger.others(number))
        if obstacle:
            schedule.obstacles.append(f"revision {number} {obstacle}; --skip {number} leaves it out")
        else:
            # What came before the first step is applied at its start: nothing was trained between.
            step = max(1, applied[0].step or 0)
            schedule.changes.append(Change(number, step, changes, dict(revision.ramps)))


def _changes(revision: Revision, ledger: _Ledger) -> dict[str, Value]:
    """Return the values that a revision brought; a cancelled ramp stays where the cancel found it."""
    if revision.kind == "cancel":
        return {
            key: value for each in ledger.applied(revision.revision) for key, value in each.values.items()
        }
    return dict(revision.changes)


def _obstacle(revision: Revision, applied: list[Outcome], others: list[str]) -> str:
    """Return why a revision that was applied cannot be replayed exactly."""
    steps = sorted({outcome.step or 0 for outcome in applied})
    if revision.kind == "command":
        text = f"is the command {revision.command}, carried out at step {steps[0]}"
        return f"{text}, and a command cannot be sent for a step"
    if revision.mode == "immediate":
        return f"was applied inside step {steps[0]}, not at its start"
    if others:
        return f"was applied by some replicas only, on others {' and '.join(others)}"
    if len(steps) > 1:
        return f"was applied at different steps, {steps[0]} to {steps[-1]}, on different ranks"
    stayed = {tuple(sorted(outcome.values.items())) for outcome in applied}
    if len(stayed) > 1:
        return "ended a ramp at different values on different ranks"
    return ""


def _restarts(ledger: _Ledger, used: Collection[int]) -> Iterator[str]:
    """Yield an obstacle where a trainer was restarted while it was steered: its steps began anew."""
    replicas: dict[int, set[str]] = {}
    for number in used:
        for outcome in ledger.applied(number):
            replicas.setdefault(outcome.rank, set()).add(outcome.replica)
    for rank, names in sorted(replicas.items()):
        if len(names) > 1:
            yield (
                f"rank {rank} was restarted during the recording ({', '.join(sorted(names))}), and counted "
                "its steps anew"
            )
