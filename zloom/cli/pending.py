"""Why a change is not applied yet, or not at the step that was named, in words. Pure."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from zloom.cli.report import at_steps, attempt_option, cancelling, step_span
from zloom.client.results import Result
from zloom.messages import Keys
from zloom.model import HistoryEntry, Key, ReplicaStatus, Revision
from zloom.words import named

_PLACE = "applies "
"""Begins the part of a key's description that says where a change of it is applied."""

WHY = "not applied yet: a change is applied, and a command carried out, at the end of the step that runs"
"""What holds for any change of which no more is known."""

_OF_PAUSES = "pause", "resume", "stop"


def why(
    result: Result,
    keys: Keys | None,
    entries: Sequence[HistoryEntry],
    attempt: str = "",
    replicas: Sequence[ReplicaStatus] = (),
) -> list[str]:
    """Return lines that say why there is no answer yet.

    Args:
        result: Of the change.
        keys: Of its run; None where they could not be asked for.
        entries: The newest of the run's history, in any order.
        attempt: As it was named to the command; empty where it was not.
        replicas: Of the attempt; none where they could not be asked for.
    """
    own = next((each.revision for each in entries if each.revision.revision == result.revision), None)
    if keys is None or own is None:
        return [WHY]
    if before := list(_before(own, result, keys, entries)):
        lines = [*_behind(before, keys), *(_way_out(each, result.run, attempt) for each in before)]
    else:
        lines = [WHY] if own.kind != "config" else of_keys(own.changes, keys, result.at_step)
    # Most commands are carried out in a pause, and one that ends it is not to advise itself.
    held = own.kind == "config" or (own.kind == "command" and own.command not in _OF_PAUSES)
    return [*lines, *_paused(result, replicas, attempt)] if held else lines


def _paused(result: Result, replicas: Iterable[ReplicaStatus], attempt: str) -> Iterator[str]:
    """Yield that ranks without an answer are paused, and so come to no step and to the end of no epoch."""
    missing = {each.replica for each in result.missing}
    paused = [each for each in replicas if each.replica in missing and each.state == "paused"]
    if paused:
        steps = step_span(each.step for each in paused)
        resume = f"`zloom resume {result.run}{attempt_option(attempt)}`"
        are = "is" if len(paused) == 1 else "are"
        yield f"{named([each.rank for each in paused])} {are} paused{steps}; {resume} ends the pause"


def of_keys(names: Collection[str], keys: Keys, at_step: int | None) -> list[str]:
    """Return lines that say why a change of these keys is not applied yet, if nothing else holds it up."""
    # A description that says where the key applies is right, and the common place is not.
    if any(_placed(names, keys)):
        since = "" if at_step is None else f" from step {at_step} on"
        return [f"not applied yet: waits{since} for the place of", *_described(names, keys)]
    if at_step is not None:
        return [f"not applied yet: a change is applied at the start of step {at_step}"]
    return ["not applied yet: a change is applied at the end of the step that runs", *_described(names, keys)]


def holding_up(own: Revision, entries: Iterable[HistoryEntry]) -> list[Revision]:
    """Return what a revision waits behind, by number: of those that wait in turn, the first alone.

    None overtakes an earlier one that touches the same, on any replica that has answered for neither.
    """
    unsettled = {each.revision.revision: each for each in entries if not each.settled}
    waits = _unanswered(unsettled.get(own.revision))
    firsts: dict[str, set[int]] = {}
    for number, entry in sorted(unsettled.items()):
        names = _names(entry.revision)
        behind = {first for name in names for first in firsts.get(name, ())}
        if number == own.revision:
            return [unsettled[first].revision for first in sorted(behind)]
        if waits & _unanswered(entry):
            for name in names:
                firsts.setdefault(name, set()).update(behind or {number})
    return []


def step_passed(result: Result, names: Collection[str], keys: Keys) -> str:
    """Return a note about a step that was named and had passed; empty where it was met, or is not known."""
    steps = [each.step for each in result.applied if each.step is not None]
    if result.at_step is None or not steps or max(steps) <= result.at_step or any(_placed(names, keys)):
        return ""
    return f"note: step {result.at_step} has passed: applied{at_steps(result.applied)}"


def _before(own: Revision, result: Result, keys: Keys, entries: Iterable[HistoryEntry]) -> Iterator[Revision]:
    for each in holding_up(own, entries):
        # One for a step is queued behind those for earlier steps: only a place can come later than its own.
        if result.at_step is None or any(_placed(each.changes, keys)):
            yield each


def _behind(before: Sequence[Revision], keys: Keys) -> Iterator[str]:
    one = len(before) == 1
    numbers = ", ".join(str(each.revision) for each in before)
    head = f"not applied yet: waits behind revision{'' if one else 's'} {numbers}, which"
    names = {name for each in before for name in each.changes}
    steps = [each.at_step for each in before if each.at_step is not None]
    if any(_placed(names, keys)):
        yield f"{head} {'waits' if one else 'wait'} for the place of"
        yield from _described(names, keys)
    elif steps:
        yield f"{head} {'waits' if one else 'wait'} for step {max(steps)}"
    else:
        yield f"{head} {'is' if one else 'are'} not applied yet either"
        yield from _described(names, keys)


def _way_out(revision: Revision, run: str, attempt: str) -> str:
    number = revision.revision
    return f"`{cancelling(run, number, attempt)}` takes revision {number} back where it is pending"


def _described(names: Collection[str], keys: Keys) -> list[str]:
    """Return the descriptions of keys: of those that have a place of their own alone, if there are any."""
    concerned = [each.key for each in keys.keys if each.key.name in names and each.key.description]
    return [f"  {key.name}: {key.description}" for key in list(_placed(names, keys)) or concerned]


def _placed(names: Collection[str], keys: Keys) -> Iterator[Key]:
    """Yield those of the changed keys that are applied at a place of their own."""
    return (each.key for each in keys.keys if each.key.name in names and _PLACE in each.key.description)


def _names(revision: Revision) -> Collection[str]:
    """Return what a revision touches, as a weavelet's schedule has it; a cancel waits for nothing."""
    if revision.kind == "command":
        return [f"/{'pause' if revision.command == 'resume' else revision.command}"]
    return revision.changes


def _unanswered(entry: HistoryEntry | None) -> set[str]:
    return set() if entry is None else {each.replica for each in entry.outcomes if each.outcome is None}
