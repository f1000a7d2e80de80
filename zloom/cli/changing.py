"""Commands that change a run and wait for what becomes of it: `set`, `rollback`, `command`, `cancel`."""

from typing import TYPE_CHECKING, Annotated

import typer

from zloom.cli.bounds import given, run_before_changes
from zloom.cli.options import (
    DEFAULT_TIMEOUT,
    After,
    AtStep,
    Attempt,
    Broker,
    CancelOnTimeout,
    Change,
    CheckpointFirst,
    CommandWords,
    DryRun,
    EarlierRevision,
    ExpectRevision,
    Json,
    Mode,
    Note,
    NoWait,
    OneRevision,
    Queue,
    RequestId,
    RevertIf,
    Run,
    Supersede,
    Target,
    Timeout,
)

if TYPE_CHECKING:
    from zloom.cli.connection import Previewing, Progress, Steering
    from zloom.client import Operator, Result
    from zloom.messages import Preview
    from zloom.model import Mode as ModeWord

ChangedRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        parser=run_before_changes,
        callback=given,
        help="Name of the run.",
        show_default=False,
    ),
]

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="KEY=VALUE...",
        help="Values by key; of a number also a ramp: 'learning_rate=1e-4..1e-3 over 2000 steps'.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command("set")(set_)
    app.command()(rollback)
    app.command()(command)
    app.command()(cancel)


