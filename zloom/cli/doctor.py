"""`zloom doctor`: whether all that a run needs of zloom is in order, and what to do where it is not."""

import contextlib
import socket
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from zloom.cli.options import DEFAULT_TIMEOUT, Broker, Json, Target, Timeout

if TYPE_CHECKING:
    from zloom.cli.findings import Finding
    from zloom.client import Operator
    from zloom.model import ReplicaStatus

SECOND_LOOK = 2.5
"""Seconds until values that differ are looked at again: a change may be under way, a status is a beat old."""

LISTEN_TIMEOUT = 2.0
"""Seconds that a connection may take, to see whether anybody listens."""


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command()(doctor)


def doctor(broker: Broker = None, timeout: Timeout = DEFAULT_TIMEOUT, as_json: Json = False) -> None:
    """Check the broker, the key, clocks, the disk, runs that hang and ranks that differ; say what to do."""
    from dataclasses import asdict

    from zloom.cli import connection, findings, output
    from zloom.cli.exits import ExitCode, reported
    from zloom.cli.listeners import UnknownHost
    from zloom.errors import BrokerUnreachable, Refused

    code = ExitCode.DONE
    with reported(as_json=as_json):
        try:
            found = connection.run(connection.connected(Target(broker, timeout, as_json), examine))
        except UnknownHost as error:
            found, code = [findings.of_unknown_host(error.endpoint, error.problem)], ExitCode.UNREACHABLE
        except BrokerUnreachable:
            found, code = [_unreachable(broker)], ExitCode.UNREACHABLE
        except Refused as error:
            if error.code != "unauthenticated":
                raise
            found = [findings.of_refused_key(error.text)]
    if as_json:
        output.say_json([asdict(each) for each in found])
    else:
        for line in findings.lines(found):
            output.say(line)
    if code is ExitCode.DONE and any(each.state == "problem" for each in found):
        code = ExitCode.REFUSED
    raise typer.Exit(code)


async def examine(operator: "Operator") -> "list[Finding]":
    """Return what there is to say of a broker and its runs."""
    import asyncio
    import os

    from zloom.cli import findings
    from zloom.security import KEY_VARIABLE

    begun = time.monotonic()
    stats = await operator.stats()
    latency = time.monotonic() - begun
    everybody = await operator.replicas()
    replicas = _those_there(everybody)
    config = list(findings.of_config(replicas))
    if any(each.state == "problem" for each in config):
        await asyncio.sleep(SECOND_LOOK)
        config = list(findings.of_config(_those_there(await operator.replicas())))
    return [
        findings.of_broker(operator.endpoint, latency),
        findings.of_key(operator.endpoint, os.environ.get(KEY_VARIABLE)),
        *findings.of_clocks(time.time() - stats.at - (time.monotonic() - begun - latency / 2), replicas),
        findings.of_disk(stats.gauges),
        *findings.of_load(stats),
        *findings.of_runs(everybody),
        *config,
    ]


def _those_there(everybody: Iterable["ReplicaStatus"]) -> "list[ReplicaStatus]":
    from zloom.model import GONE

    return [each for each in everybody if each.state not in GONE]


def _unreachable(broker: str | None) -> "Finding":
    import os

    from zloom.cli import findings
    from zloom.settings import resolve_broker

    endpoint = resolve_broker(broker, os.environ)
    return findings.of_silence(endpoint, _listens(endpoint))


def _listens(endpoint: str) -> bool | None:
    scheme, _, rest = endpoint.partition("://")
    with contextlib.suppress(OSError):
        if scheme == "tcp":
            host, _, port = rest.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), LISTEN_TIMEOUT).close()
        elif scheme == "ipc":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(LISTEN_TIMEOUT)
                probe.connect(rest)
        else:
            return None
        return True
    return False
