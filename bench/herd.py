"""All weavelets after kill -9 and restart of their broker, until they are active again, beside NATS."""

import asyncio
import contextlib
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil

import zloom
from bench import nats_server, roles
from bench.collected import Collected
from bench.crowd import CROWD_DEADLINE
from bench.extent import Extent
from bench.fanout import change_all, crowd_of
from bench.goals import Goal
from bench.orders import CHANGES, PAYLOAD
from bench.results import Absence
from bench.trainer import RUN

NAME = "herd"
ZLOOM, NATS = "zloom", "NATS"
TIME, MEMORY = "all back after ready", "server's memory"

SIZE, QUICK_SIZE = 1000, 8
MOST_ROUNDS = 3
"""Each starts a thousand weavelets anew."""

POLL = 0.02
"""Seconds between two looks at who is back."""

GAP = 0.05
"""Seconds without an answer after which those who are missing are not back yet."""

PORTS = (12_000, 30_000)
"""From where to where to look for free ones: below those that systems give to clients."""

HELD_MB, HELD_MB_EACH = 64.0, 0.1
"""What a broker may hold, and for each replica: of that libzmq itself takes 52 to 68 kB."""

GOALS = (
    Goal(f"{SIZE} weavelets", TIME, ZLOOM, NATS, 2.0, by="itself"),
    Goal(f"{SIZE} weavelets", MEMORY, ZLOOM, NATS, HELD_MB + SIZE * HELD_MB_EACH, by="itself"),
    *(Goal(f"{size} weavelets", TIME, ZLOOM, NATS) for size in (QUICK_SIZE, SIZE)),
)

Serve = Callable[[Path, int], AbstractContextManager[roles.Running]]
"""Starts a server with what it kept in the folder, on this port of loopback."""

AllBack = Callable[[str, int], Coroutine[Any, Any, None]]
"""Returns when so many are back at the endpoint."""


def measure(extent: Extent, collected: Collected) -> None:
    """Kill each server once a round, in turns."""
    size = QUICK_SIZE if extent.quick else SIZE
    rounds = min(extent.rounds, MOST_ROUNDS)
    for number in range(rounds):
        extent.say(f"{NAME}: round {number + 1} of {rounds}")
        _restart(ZLOOM, "zloom", _broker, _all_active, size, extent, collected)
        if not nats_server.missing():
            _restart(NATS, "nats", _server, _all_subscribed, size, extent, collected)


def absent() -> list[Absence]:
    """Return whom this machine lacks."""
    why = nats_server.missing()
    return [Absence(NAME, NATS, why)] if why else []


def _restart(
    name: str,
    kind: str,
    serve: Serve,
    all_back: AllBack,
    size: int,
    extent: Extent,
    collected: Collected,
) -> None:
    home, port, case = extent.folder / secrets.token_hex(4), _free_port(), f"{size} weavelets"
    home.mkdir()
    with contextlib.ExitStack() as stack:
        with serve(home, port) as first:
            stack.enter_context(crowd_of(kind, first.endpoint, size))
            asyncio.run(all_back(first.endpoint, size))
            os.kill(first.pid, signal.SIGKILL)
        second = stack.enter_context(serve(home, port))
        started = time.perf_counter()
        asyncio.run(all_back(second.endpoint, size))
        collected.add(case, TIME, "s", name, time.perf_counter() - started)
        collected.add(case, MEMORY, "MB", name, psutil.Process(second.pid).memory_info().rss / 1e6)


def _free_port() -> int:
    """Return a port that is free, as is the next one, where a broker has its updates.

    Not one of those that the system gives to clients: a thousand of them who try to connect to a port on
    which nobody listens would sooner or later be given that very port, and connect to themselves.
    """
    while True:
        port = random.randrange(*PORTS, 2)
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", port + 1)),
        ):
            return port


@contextlib.contextmanager
def _broker(home: Path, port: int) -> Iterator[roles.Running]:
    options = ["--bind", f"tcp://127.0.0.1:{port}", "--no-auth", "--data-dir", str(home)]
    quiet = ["--log-level", "error", "--durability", "buffered"]
    with roles.running("zloom", "broker", *quiet, *options) as running:
        yield running


def _server(home: Path, port: int) -> AbstractContextManager[roles.Running]:
    return nats_server.serving(home, None, port)


async def _all_active(endpoint: str, size: int) -> None:
    """Wait until the broker has them all, and then until a change has reached each."""
    async with zloom.connect(endpoint) as operator, asyncio.timeout(CROWD_DEADLINE):
        while sum(each.live for each in await operator.runs(RUN)) < size:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(POLL)
        await change_all(operator, time.time(), size)


async def _all_subscribed(endpoint: str, size: int) -> None:
    """Publish until that many have answered one message."""
    import nats

    connection = await nats.connect(endpoint)
    try:
        async with asyncio.timeout(CROWD_DEADLINE):
            while await _answers(connection, size) < size:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(POLL)
    finally:
        await connection.close()


async def _answers(connection: Any, size: int) -> int:
    """Return how many answer, as far as no longer than `GAP` lies between two answers."""
    inbox = connection.new_inbox()
    came, more = 0, asyncio.Event()

    async def count(message: Any) -> None:
        nonlocal came
        came += 1
        more.set()

    answers = await connection.subscribe(inbox, cb=count)
    await connection.publish(CHANGES, PAYLOAD, reply=inbox)
    with contextlib.suppress(TimeoutError):
        while came < size:
            more.clear()
            async with asyncio.timeout(GAP):
                await more.wait()
    await answers.unsubscribe()
    return came
