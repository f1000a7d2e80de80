"""What a change takes whatever is done above it: hop, hand-over, hand-back and commit, each by itself."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zmq

from bench import echo, roles
from bench.commits import database
from bench.orders import PAYLOAD
from bench.parts import Plan, shared_context, timed
from bench.peers import BlockingBench
from zloom_broker.settings import Durability

ASLEEP = 0.0005
"""Seconds after which the other thread, which waits, sleeps for sure."""

SILENT = 20.0
"""Seconds after which the other thread has failed."""


@contextlib.contextmanager
def hops() -> Iterator[Callable[[int], list[int]]]:
    """Start an echo over one hop of tcp, in a process of its own.

    Yields:
        What makes so many round trips, and returns the nanoseconds of a hop one way in each.
    """
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(roles.process("bench.echo", "mirror", "tcp://127.0.0.1:*"))
        context = stack.enter_context(shared_context())
        socket = stack.enter_context(echo.open_socket(context, zmq.DEALER, endpoint))
        ask = BlockingBench(socket).ask

        def measure(count: int) -> list[int]:
            return [each // 2 for each in timed(Plan(count, SILENT), lambda: ask(PAYLOAD))]

        yield measure


def hand_backs(count: int) -> list[int]:
    """Return the nanoseconds from `call_soon_threadsafe` to the callback, on a loop that sleeps."""
    return asyncio.run(_hand_backs(count))


async def _hand_backs(count: int) -> list[int]:
    loop, durations = asyncio.get_running_loop(), []
    called_back = threading.Event()

    def call_back(called: int) -> None:
        durations.append(time.monotonic_ns() - called)
        called_back.set()

    def call() -> None:
        for _ in range(count):
            time.sleep(ASLEEP)
            called_back.clear()
            loop.call_soon_threadsafe(call_back, time.monotonic_ns())
            if not called_back.wait(SILENT):
                raise TimeoutError("an asyncio loop did not call back")

    await asyncio.to_thread(call)
    return durations


class _Sleeper:
    """A thread that sleeps in a condition, and says when it woke up."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._condition = threading.Condition()
        self._given = 0
        self._called = 0
        self._woken = threading.Event()
        self.durations: list[int] = []

    def run(self) -> None:
        """Be the thread that sleeps."""
        for number in range(self._count):
            with self._condition:
                while self._given == number:
                    self._condition.wait()
            self.durations.append(time.monotonic_ns() - self._called)
            self._woken.set()

    def wake(self) -> None:
        """Wake it, once it sleeps for sure."""
        time.sleep(ASLEEP)
        self._woken.clear()
        self._called = time.monotonic_ns()
        with self._condition:
            self._given += 1
            self._condition.notify()
        if not self._woken.wait(SILENT):
            raise TimeoutError("a thread did not wake up")


def hand_overs(count: int) -> list[int]:
    """Return the nanoseconds until a thread that sleeps in a `threading.Condition` has what it is given."""
    sleeper = _Sleeper(count)
    thread = threading.Thread(target=sleeper.run, daemon=True)
    thread.start()
    for _ in range(count):
        sleeper.wake()
    thread.join(SILENT)
    return sleeper.durations


def commits(folder: Path, durability: Durability, count: int) -> list[int]:
    """Return the nanoseconds of one commit of one row to SQLite, as the journal sets it up."""
    with database(folder, durability) as commit:
        return timed(Plan(count, SILENT), lambda: commit([PAYLOAD]))
