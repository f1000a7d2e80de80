"""Commands that tell the broker something: `fail-device`, `forget`."""

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from zloom.cli.options import DEFAULT_TIMEOUT, Attempt, Broker, Json, RequestId, Run, Target, Timeout

if TYPE_CHECKING:
    from zloom.client import Operator


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command("fail-device")(fail_device)
    app.command()(forget)


def fail_device(
    device: Annotated[
        str, typer.Argument(metavar="DEVICE", help="Id of the device, as `zloom devices` shows it.")
    ],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="What is wrong, in words.")] = "",
    request_id: RequestId = None,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Report that a device failed: each replica on it is told, and the run's events show it."""
    from zloom.cli import connection, output
    from zloom.words import counted

    target = Target(broker, timeout, as_json)
    replicas = connection.ask(
        target, lambda operator: operator.fail_device(device, reason, request_id=request_id)
    )
    if as_json:
        output.say_json({"device": device, "reason": reason, "replicas": replicas})
    else:
        output.say(f"{device} is marked as failed; {counted(len(replicas), 'replica')} on it told")


def forget(
    run: Run,
    attempt: Attempt = "",
    request_id: RequestId = None,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Forget a finished attempt of a run: its config, its history and its request ids."""
    from zloom.cli import connection, output, report
    from zloom.errors import ZloomError

    async def work(operator: "Operator") -> tuple[str, int]:
        forgotten = await _forget(operator, run, attempt, request_id)
        with contextlib.suppress(ZloomError):  # it is forgotten, whether the broker is there still or not
            return forgotten, len(await operator.runs(run))
        return forgotten, 0

    forgotten, left = connection.ask(Target(broker, timeout, as_json), work)
    if as_json:
        output.say_json({"run": run, "attempt": forgotten, "forgotten": True})
    else:
        output.say(report.forgotten(run, forgotten, left))


async def _forget(operator: "Operator", run: str, attempt: str, request_id: str | None) -> str:
    """Forget an attempt; where the one that was taken is live, name one that could be forgotten."""
    from zloom.cli import report
    from zloom.errors import Refused
    from zloom.model import GONE

    try:
        return await operator.forget(run, attempt=attempt, request_id=request_id)
    except Refused as error:
        if error.code != "still_live":
            raise
        there = {each.attempt for each in await operator.replicas(run) if each.state not in GONE}
        finished = [each.attempt for each in await operator.runs(run) if each.attempt not in there]
        raise Refused(error.code, f"{error.text}{report.forgettable(run, finished)}") from error
