"""Commands that change a run and wait for what becomes of it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from zloom.cli.options import (
    DEFAULT_TIMEOUT,
    AtStep,
    Attempt,
    Broker,
    CancelOnTimeout,
    Change,
    ExpectRevision,
    Json,
    Mode,
    NoWait,
    Run,
    Target,
    Timeout,
)

if TYPE_CHECKING:
    from zloom.cli.connection import Progress, Steering
    from zloom.client import Operator, Result
    from zloom.model import Value

PAUSE_LIMIT = 1800.0
"""Seconds; the client's `PAUSE_LIMIT`, here so that `--help` need not load the client."""

SIMPLE_COMMANDS = {
    "resume": "End a pause.",
    "checkpoint": "Save a checkpoint, and say where.",
    "validate": "Run the validation loop now.",
}

Words = Annotated[
    list[str], typer.Argument(metavar="KEY=VALUE...", help="Values by key.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command("set")(set_)
    app.command()(rollback)
    app.command()(pause)
    app.command()(stop)
    for name, text in SIMPLE_COMMANDS.items():
        app.command(name, help=text)(_simple(name))
    app.command()(command)
    app.command()(cancel)


def set_(
    run: Run,
    words: Words,
    mode: Mode = None,
    at_step: AtStep = None,
    attempt: Attempt = "",
    expect_revision: ExpectRevision = None,
    no_wait: NoWait = False,
    cancel_on_timeout: CancelOnTimeout = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Change keys of a run's config, all or none, and wait until every replica has answered.

    Values are read by the type that each key declares; `zloom keys RUN` lists them.
    """
    from zloom.cli import arguments, report
    from zloom.cli.connection import reported

    change = Change(
        Target(broker, timeout, as_json), run, attempt, not no_wait, cancel_on_timeout, expect_revision
    )
    with reported(as_json=as_json):
        texts = arguments.split(words)

    async def work(operator: "Operator", progress: "Progress") -> "Result":
        keys = await operator.keys(run, attempt=attempt)
        progress.why_pending = report.why_pending(texts, keys, at_step)
        return await operator.set(
            run,
            arguments.changes(texts, keys),
            mode=None if mode is None else mode.value,
            at_step=at_step,
            attempt=attempt,
            expected_revision=expect_revision,
            wait=change.wait,
            cancel_on_timeout=cancel_on_timeout,
            on_progress=progress,
        )

    _steer(change, work)


def rollback(
    run: Run,
    revision: Annotated[int, typer.Argument(min=0, help="0 is the trainer's own.", show_default=False)],
    mode: Mode = None,
    attempt: Attempt = "",
    expect_revision: ExpectRevision = None,
    no_wait: NoWait = False,
    cancel_on_timeout: CancelOnTimeout = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Set every key to the value that it had at an earlier revision, as a new revision."""
    change = Change(
        Target(broker, timeout, as_json), run, attempt, not no_wait, cancel_on_timeout, expect_revision
    )

    async def work(operator: "Operator", progress: "Progress") -> "Result":
        return await operator.rollback(
            run,
            revision,
            mode=None if mode is None else mode.value,
            attempt=attempt,
            expected_revision=expect_revision,
            wait=change.wait,
            cancel_on_timeout=cancel_on_timeout,
            on_progress=progress,
        )

    _steer(change, work)


def pause(
    run: Run,
    limit: Annotated[
        float, typer.Option("--for", metavar="SECONDS", min=0.0, help="The pause ends by itself after this.")
    ] = PAUSE_LIMIT,
    no_limit: Annotated[bool, typer.Option("--no-limit", help="The pause does not end by itself.")] = False,
    attempt: Attempt = "",
    expect_revision: ExpectRevision = None,
    no_wait: NoWait = False,
    cancel_on_timeout: CancelOnTimeout = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Pause training; `zloom resume` or the limit ends it."""
    change = Change(
        Target(broker, timeout, as_json), run, attempt, not no_wait, cancel_on_timeout, expect_revision
    )
    _send(change, "pause", {"limit": None if no_limit else limit})


def stop(
    run: Run,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also before the trainer's own minimum; refused where it has none."),
    ] = False,
    attempt: Attempt = "",
    expect_revision: ExpectRevision = None,
    no_wait: NoWait = False,
    cancel_on_timeout: CancelOnTimeout = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """End training, as if it had reached its end."""
    change = Change(
        Target(broker, timeout, as_json), run, attempt, not no_wait, cancel_on_timeout, expect_revision
    )
    _send(change, "stop", {"force": True} if force else {})


def _simple(name: str) -> Callable[..., None]:
    def simple(
        run: Run,
        attempt: Attempt = "",
        expect_revision: ExpectRevision = None,
        no_wait: NoWait = False,
        cancel_on_timeout: CancelOnTimeout = False,
        broker: Broker = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
        as_json: Json = False,
    ) -> None:
        change = Change(
            Target(broker, timeout, as_json), run, attempt, not no_wait, cancel_on_timeout, expect_revision
        )
        _send(change, name, {})

    return simple


def command(
    run: Run,
    name: Annotated[str, typer.Argument(help="Name of the command.", show_default=False)],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Its arguments.", show_default=False),
    ] = None,
    mode: Mode = None,
    attempt: Attempt = "",
    expect_revision: ExpectRevision = None,
    no_wait: NoWait = False,
    cancel_on_timeout: CancelOnTimeout = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Have a command carried out once by each replica; `zloom keys RUN` lists them."""
    from zloom.cli import arguments
    from zloom.cli.connection import reported

    change = Change(
        Target(broker, timeout, as_json), run, attempt, not no_wait, cancel_on_timeout, expect_revision
    )
    with reported(as_json=as_json):
        texts = arguments.split(words or [])

    async def work(operator: "Operator", progress: "Progress") -> "Result":
        keys = await operator.keys(run, attempt=attempt)
        return await operator.command(
            run,
            name,
            arguments.command_arguments(name, texts, keys),
            mode=None if mode is None else mode.value,
            attempt=attempt,
            expected_revision=expect_revision,
            wait=change.wait,
            cancel_on_timeout=cancel_on_timeout,
            on_progress=progress,
        )

    _steer(change, work)


def cancel(
    run: Run,
    revision: Annotated[int, typer.Argument(min=1, help="Which one.", show_default=False)],
    attempt: Attempt = "",
    no_wait: NoWait = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Take back a revision wherever it has not been applied yet."""
    change = Change(Target(broker, timeout, as_json), run, attempt, not no_wait, False, None)

    async def work(operator: "Operator", progress: "Progress") -> "Result":
        return await operator.cancel(run, revision, attempt=attempt, wait=change.wait, on_progress=progress)

    _steer(change, work)


def _send(change: Change, name: str, arguments: "dict[str, Value]") -> None:
    async def work(operator: "Operator", progress: "Progress") -> "Result":
        return await operator.command(
            change.run,
            name,
            arguments,
            attempt=change.attempt,
            expected_revision=change.expected_revision,
            wait=change.wait,
            cancel_on_timeout=change.cancel_on_timeout,
            on_progress=progress,
        )

    _steer(change, work)


def _steer(change: Change, work: "Steering") -> None:
    from zloom.cli import connection

    connection.steer(change, work)
