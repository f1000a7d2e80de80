"""What became of a change, and what happened, in words. Pure."""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from zloom.cli.guards import caret
from zloom.client.operator import Observation
from zloom.client.results import Result
from zloom.messages import Answered, Happened, Preview, Reported, Revised
from zloom.model import KeyState, Outcome, RampState, ReplicaStatus, Revision, Value
from zloom.words import counted, did_you_mean, named, span

MAX_RUNS = 20
"""Runs that are named beside one that is not there."""

MAIN_METRICS = 3
"""Metrics of a replica that `ps` has room for."""


def value_text(value: Value) -> str:
    """Return a value as one would write it on the command line."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def duration(seconds: float) -> str:
    """Return a time span: `38 ms`, `2.4 s`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def _left(seconds: float) -> str:
    """Return about how long something still goes on: `45 s`, `29 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def clock(seconds: float) -> str:
    """Return a time of this day or of another, in local time; `seconds` since the Unix epoch."""
    moment = time.localtime(seconds)
    same_day = time.strftime("%Y-%m-%d", moment) == time.strftime("%Y-%m-%d")
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S", moment)


def result_lines(
    result: Result, *, waited: bool, what: str = "revision", cancels: int = 0, silent: bool = False
) -> list[str]:
    """Return the lines about a change: the whole on the first, then what replicas say beside it.

    Args:
        result: What became of it.
        waited: Whether outcomes were waited for.
        what: It is.
        cancels: The revision that it takes back; 0 for none.
        silent: The broker does not answer, so that what is missing may have come.
    """
    parts = [f"{what} {result.revision}{f': cancel of revision {cancels}' if cancels else ''}"]
    if result.at_step is not None and not result.settled:
        parts.append(f"for step {result.at_step}")
    parts += [_applied(result, silent=silent)] if waited or result.settled else ["accepted"]
    if not result.durable:
        parts.append("not yet on disk")
    parts.append(duration(result.latency))
    return [" · ".join(parts), *_outcome_lines(result.outcomes, waited=waited, silent=silent)]


def _applied(result: Result, *, silent: bool) -> str:
    pending = "not known" if silent else "still pending"
    applied, total = result.applied, len(result.outcomes)
    if result.missing and not applied:
        return f"{pending} on {len(result.missing)}/{counted(total, 'replica')}"
    said = f"applied on {len(applied)}/{counted(total, 'replica')}{at_steps(applied)}"
    return f"{said}, {len(result.missing)} {pending}" if result.missing else said


def at_steps(outcomes: list[Outcome]) -> str:
    """Return at which steps they came: ` at step 7`, ` at steps 7 to 9`; empty where none is known."""
    return step_span(each.step for each in outcomes)


def step_span(steps: Iterable[int | None]) -> str:
    """Return from which step to which these are, as `at_steps` does."""
    known = sorted({step for step in steps if step is not None})
    if not known:
        return ""
    return f" at step {known[0]}" if len(known) == 1 else f" at steps {known[0]} to {known[-1]}"


def _outcome_lines(outcomes: list[Outcome], *, waited: bool, silent: bool) -> Iterator[str]:
    told: dict[str, list[int]] = {}
    for each in outcomes:
        if each.outcome == "applied" and each.detail:
            told.setdefault(each.detail, []).append(each.rank)
    for each in outcomes:
        if each.outcome is None and waited:
            yield f"  rank {each.rank}  no answer {'known' if silent else 'yet'} ({each.replica})"
        elif each.outcome == "applied":
            if ranks := told.pop(each.detail, None):  # what all ranks say is said once
                yield f"  {named(ranks)}  {each.detail}"
        elif each.outcome is not None:
            why = f": {each.error}" if each.error else ""
            yield f"  rank {each.rank}  {each.outcome.replace('_', ' ')}{why} ({each.replica})"


def what(revision: Revision) -> str:
    """Return what a revision does, in a few words."""
    match revision.kind:
        case "config":
            return " ".join(_change(key, value, revision) for key, value in revision.changes.items())
        case "command":
            return f"{revision.command} {_assignments(revision.arguments)}".rstrip()
        case "cancel":
            return f"cancel {revision.cancels}"


def _change(key: str, value: Value, revision: Revision) -> str:
    ramp = revision.ramps.get(key)
    if ramp is None:
        return f"{key}={value_text(value)}"
    start = "" if ramp.start is None else value_text(ramp.start)
    shape = "" if ramp.shape == "linear" else f" {ramp.shape}"
    return f"{key}={start}..{value_text(value)} over {ramp.steps} step{'s' * (ramp.steps != 1)}{shape}"


def when(revision: Revision) -> str:
    """Return when a revision is applied: its mode, and the step that was named."""
    if revision.at_step is None:
        return revision.mode
    step = f"at step {revision.at_step}"
    return step if revision.mode == "at_step" else f"{revision.mode}, {step}"


def ramp_text(ramp: RampState) -> str:
    """Return where a ramp stands: `0.0004, 0.001 at step 3000`."""
    if ramp.error:
        return f"stopped at {ramp.value:.6g}: {ramp.error}"
    return f"{ramp.value:.6g} now, {ramp.end:.6g} at step {ramp.until}"


def key_mark(state: KeyState) -> str:
    """Return why a key may have another value somewhere than the one that was asked for; empty where not."""
    ramp = "" if state.ramp is None else f"ramp: {ramp_text(state.ramp)}"
    return ", ".join(filter(None, ("pending" if state.pending else "", ramp)))


def key_notes(state: KeyState) -> Iterator[str]:
    """Yield the same as notes, for where the value stands alone."""
    if state.pending:
        yield f"note: {state.key.name} is pending: not every replica has answered yet"
    if state.ramp is not None:
        yield f"note: {state.key.name} has a ramp: {ramp_text(state.ramp)}"


def ramps_text(status: ReplicaStatus) -> str:
    """Return where the ramps of a replica stand."""
    return "; ".join(f"{name} {ramp_text(ramp)}" for name, ramp in status.ramps.items())


def preview_lines(preview: Preview, guard: str = "") -> list[str]:
    """Return the lines about a change that was not made; `guard` as it was asked for."""
    if preview.revision is None:
        lines = ["dry run · would be refused"]
        for each in preview.problems:
            lines.append(f"  {each.text}{_whose(each.replicas)}")
            lines += [f"  {line}" for line in caret(guard, each.code, each.text)]
        return lines
    revision, count = preview.revision, len(preview.targets)
    asked = counted(count, "replica")
    note = [f"  {revision.note}"] if revision.note else []
    note += [f"  revert if {revision.revert_if}"] if revision.revert_if else []
    return [
        f"dry run · would be revision {revision.revision} · {when(revision)} · {asked}",
        f"  {what(revision)}",
        *note,
    ]


def _whose(replicas: list[str]) -> str:
    return f" ({', '.join(replicas)})" if replicas else ""


def _assignments(values: dict[str, Value]) -> str:
    return " ".join(f"{key}={value_text(value)}" for key, value in values.items())


def outcome_summary(outcomes: list[Outcome]) -> str:
    """Return how many replicas answered what: `applied 3/4 at step 7, rejected 1/4`."""
    kinds: dict[str, list[Outcome]] = {}
    for each in outcomes:
        kinds.setdefault(each.outcome or "pending", []).append(each)
    return ", ".join(_share(kind, group, len(outcomes)) for kind, group in kinds.items())


def _share(kind: str, group: list[Outcome], total: int) -> str:
    steps = at_steps(group) if kind == "applied" else ""
    return f"{kind.replace('_', ' ')} {len(group)}/{total}{steps}"


def state_text(status: ReplicaStatus) -> str:
    """Return a replica's state, and of a pause how much is left: `paused, 29 min left`."""
    return status.state if status.pause_left is None else f"{status.state}, {_left(status.pause_left)} left"


