"""Commands that most trainers know by name: `pause`, `resume`, `stop`, `checkpoint`, `validate`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from zloom.cli.bounds import integer, seconds
from zloom.cli.options import (
    DEFAULT_TIMEOUT,
    Attempt,
    Broker,
    CancelOnTimeout,
    Change,
    CommandWords,
    ExpectRevision,
    Json,
    NoWait,
    RequestId,
    Run,
    Target,
    Timeout,
)

if TYPE_CHECKING:
    from zloom.cli.connection import Progress
    from zloom.client import Operator, Result
    from zloom.model import Value

PAUSE_LIMIT = 1800.0
"""Seconds; the client's `PAUSE_LIMIT`, here so that `--help` need not load the client."""

SIMPLE_COMMANDS = {
    "checkpoint": "Save a checkpoint, and say where.",
    "validate": "Run the validation loop now.",
}


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command()(pause)
    app.command()(resume)
    app.command()(stop)
    for name, text in SIMPLE_COMMANDS.items():
        app.command(name, help=text)(_simple(name))


def pause(
    run: Run,
    limit: Annotated[
        float | None,
        typer.Option(
            "--for",
            metavar="SECONDS",
            parser=seconds("--for", above=0),
            help=f"The pause ends by itself after this; by default {PAUSE_LIMIT:g}.",
            show_default=False,
        ),
    ] = None,
    no_limit: Annotated[bool, typer.Option("--no-limit", help="The pause does not end by itself.")] = False,
    attempt: Attempt = "",
    expect_revision: ExpectRevision = None,
    request_id: RequestId = None,
    no_wait: NoWait = False,
    cancel_on_timeout: CancelOnTimeout = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Pause training; `zloom resume` or the limit ends it."""
    from zloom.cli import exits, usage

    target = Target(broker, timeout, as_json)
    change = Change(target, run, attempt, not no_wait, cancel_on_timeout, expect_revision, request_id)
    with exits.reported(as_json=as_json):
        usage.exclusive(**{"for": limit is not None}, no_limit=no_limit)
    ends_after = None if no_limit else PAUSE_LIMIT if limit is None else limit

    async def prepare(_: "Operator", progress: "Progress") -> None:
        from zloom.cli import report

        progress.note = lambda result: report.pause_ends(result, ends_after, attempt)

    _send(change, "pause", {"limit": ends_after}, prepare)


def resume(
    run: Run,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            metavar="N",
            parser=integer("--steps", 1),
            help="Train N steps, then pause again.",
            show_default=False,
        ),
    ] = None,
    attempt: Attempt = "",
    expect_revision: ExpectRevision = None,
    request_id: RequestId = None,
    no_wait: NoWait = False,
    cancel_on_timeout: CancelOnTimeout = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """End a pause; with --steps only for so many steps, after which all ranks pause at the same step."""
    target = Target(broker, timeout, as_json)
    change = Change(target, run, attempt, not no_wait, cancel_on_timeout, expect_revision, request_id)
    _send(change, "resume", {} if steps is None else {"steps": steps})


def stop(
    run: Run,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also before the trainer's own minimum (Lightning's min_epochs); refused where the "
            "trainer's stop knows no force.",
        ),
    ] = False,
    attempt: Attempt = "",
    expect_revision: ExpectRevision = None,
    request_id: RequestId = None,
    no_wait: NoWait = False,
    cancel_on_timeout: CancelOnTimeout = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """End training, as if it had reached its end."""
    target = Target(broker, timeout, as_json)
    change = Change(target, run, attempt, not no_wait, cancel_on_timeout, expect_revision, request_id)
    _send(change, "stop", {"force": True} if force else {})


def _simple(name: str) -> Callable[..., None]:
    def simple(
        run: Run,
        words: CommandWords = None,
        attempt: Attempt = "",
        expect_revision: ExpectRevision = None,
        request_id: RequestId = None,
        no_wait: NoWait = False,
        cancel_on_timeout: CancelOnTimeout = False,
        broker: Broker = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
        as_json: Json = False,
    ) -> None:
        from zloom.cli import arguments, exits

        target = Target(broker, timeout, as_json)
        change = Change(target, run, attempt, not no_wait, cancel_on_timeout, expect_revision, request_id)
        with exits.reported(as_json=as_json):
            texts = arguments.split(words or [], "argument")
        _send(change, name, {}, texts=texts)

    return simple


def _send(
    change: Change,
    name: str,
    values: "dict[str, Value]",
    prepare: "Callable[[Operator, Progress], Awaitable[None]] | None" = None,
    texts: "Mapping[str, str] | None" = None,
) -> None:
    from zloom.cli import arguments, connection

    async def work(operator: "Operator", progress: "Progress") -> "Result":
        if prepare is not None:
            await prepare(operator, progress)
        if texts:
            keys = await operator.keys(change.run, attempt=change.attempt)
            values.update(arguments.command_arguments(name, texts, keys))
        return await operator.command(
            change.run,
            name,
            values,
            attempt=change.attempt,
            expected_revision=change.expected_revision,
            wait=change.wait,
            cancel_on_timeout=change.cancel_on_timeout,
            request_id=change.request_id,
            on_progress=progress,
        )

    connection.steer(change, work)
