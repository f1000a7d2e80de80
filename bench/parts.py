"""Where the parts of a contender run, and what it is asked for.

Over ipc and tcp broker and trainer are processes of their own. Over inproc there is one process, so broker,
weavelet, training and operator share one interpreter.
"""

import asyncio
import contextlib
import functools
import itertools
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from bench import echo, roles
from bench.orders import PAYLOAD
from bench.results import Load, Transport
from zloom.socket_options import new_context

SECONDS_SILENT = 20.0
"""After which a peer's echo has failed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How often to measure.

    Attributes:
        count: Round trips at most.
        seconds: After which none is begun.
        apart: Seconds to wait before each, at most; at random from half of it on. Without a wait the next
            message finds its receiver before another thread could have woken up: a training that waits for
            the interpreter never gets it, and is not busy at all.
    """

    count: int
    seconds: float
    apart: float = 0.0

    def pauses(self) -> Iterator[float]:
        """Yield the seconds to wait before each round trip."""
        end = time.perf_counter() + self.seconds
        for _ in range(self.count):
            if time.perf_counter() >= end:
                return
            yield self.apart * random.uniform(0.5, 1.0)


def timed(plan: Plan, ask: Callable[[], object]) -> list[int]:
    """Have `ask`, which blocks, make round trips one after the other; returns the nanoseconds of each."""
    durations: list[int] = []
    for pause in plan.pauses():
        time.sleep(pause)
        started = time.perf_counter_ns()
        ask()
        durations.append(time.perf_counter_ns() - started)
    return durations


async def awaited(plan: Plan, ask: Callable[[], Awaitable[object]]) -> list[int]:
    """Do what `timed` does with an `ask` that is awaited."""
    durations: list[int] = []
    for pause in plan.pauses():
        await asyncio.sleep(pause)
        started = time.perf_counter_ns()
        await ask()
        durations.append(time.perf_counter_ns() - started)
    return durations


class Bench(Protocol):
    """One contender, running, with the training idle at first."""

    async def measure(self, plan: Plan) -> list[int]:
        """Make round trips one after the other; returns the nanoseconds that each took."""

    async def train(self, load: Load) -> None:
        """Have the training make steps of this kind, or wait."""


class OpenBench(Bench, Protocol):
    """One whose operator can have many changes on their way at once."""

    async def change(self) -> None:
        """Make one, and return when it was answered; not to be awaited before the next is made."""


class AskingBench:
    """A change that is answered by a handler, with a client on this loop.

    Args:
        ask: Sends a payload, unlike that of any other change, and returns when it has come back.
    """

    def __init__(self, ask: Callable[[bytes], Awaitable[object]]) -> None:
        self._ask = ask
        self._numbers = itertools.count()

    async def measure(self, plan: Plan) -> list[int]:
        """See `Bench`."""
        return await awaited(plan, self.change)

    async def change(self) -> None:
        """See `OpenBench`."""
        await self._ask(next(self._numbers).to_bytes(len(PAYLOAD), "big"))

    async def train(self, load: Load) -> None:
        """See `Bench`."""
        await self._ask(load.encode())


class Outcomes:
    """Who waits for which outcome: many changes can be on their way, and some may have been given up."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, asyncio.Future[None]] = {}

    def take(self, payload: bytes) -> None:
        """Take in an outcome, which has the payload of its change."""
        waiting = self._waiting.pop(payload, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def of(self, payload: bytes) -> asyncio.Future[None]:
        """Return the outcome of a change that is about to be sent; no two with one payload at once."""
        self._waiting[payload] = asyncio.get_running_loop().create_future()
        return self._waiting[payload]


class Parts:
    """Where the parts of one contender run.

    Args:
        transport: Between them.
        folder: For what they write.
        stack: Ends them.
    """

    def __init__(self, transport: Transport, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.context: echo.Context | None = None
        self._stack = stack
        match transport:
            case "tcp":
                self.endpoint = "tcp://127.0.0.1:*"
            case "ipc":
                # Not in `folder`, because a socket's path may have 107 bytes.
                sockets = stack.enter_context(TemporaryDirectory(prefix="zloom-"))
                self.endpoint = f"ipc://{sockets}/control"
            case "inproc":
                self.endpoint = f"inproc://{secrets.token_hex(8)}"
                self.context = stack.enter_context(shared_context())

    def start(self, role: Callable[[str, echo.Context, roles.Ready], None], *module: str) -> None:
        """Start a part and wait for it: `role` in a thread over inproc, else `module` in a process.

        A part that says where it can be reached is the one that those after it connect to.
        """
        if self.context is None:
            endpoint = self._stack.enter_context(roles.process(*module))
        else:
            part = functools.partial(role, self.endpoint, self.context)
            endpoint = self._stack.enter_context(roles.thread(part))
        self.endpoint = endpoint or self.endpoint


@contextlib.contextmanager
def shared_context() -> Iterator[echo.Context]:
    """Yield a context; its end closes the sockets that a failure left open."""
    context = new_context()
    try:
        yield context
    finally:
        context.destroy(linger=0)
