"""The real broker for tests: on the test's own loop, or in a process of its own."""

import contextlib
import os
import random
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zloom.client import SyncOperator, connect_sync
from zloom.socket_options import Context, new_context
from zloom_broker.server import Server, running
from zloom_broker.settings import BrokerSettings

Transport = Literal["tcp", "ipc", "inproc"]

TRANSPORTS: tuple[Transport, ...] = ("tcp", "ipc", "inproc")

DEADLINE = 60.0
"""Seconds in which whatever a test waits for must have happened, on a machine under load."""

_RUN = """
import sys
from pathlib import Path
from zloom_broker.foreground import run
from zloom_broker.settings import BrokerSettings
data_dir, endpoints, durability = sys.argv[1:4]
exec(sys.argv[4])
places = {"bind": tuple(endpoints.split()), "data_dir": Path(data_dir)}
sys.exit(run(BrokerSettings(**places, durability=durability, no_auth=True)))
"""


def settings(
    data_dir: Path, endpoint: str, durability: Literal["fsync", "buffered"] = "fsync"
) -> BrokerSettings:
    """Return the settings of a broker with one endpoint."""
    return BrokerSettings(bind=(endpoint,), data_dir=data_dir, durability=durability, no_auth=True)


@contextlib.contextmanager
def free_endpoint(transport: Transport) -> Iterator[str]:
    """Yield an endpoint that nobody uses. A socket's path may have 107 bytes, so it is not in `tmp_path`."""
    match transport:
        case "tcp":
            yield "tcp://127.0.0.1:*"
        case "inproc":
            yield f"inproc://{secrets.token_hex(8)}"
        case "ipc":
            with tempfile.TemporaryDirectory(prefix="zloom-", dir="/tmp") as folder:
                yield f"ipc://{folder}/control"


def free_ports() -> int:
    """Return a port of loopback that is free, and so is the next one; no other test gets it.

    It is below those that Linux hands out by itself, which gloo takes dozens of while a job starts.
    """
    for port in _PORTS:
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", port + 1)),
        ):
            return port
    raise AssertionError("all ports were handed out")


def _ports_of_this_worker() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 10_000 + 2_000 * (worker % 10)
    return iter(random.SystemRandom().sample(range(first, first + 2_000, 2), 1_000))


_PORTS = _ports_of_this_worker()


@dataclass(frozen=True)
class RunningBroker:
    """A broker on this loop.

    Attributes:
        endpoint: Of control, as peers connect to it.
        context: To be shared by peers on inproc.
        server: The broker itself.
    """

    endpoint: str
    context: Context
    server: Server


@contextlib.asynccontextmanager
async def running_broker(
    tmp_path: Path, transport: Transport = "ipc", *, endpoint: str = "", context: Context | None = None
) -> AsyncIterator[RunningBroker]:
    """Run a broker on the running loop, with its data in `tmp_path / "broker"`.

    Args:
        tmp_path: The same one again is the same broker, restarted.
        transport: Where no endpoint is given.
        endpoint: Where to bind, to come back where peers look for it.
        context: Of peers on inproc that outlive the broker; by default one that dies with it.
    """
    with contextlib.ExitStack() as stack:
        bind = endpoint or stack.enter_context(free_endpoint(transport))
        shared = context or stack.enter_context(_own_context())
        async with running(settings(tmp_path / "broker", bind), shared) as server:
            yield RunningBroker(server.addresses.bound[0].control, shared, server)


@contextlib.contextmanager
def _own_context() -> Iterator[Context]:
    context = new_context()
    try:
        yield context
    finally:
        context.destroy(linger=0)  # a test that failed may have left sockets open


@dataclass(frozen=True)
class BrokerProcess:
    """A broker in a process of its own.

    Attributes:
        process: To be killed or signalled by the test.
        endpoint: Of control, as peers connect to it; bind it again to come back at the same address.
        updates: Of updates.
        epoch: Of this life.
        log: Where its stderr goes.
    """

    process: subprocess.Popen[str]
    endpoint: str
    updates: str
    epoch: str
    log: Path


@contextlib.contextmanager
def broker_process(
    data_dir: Path,
    endpoint: str,
    *,
    durability: Literal["fsync", "buffered"] = "fsync",
    prelude: str = "",
    within: Sequence[str] = (),
) -> Iterator[BrokerProcess]:
    """Run a broker in a process of its own, from its readiness line to the end of the block.

    Args:
        data_dir: The same one again is the same broker, restarted.
        endpoint: Where to bind; several with spaces between them, of which the first is told.
        durability: As `zloom broker --durability`.
        prelude: Python that its process runs first, such as to limit a resource.
        within: What its command is given to, such as to run it in another namespace.

    Raises:
        AssertionError: It did not become ready; the text holds what it said.
    """
    log = data_dir.with_name(f"{data_dir.name}.log")
    command = [*within, sys.executable, "-c", _RUN, str(data_dir), endpoint, durability, prelude]
    with log.open("a") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    with process:
        try:
            words = dict(word.split("=", 1) for word in _first_line(process, log).split() if "=" in word)
            yield BrokerProcess(process, words["control"], words["updates"], words["epoch"], log)
        finally:
            _end(process)


@contextlib.contextmanager
def operator_of(folder: Path) -> Iterator[SyncOperator]:
    """Run a broker in a process of its own, with its data in `folder / "data"`; yield an operator of it."""
    with (
        free_endpoint("ipc") as bind,
        broker_process(folder / "data", bind) as broker,
        connect_sync(broker.endpoint) as connected,
    ):
        yield connected


def _first_line(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], DEADLINE)
    line = process.stdout.readline() if ready else ""
    assert line, f"the broker did not become ready: {log.read_text()}"
    return line


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError("the broker did not leave within 5 s of SIGTERM") from None
