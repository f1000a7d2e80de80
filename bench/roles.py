"""Start the parts of a contender, each in a process of its own, or, for inproc, in a thread."""

import contextlib
import queue
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
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


def program(*names: str) -> str | None:
    """Return the first of these programs that is beside this interpreter or on PATH; None without any."""
    places = (str(Path(sys.executable).parent), None)
    found = (shutil.which(name, path=place) for place in places for name in names)
    return next((each for each in found if each is not None), None)


@dataclass(frozen=True, slots=True)
class Running:
    """A process that is ready, and where it can be reached."""

    endpoint: str
    pid: int


class Conversation:
    """A process that is asked line by line.

    Args:
        started: With pipes for its input and output.
        name: For errors.
    """

    def __init__(self, started: subprocess.Popen[str], name: str) -> None:
        self._started = started
        self._name = name

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._started.pid

    def tell(self, line: str) -> None:
        """Give it a line."""
        assert self._started.stdin is not None
        self._started.stdin.write(f"{line}\n")
        self._started.stdin.flush()

    def listen(self, seconds: float = DEADLINE) -> str:
        """Return its next line, which must come within so many seconds.

        Raises:
            TimeoutError: None came in time.
        """
        assert self._started.stdout is not None
        readable, _, _ = select.select([self._started.stdout], [], [], seconds)
        line = self._started.stdout.readline() if readable else ""
        if not line:
            raise TimeoutError(f"{self._name} does not answer")
        return line.strip()

    def ask(self, line: str) -> str:
        """Give it a line, and return the one that it answers with."""
        self.tell(line)
        return self.listen()


@contextlib.contextmanager
def conversation(*arguments: str) -> Iterator[Conversation]:
    """Run `python -m ARGUMENTS` as long as the block lasts; its first line, which is awaited, is not yielded.

    Raises:
        TimeoutError: It did not become ready.
    """
    with begun(*arguments) as started:
        started.listen()
        yield started


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
    with begun(*arguments) as started:
        line = started.listen()
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        yield Running(words["control"], started.pid)


@contextlib.contextmanager
def begun(*arguments: str) -> Iterator[Conversation]:
    """Run `python -m ARGUMENTS` as long as the block lasts; whether it is ready is still to be heard."""
    command, pipe = [sys.executable, "-m", *arguments], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as started:
        try:
            yield Conversation(started, " ".join(arguments))
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
