"""Commands that keep a run and steer another one by it: `record`, `replay`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zloom.cli.bounds import integer
from zloom.cli.options import DEFAULT_TIMEOUT, Broker, Json, Run, Target, Timeout

if TYPE_CHECKING:
    from zloom.client import Operator
    from zloom.client.recorder import Recorded
    from zloom.client.replaying import Replay, Replayed
    from zloom.recording import Header
    from zloom.replay_schedule import Schedule

WaitForRun = Annotated[
    bool, typer.Option("--wait", help="Wait until the run is at its first step, with all its ranks.")
]

WholeAttempt = Annotated[
    str,
    typer.Option(
        "--attempt",
        metavar="ID",
        help="Which attempt of the run; by default the newest that is live with all its ranks.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command()(record)
    app.command()(replay)


def record(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Write over FILE if it is there.")] = False,
    wait: WaitForRun = False,
    attempt: WholeAttempt = "",
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Write everything about a run to a file, what was and what comes, until it ends; Ctrl-C ends it too."""
    from zloom.cli import connection, output, recounting, usage
    from zloom.cli.exits import reported

    with reported(as_json=as_json):
        usage.check_file(file)

    async def work(operator: "Operator") -> "Recorded":
        return await _record(operator, run, attempt, file, force=force, wait=wait)

    recorded = connection.ask(Target(broker, timeout, as_json), work)
    if as_json:
        output.say_json(recounting.of_recorded(recorded))
        return
    output.say(recounting.recorded_line(recorded))
    for line in recounting.missing_lines(recorded.header, recorded.end):
        output.remark(line)


async def _record(
    operator: "Operator", run: str, attempt: str, file: Path, *, force: bool, wait: bool
) -> "Recorded":
    import asyncio

    from zloom import stop_signals
    from zloom.cli import output
    from zloom.client.recorder import Recorder
    from zloom.errors import Refused

    recorder = Recorder(operator, run, attempt)
    stop_signals.heed(asyncio.get_running_loop(), recorder.stop)

    def begin(header: "Header") -> None:
        output.remark(f"recording {header.run} ({header.attempt}) to {file}")

    recorder.on_begin = begin
    try:
        return await recorder.record(file, replace=force, wait=_say_waiting if wait else None)
    except Refused as error:
        if error.code not in ("unknown_run", "unknown_attempt"):
            raise
        raise Refused(error.code, f"{error.text}; wait for it with --wait") from error


def _say_waiting(why: str) -> None:
    from zloom.cli import output

    output.remark(f"{why}; waiting")


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="From `zloom record`.", show_default=False)],
    run: Annotated[str, typer.Option("--run", metavar="RUN", help="The run to steer.", show_default=False)],
    skip: Annotated[
        list[int] | None,
        typer.Option(
            "--skip",
            metavar="REVISION",
            parser=integer("--skip", 1),
            help="Leave this one out; repeatable.",
            show_default=False,
        ),
    ] = None,
    wait: WaitForRun = False,
    attempt: WholeAttempt = "",
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Steer a run as a recorded one was: the same changes at the start of the same steps."""
    from zloom.cli import connection, output, recounting
    from zloom.cli.exits import ExitCode, reported

    target = Target(broker, timeout, as_json)
    with reported(as_json=as_json):
        header, schedule = _read(file, skip or [])
    replays: list[Replay] = []  # for the word about what is still coming after Ctrl-C

    async def work(operator: "Operator") -> "list[Replayed]":
        replays.append(await _begin(operator, header, schedule, run, attempt, wait=wait))
        return await _follow(replays[0], as_json=as_json)

    try:
        replayed = connection.ask(target, work)
    except KeyboardInterrupt:
        handed_over = replays[0].accepted if replays else []
        output.complain(recounting.interrupted(run, [each.revision for _, each in handed_over]))
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if as_json:
        output.say_json(recounting.of_replayed(header, schedule, run, replayed))
    else:
        output.say(recounting.replayed_line(replayed))
    if not all(each.exact for each in replayed):
        partly = any(each.exact for each in replayed)
        raise typer.Exit(ExitCode.PARTLY if partly else ExitCode.REFUSED)


def _read(file: Path, skip: list[int]) -> "tuple[Header, Schedule]":
    from zloom import recording
    from zloom.cli import output, recounting
    from zloom.errors import RecordingError
    from zloom.recording_file import RecordingReader
    from zloom.replay_schedule import schedule_of

    reader = RecordingReader(file)
    end: recording.End | None = None
    steering: list[recording.AnyRecord] = []
    for each in reader.records():  # a stream: the metrics may be more than fits into memory
        end = each if isinstance(each, recording.End) else end
        if isinstance(each, recording.Revised | recording.Answered):
            steering.append(each)
    schedule = schedule_of(steering, skip)
    for line in recounting.loss_lines(reader.loss, end):
        output.remark(line)
    if schedule.obstacles:
        error = RecordingError(f"{file} cannot be replayed exactly: {schedule.obstacles[0]}")
        for obstacle in schedule.obstacles[1:]:
            error.add_note(f"  {obstacle}")
        raise error
    if not schedule.changes:
        error = RecordingError(f"{file} has nothing to replay: it holds no change that is not left out")
        for left_out in schedule.left_out:
            error.add_note(recounting.left_out_line(left_out))
        raise error
    return reader.header, schedule


async def _begin(
    operator: "Operator", header: "Header", schedule: "Schedule", run: str, attempt: str, *, wait: bool
) -> "Replay":
    from zloom.cli import output, recounting
    from zloom.client.attempts import training_attempt
    from zloom.client.replaying import Replay

    recorded = header.attempt if header.run == run else ""
    found = await training_attempt(
        operator, run, attempt=attempt, without=recorded, wait=_say_waiting if wait else None
    )
    replay = Replay(operator, header, schedule.changes, run, found.attempt)
    for difference in await replay.differences():
        output.remark(f"note: {difference}")
    for each in schedule.left_out:
        output.remark(recounting.left_out_line(each))
    return replay


async def _follow(replay: "Replay", *, as_json: bool) -> "list[Replayed]":
    """Hand the schedule over and say what becomes of it; where a step is missed take back the rest."""
    from zloom.cli import output, recounting

    await replay.hand_over()
    replayed: list[Replayed] = []
    async for each in replay.outcomes():
        replayed.append(each)
        if not as_json:
            output.say(recounting.change_line(each))
        if not each.exact:
            rest = await replay.withdraw(after=len(replayed))
            for taken_back in rest if not as_json else []:
                output.say(recounting.change_line(taken_back))
            return replayed + rest
    return replayed
