"""How long it takes until zloom is there, and what it then holds in memory, beside Python and NATS."""

import asyncio
import contextlib
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

import zloom
from bench import nats_server, roles
from bench.collected import Collected
from bench.extent import Extent
from bench.goals import Goal
from bench.results import Absence

NAME = "start"
IMPORT, HELP, READY = "import", "--help", "broker"
BARE, ZLOOM, NATS = "bare Python", "zloom", "NATS"
TIME, MEMORY = "time", "memory"

GOALS = (
    Goal(IMPORT, TIME, ZLOOM, BARE, 120, by="difference"),
    Goal(HELP, TIME, ZLOOM, BARE, 250, by="itself"),
    Goal(READY, TIME, ZLOOM, NATS, 400, by="itself"),
    Goal(READY, MEMORY, ZLOOM, NATS, 48, by="itself"),
)

TURNS = 3
"""Starts of each contender in one round, of which the fastest counts: others had the disk or the core."""

COMMANDS: dict[str, dict[str, list[str]]] = {
    IMPORT: {
        BARE: ["-c", "pass"],
        ZLOOM: ["-c", "import zloom"],
        "pyzmq": ["-c", "import zmq"],
        "nats-py": ["-c", "import nats"],
    },
    HELP: {BARE: ["-c", "pass"], ZLOOM: ["-m", "zloom", "--help"]},
}
"""By case and contender: what Python runs."""


def measure(extent: Extent, collected: Collected) -> None:
    """Start everything, in turns."""
    lacking = {"nats-py", NATS} if nats_server.missing() else set()
    turns = 1 if extent.quick else TURNS
    for number in range(extent.rounds):
        extent.say(f"{NAME}: round {number + 1} of {extent.rounds}")
        for case, commands in COMMANDS.items():
            present = {name: words for name, words in commands.items() if name not in lacking}
            for name, millis in _fastest(present, turns).items():
                collected.add(case, TIME, "ms", name, millis)
        for name, server in SERVERS.items():
            if name not in lacking:
                _serve(server, name, turns, extent.folder, collected)


def absent() -> list[Absence]:
    """Return whom this machine lacks."""
    why = nats_server.missing()
    return [Absence(NAME, NATS, why)] if why else []


def _fastest(commands: dict[str, list[str]], turns: int) -> dict[str, float]:
    """Return the least milliseconds of each, from the start of its process to its end."""
    millis: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(turns):
        for name, words in commands.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            millis[name].append((time.perf_counter() - started) * 1000)
    return {name: min(each) for name, each in millis.items()}


@contextlib.contextmanager
def _broker(folder: Path) -> Iterator[roles.Running]:
    with TemporaryDirectory(prefix="zloom-") as sockets:
        options = ["--bind", f"ipc://{sockets}/control", "--data-dir", str(folder / secrets.token_hex(4))]
        with roles.running("zloom", "broker", "--log-level", "error", *options) as running:
            yield running


def _jetstream(folder: Path) -> AbstractContextManager[roles.Running]:
    return nats_server.running(folder, "2m")


SERVERS: dict[str, Callable[[Path], AbstractContextManager[roles.Running]]] = {
    ZLOOM: _broker,
    NATS: _jetstream,
}
"""Each keeps what it is told on disk."""


async def _ask_broker(endpoint: str) -> None:
    async with zloom.connect(endpoint) as operator:
        await operator.runs()


async def _ask_nats(endpoint: str) -> None:
    import nats

    connection = await nats.connect(endpoint)
    await connection.flush()
    await connection.close()


CLIENTS: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {ZLOOM: _ask_broker, NATS: _ask_nats}
"""A first client, who is answered: what a server loads right after its start is there then."""


def _serve(
    server: Callable[[Path], AbstractContextManager[roles.Running]],
    name: str,
    turns: int,
    folder: Path,
    collected: Collected,
) -> None:
    millis, memory = [], []
    for _ in range(turns):
        started = time.perf_counter()
        with server(folder) as running:
            millis.append((time.perf_counter() - started) * 1000)
            asyncio.run(CLIENTS[name](running.endpoint))
            memory.append(psutil.Process(running.pid).memory_info().rss / 1e6)
    collected.add(READY, TIME, "ms", name, min(millis))
    collected.add(READY, MEMORY, "MB", name, max(memory))
