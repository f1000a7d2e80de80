"""Commands that tell the broker something: `fail-device`, `forget`."""

from typing import Annotated

import typer

from zloom.cli.options import DEFAULT_TIMEOUT, Attempt, Broker, Json, RequestId, Run, Target, Timeout


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
    from zloom.cli import connection, output

    target = Target(broker, timeout, as_json)
    forgotten = connection.ask(
        target, lambda operator: operator.forget(run, attempt=attempt, request_id=request_id)
    )
    if as_json:
        output.say_json({"run": run, "attempt": forgotten, "forgotten": True})
    else:
        output.say(f"attempt {forgotten} of {run} is forgotten")
