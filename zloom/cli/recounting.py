"""What was recorded and what was replayed, in words and as JSON. Pure."""

from collections.abc import Iterator, Sequence

from zloom.cli import report, shapes
from zloom.client.recorder import Recorded
from zloom.client.replaying import Replayed
from zloom.model import Revision
from zloom.recording import End, Header
from zloom.recording_file import Loss
from zloom.replay_schedule import LeftOut, Schedule
from zloom.words import counted


def recorded_line(recorded: Recorded) -> str:
    """Return what a recording holds: `12 revisions, 3400 points of 2 metrics, …`."""
    header, end = recorded.header, recorded.end
    held = ", ".join(
        [
            counted(recorded.revisions, "revision"),
            f"{counted(end.points, 'point')} of {counted(len(recorded.metrics), 'metric')}",
            counted(recorded.events, "event"),
        ]
    )
    size = f"{recorded.size / 1e6:.1f} MB" if recorded.size >= 1e6 else f"{recorded.size / 1e3:.1f} kB"
    return f"recorded {header.run} ({header.attempt}) to {recorded.path} · {held} · {size} · {end.reason}"


def missing_lines(header: Header, end: End) -> Iterator[str]:
    """Yield what is not in a recording."""
    for replica in header.replicas:
        if replica.step:
            yield f"points of rank {replica.rank} up to step {replica.step} came before it began"
    if end.points_dropped:
        yield f"{counted(end.points_dropped, 'point')} were dropped by trainers before a broker took them"
    if end.missed:
        yield f"{counted(end.missed, 'message')} with reports or events did not arrive"
    if end.restarts:
        times = counted(end.restarts, "time")
        yield f"the broker was restarted ({times}); reports and events of meanwhile may be missing"
    if not end.complete:
        yield "the broker did not answer at the end; the newest revisions and outcomes may be missing"


def loss_lines(loss: Loss, end: End | None) -> Iterator[str]:
    """Yield what of a recording could not be taken, where that bears on the replay."""
    if loss.cut:
        yield f"note: the recording ends in {counted(loss.cut, 'byte')} that are no whole record; passed over"
    if end is None:
        yield "note: the recorder was killed; changes that came after the last record are missing"
    elif not end.complete:
        yield "note: the recorder lost its broker; the newest changes may be missing"
    if loss.unknown:
        yield f"note: {counted(loss.unknown, 'record')} of a newer zloom passed over"


def left_out_line(left_out: LeftOut) -> str:
    """Return what is not replayed, and why."""
    return f"left out: revision {left_out.revision}: {left_out.reason}"


def change_line(replayed: Replayed) -> str:
    """Return what became of a change that was replayed."""
    change, result = replayed.change, replayed.result
    revision = Revision(result.revision, "config", changes=change.changes, ramps=change.ramps)
    summary = report.outcome_summary(result.outcomes)
    verdict = "" if replayed.exact else " · not as recorded"
    told = f"revision {change.revision} as {result.revision}"
    return f"step {change.step} · {report.what(revision)} · {told} · {summary}{verdict}"


def replayed_line(replayed: Sequence[Replayed]) -> str:
    """Return how many changes were applied at the step of the recording."""
    exact = sum(each.exact for each in replayed)
    return f"replayed {exact} of {counted(len(replayed), 'change')} at the recorded step"


def interrupted(run: str, revisions: Sequence[int]) -> str:
    """Return what is still coming after a replay was interrupted."""
    if not revisions:
        return "interrupted: nothing was handed over"
    span = f"{revisions[0]} to {revisions[-1]}"
    return f"interrupted: revisions {span} are with {run}, each for its step; `zloom cancel` takes one back"


def of_recorded(recorded: Recorded) -> shapes.Json:
    """Return what `record --json` prints."""
    end = shapes.of_struct(recorded.end)
    return {
        "file": str(recorded.path),
        "size": recorded.size,
        "run": recorded.header.run,
        "attempt": recorded.header.attempt,
        "began": recorded.header.at,
        "steps_before": {each.replica: each.step for each in recorded.header.replicas},
        "revisions": recorded.revisions,
        "metrics": recorded.metrics,
        "events": recorded.events,
        "ended": end.pop("at"),
        **end,
    }


def of_replayed(header: Header, schedule: Schedule, run: str, replayed: Sequence[Replayed]) -> shapes.Json:
    """Return what `replay --json` prints."""
    return {
        "recorded": {"run": header.run, "attempt": header.attempt},
        "run": run,
        "exact": all(each.exact for each in replayed),
        "changes": [_of_change(each) for each in replayed],
        "left_out": [{"revision": each.revision, "reason": each.reason} for each in schedule.left_out],
    }


def _of_change(replayed: Replayed) -> shapes.Json:
    change, result = replayed.change, replayed.result
    return {
        "recorded": change.revision,
        "step": change.step,
        "changes": change.changes,
        "ramps": {key: shapes.of_struct(ramp) for key, ramp in change.ramps.items()},
        "revision": result.revision,
        "outcomes": shapes.of_outcomes(result.outcomes),
        "exact": replayed.exact,
    }
