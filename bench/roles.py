"""Start the parts of a contender, each in a process of its own, or, for inproc, in a thread."""

import contextlib
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

DEADLINE = 20.0
"""Seconds until a part must be ready, on a machine under load."""

LEAVE = 5.0
"""Seconds until a part must have ended."""


class Ready(Protocol):
    """What a part calls when the next part can be started."""

    def __call__(self, endpoint: str = "", stop: Callable[[], object] = lambda: None) -> None:
        """Tell where the part can be reached, and how it is told to end."""


def announce(endpoint: str = "", stop: Callable[[], object] = lambda: None) -> None:
    """A `Ready` for a process: print the line that `process` waits for, in the form of `zloom broker`'s."""
    print(f"ready control={endpoint}", flush=True)


@dataclass(frozen=True, slots=True)
class Running:
    """A process that is ready, and where it can be reached."""

    endpoint: str
    pid: int


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[str]:
    """Do what `running` does; yields the endpoint alone."""
    with running(*arguments) as started:
        yield started.endpoint


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Running]:
    """Run `python -m ARGUMENTS` as long as the block lasts; yields its pid and endpoint.

    Raises:
        TimeoutError: It did not become ready.
    """
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            ready, _, _ = select.select([started.stdout], [], [], DEADLINE)
            line = started.stdout.readline() if ready else ""
            if not line:
                raise TimeoutError(f"{' '.join(arguments)} did not become ready")
            yield Running(
                dict(word.split("=", 1) for word in line.split() if "=" in word)["control"], started.pid
            )
        finally:
            end(started)


def end(started: subprocess.Popen[Any]) -> None:
    """Tell a process to end, and kill it when it does not."""
    started.terminate()
    try:
        started.wait(LEAVE)
    except subprocess.TimeoutExpired:
        started.kill()


@contextlib.contextmanager
def thread(role: Callable[[Ready], None]) -> Iterator[str]:
    """Run a part in a thread as long as the block lasts; yields the endpoint that it tells.

    Raises:
        TimeoutError: It did not become ready, or did not end.
    """
    told: queue.SimpleQueue[tuple[str, Callable[[], object]]] = queue.SimpleQueue()

    def ready(endpoint: str = "", stop: Callable[[], object] = lambda: None) -> None:
        told.put((endpoint, stop))

    part = threading.Thread(target=role, args=(ready,), daemon=True)
    part.start()
    try:
        endpoint, stop = told.get(timeout=DEADLINE)
    except queue.Empty:
        raise TimeoutError(f"{role} did not become ready") from None
    yield endpoint
    stop()
    part.join(LEAVE)
    if part.is_alive():
        raise TimeoutError(f"{role} did not end")
