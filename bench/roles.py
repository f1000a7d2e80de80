"""Start the parts of a contender, each in a process of its own, or, for inproc, in a thread."""

import contextlib
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

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


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[str]:
    """Run `python -m ARGUMENTS` as long as the block lasts; yields the endpoint of its first line.

    Raises:
        TimeoutError: It did not become ready.
    """
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            ready, _, _ = select.select([running.stdout], [], [], DEADLINE)
            line = running.stdout.readline() if ready else ""
            if not line:
                raise TimeoutError(f"{' '.join(arguments)} did not become ready")
            yield dict(word.split("=", 1) for word in line.split() if "=" in word)["control"]
        finally:
            _end(running)


def _end(running: subprocess.Popen[str]) -> None:
    running.terminate()
    try:
        running.wait(LEAVE)
    except subprocess.TimeoutExpired:
        running.kill()


@contextlib.contextmanager
def thread(role: Callable[[Ready], None]) -> Iterator[str]:
    """Run a part in a thread as long as the block lasts; yields the endpoint that it tells.

    Raises:
        TimeoutError: It did not become ready, or did not end.
    """
    told: queue.SimpleQueue[tuple[str, Callable[[], object]]] = queue.SimpleQueue()

    def ready(endpoint: str = "", stop: Callable[[], object] = lambda: None) -> None:
        told.put((endpoint, stop))

    running = threading.Thread(target=role, args=(ready,), daemon=True)
    running.start()
    try:
        endpoint, stop = told.get(timeout=DEADLINE)
    except queue.Empty:
        raise TimeoutError(f"{role} did not become ready") from None
    yield endpoint
    stop()
    running.join(LEAVE)
    if running.is_alive():
        raise TimeoutError(f"{role} did not end")