def set_(
    run: ChangedRun,
    words: Words,
    mode: Mode = None,
    at_step: AtStep = None,
    after: After = None,
    supersede: Supersede = False,
    queue: Queue = False,
    checkpoint_first: CheckpointFirst = False,
    dry_run: DryRun = False,
    note: Note = "",
    revert_if: RevertIf = "",
    attempt: Attempt = "",
    expect_revision: ExpectRevision = None,
    request_id: RequestId = None,
    no_wait: NoWait = False,
    cancel_on_timeout: CancelOnTimeout = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Change keys of a run's config, all or none, and wait until every replica has answered.

    Values are read by the type that each key declares; `zloom keys RUN` lists them.
    """
    from zloom.cli import arguments, guards, pending, ramps, usage
    from zloom.cli.exits import reported
    from zloom.errors import Refused

    target = Target(broker, timeout, as_json)
    change = Change(target, run, attempt, not no_wait, cancel_on_timeout, expect_revision, request_id)
    with reported(as_json=as_json):
        usage.check_step(mode, at_step, after, queue=queue, supersede=supersede)
        guards.check(revert_if)
        texts = arguments.split(words)
    chosen: ModeWord | None = None if mode is None else mode.value

    async def preview(operator: "Operator") -> "Preview":
        keys = await operator.keys(run, attempt=attempt)
        ends, steps = ramps.split(texts, keys)
        try:
            values = arguments.changes(ends, keys)
        except Refused as error:
            return arguments.refused(error, keys)
        return await operator.preview_set(
            run,
            values,
            ramps=steps,
            mode=chosen,
            at_step=at_step,
            after=after,
            attempt=attempt,
            expected_revision=expect_revision,
            supersede=supersede,
            queue=queue,
            revert_if=revert_if,
        )

    async def work(operator: "Operator", progress: "Progress") -> "Result":
        keys = await operator.keys(run, attempt=attempt)
        progress.note = lambda result: pending.step_passed(result, texts, keys)
        ends, steps = ramps.split(texts, keys)
        with guards.pointed_at(revert_if):
            return await operator.set(
                run,
                arguments.changes(ends, keys),
                ramps=steps,
                mode=chosen,
                at_step=at_step,
                after=after,
                attempt=attempt,
                expected_revision=expect_revision,
                supersede=supersede,
                queue=queue,
                note=note,
                revert_if=revert_if,
                checkpoint_first=checkpoint_first,
                wait=change.wait,
                cancel_on_timeout=cancel_on_timeout,
                request_id=change.request_id,
                on_progress=progress,
            )

    _do(change, work, preview if dry_run else None, revert_if)


def rollback(
    run: Run,
    revision: EarlierRevision,
    mode: Mode = None,
    supersede: Supersede = False,
    checkpoint_first: CheckpointFirst = False,
    dry_run: DryRun = False,
    note: Note = "",
    attempt: Attempt = "",
    expect_revision: ExpectRevision = None,
    request_id: RequestId = None,
    no_wait: NoWait = False,
    cancel_on_timeout: CancelOnTimeout = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Set every key to the value that it had at an earlier revision, as a new revision."""
    target = Target(broker, timeout, as_json)
    change = Change(target, run, attempt, not no_wait, cancel_on_timeout, expect_revision, request_id)
    chosen: ModeWord | None = None if mode is None else mode.value

    async def preview(operator: "Operator") -> "Preview":
        return await operator.preview_rollback(
            run,
            revision,
            mode=chosen,
            attempt=attempt,
            expected_revision=expect_revision,
            supersede=supersede,
        )

    async def work(operator: "Operator", progress: "Progress") -> "Result":
        return await operator.rollback(
            run,
            revision,
            mode=chosen,
            attempt=attempt,
            expected_revision=expect_revision,
            supersede=supersede,
            note=note,
            checkpoint_first=checkpoint_first,
            wait=change.wait,
            cancel_on_timeout=cancel_on_timeout,
            request_id=change.request_id,
            on_progress=progress,
        )

    _do(change, work, preview if dry_run else None)


def command(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the command.", show_default=False)],
    words: CommandWords = None,
    mode: Mode = None,
    checkpoint_first: CheckpointFirst = False,
    dry_run: DryRun = False,
    note: Note = "",
    attempt: Attempt = "",
    expect_revision: ExpectRevision = None,
    request_id: RequestId = None,
    no_wait: NoWait = False,
    cancel_on_timeout: CancelOnTimeout = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Have a command carried out once by each replica; `zloom keys RUN` lists them."""
    from zloom.cli import arguments
    from zloom.cli.exits import reported
    from zloom.errors import Refused

    target = Target(broker, timeout, as_json)
    change = Change(target, run, attempt, not no_wait, cancel_on_timeout, expect_revision, request_id)
    with reported(as_json=as_json):
        texts = arguments.split(words or [], "argument")
    chosen: ModeWord | None = None if mode is None else mode.value

    async def preview(operator: "Operator") -> "Preview":
        keys = await operator.keys(run, attempt=attempt)
        try:
            values = arguments.command_arguments(name, texts, keys)
        except Refused as error:
            return arguments.refused(error, keys)
        return await operator.preview_command(
            run,
            name,
            values,
            mode=chosen,
            attempt=attempt,
            expected_revision=expect_revision,
        )

    async def work(operator: "Operator", progress: "Progress") -> "Result":
        keys = await operator.keys(run, attempt=attempt)
        return await operator.command(
            run,
            name,
            arguments.command_arguments(name, texts, keys),
            mode=chosen,
            attempt=attempt,
            expected_revision=expect_revision,
            note=note,
            checkpoint_first=checkpoint_first,
            wait=change.wait,
            cancel_on_timeout=cancel_on_timeout,
            request_id=change.request_id,
            on_progress=progress,
        )

    _do(change, work, preview if dry_run else None)


def cancel(
    run: Run,
    revision: OneRevision,
    attempt: Attempt = "",
    request_id: RequestId = None,
    no_wait: NoWait = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Take back a revision where it has not been applied yet; a ramp under way ends where it is."""
    change = Change(Target(broker, timeout, as_json), run, attempt, not no_wait, False, None, request_id)

    async def work(operator: "Operator", progress: "Progress") -> "Result":
        progress.cancels = revision
        return await operator.cancel(
            run,
            revision,
            attempt=attempt,
            wait=change.wait,
            request_id=request_id,
            on_progress=progress,
        )

    _do(change, work, None)


def _do(change: Change, work: "Steering", preview: "Previewing | None", guard: str = "") -> None:
    from zloom.cli import connection

    if preview is None:
        connection.steer(change, work)
    else:
        connection.preview(change, preview, guard)