def metrics_text(status: ReplicaStatus) -> str:
    """Return the newest value of each metric: `loss 2.31  accuracy 0.5`."""
    return _metrics(sorted(status.metrics.items()))


def main_metrics_text(status: ReplicaStatus) -> str:
    """Return the newest value of `MAIN_METRICS` metrics, losses first."""
    losses_first = sorted(status.metrics.items(), key=lambda item: ("loss" not in item[0].lower(), item[0]))
    return _metrics(losses_first[:MAIN_METRICS])


def _metrics(metrics: list[tuple[str, float]]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics)


def pause_ends(result: Result, limit: float | None, attempt: str = "") -> str:
    """Return a note about when a pause ends by itself; empty where it does not, or where none is coming.

    Args:
        result: Of the pause.
        limit: Seconds, or None.
        attempt: As it was named to the command; empty where it was not.
    """
    if limit is None or (result.settled and not result.applied):
        return ""
    resume = f"`zloom resume {result.run}{attempt_option(attempt)}`"
    return f"note: the pause ends by itself after {span(limit)}; {resume} ends it before"


def still_coming(result: Result, attempt: str = "", *, can_cancel: bool = True) -> str:
    """Return what is said of a change whose wait has ended before all have answered.

    Args:
        result: Of the change.
        attempt: As it was named to the command; empty where it was not.
        can_cancel: Whether it can be taken back, as a cancel cannot.
    """
    coming = f"revision {result.revision} is still coming on {named([each.rank for each in result.missing])}"
    if not can_cancel:
        return coming
    take_back = cancelling(result.run, result.revision, attempt)
    return f"{coming}; `{take_back}` takes it back where it is pending"


def cancelling(run: str, revision: int, attempt: str = "") -> str:
    """Return the command that takes a revision back; `attempt` as it was named, or empty."""
    return f"zloom cancel {run} {revision}{attempt_option(attempt)}"


def attempt_option(attempt: str) -> str:
    """Return the option that names an attempt, behind a blank; empty where none was named."""
    return f" --attempt {attempt}" if attempt else ""


def forgotten(run: str, attempt: str, left: int) -> str:
    """Return that an attempt is forgotten, and how many others of its run are not."""
    others = f"; {counted(left, 'other attempt')} {'is' if left == 1 else 'are'} left" if left else ""
    return f"attempt {attempt} of {run} is forgotten{others}"


def forgettable(run: str, finished: Sequence[str]) -> str:
    """Return what is said behind the refusal to forget an attempt that is live; empty where all are.

    Args:
        run: Of the attempt.
        finished: Its attempts that nobody is in, the newest last.
    """
    if not finished:
        return ""
    which = "one" if len(finished) == 1 else f"the newest of {len(finished)}"
    has = "has" if len(finished) == 1 else "have"
    return f"; `zloom forget {run} --attempt {finished[-1]}` forgets {which} that {has} finished"


def awaited(run: str, known: Collection[str]) -> str:
    """Return what is said where nobody trains in a run that is watched, or in any."""
    names = sorted(known)
    if not run or run in known:
        return f"nobody trains{' in ' * bool(run)}{run} now; waiting for one who does"
    more = f", and {len(names) - MAX_RUNS} more" if len(names) > MAX_RUNS else ""
    listed = f"{', '.join(names[:MAX_RUNS])}{more}" if names else "none"
    return f"no run {run!r} yet; {did_you_mean(run, names)}known are: {listed}; waiting for it"


def observation_lines(observation: Observation, now: float) -> Iterator[str]:
    """Yield the lines about something that a watcher saw; `now` in seconds since the Unix epoch."""
    match observation:
        case Reported():
            status = observation.status
            step = "" if status.step is None else f"  step {status.step}"
            text = f"rank {status.rank}  {state_text(status)}  {status.phase}{step}"
            told = "  ".join(filter(None, (metrics_text(status), ramps_text(status))))
            yield f"{clock(now)}  {status.run}  {text}  {told}".rstrip()
        case Revised():
            revision = observation.revision
            text = f"revision {revision.revision}: {what(revision)} (by {revision.by})"
            yield f"{clock(revision.at)}  {observation.run}  {text}"
        case Answered():
            for outcome in observation.outcomes:
                text = outcome_summary([outcome]).replace(" 1/1", "")
                why = f": {outcome.error}" if outcome.error else ""
                yield (
                    f"{clock(now)}  {observation.run}  revision {observation.revision}: "
                    f"rank {outcome.rank} {text}{why}"
                )
        case Happened():
            event = observation.event
            yield f"{clock(event.at)}  {event.run}  {event.kind.replace('_', ' ')}: {event.text}"
