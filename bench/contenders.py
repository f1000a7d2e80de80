"""What is measured: zloom in both durabilities, and the peers, each with its parts around the operator here.

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
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import zmq
import zmq.asyncio

import zloom
from bench import echo, roles, trainer
from bench.results import Contender, Transport
from zloom.socket_options import new_context
from zloom_broker.server import running
from zloom_broker.settings import BrokerSettings, Durability

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


class Bench(Protocol):
    """One contender, running, with the training idle at first."""

    async def measure(self, plan: Plan) -> list[int]:
        """Make round trips one after the other; returns the nanoseconds that each took."""

    async def train(self, on: bool) -> None:
        """Have the training make steps, or wait."""


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
                self.context = stack.enter_context(_shared_context())

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
def _shared_context() -> Iterator[echo.Context]:
    context = new_context()
    try:
        yield context
    finally:
        context.destroy(linger=0)  # after a failure sockets may be open


@contextlib.asynccontextmanager
async def start(contender: Contender, transport: Transport, folder: Path) -> AsyncIterator[Bench]:
    """Start a contender with all its parts, as long as the block lasts.

    Args:
        contender: Which.
        transport: Between its parts.
        folder: For a journal, on a real disk.

    Raises:
        TimeoutError: A part did not become ready, or did not end.
    """
    with contextlib.ExitStack() as stack:
        async with _operator(contender, Parts(transport, folder, stack)) as bench:
            yield bench


def _operator(contender: Contender, parts: Parts) -> AbstractAsyncContextManager[Bench]:
    match contender:
        case "zloom fsync":
            return _zloom(parts, "fsync")
        case "zloom buffered":
            return _zloom(parts, "buffered")
        case "pyzmq":
            return _pyzmq(parts)
        case "zmq.asyncio":
            return _asyncio(parts)


# --- zloom ------------------------------------------------------------------------------------


class ZloomBench:
    """A change of one key, from the call to the result that says where it was applied."""

    def __init__(self, operator: zloom.Operator) -> None:
        self._operator = operator
        self._values = itertools.cycle((0.1, 0.2))

    async def measure(self, plan: Plan) -> list[int]:
        """See `Bench`; raises AssertionError when a change was not applied."""
        durations: list[int] = []
        for pause in plan.pauses():
            await asyncio.sleep(pause)
            started = time.perf_counter_ns()
            result = await self._operator.set(trainer.RUN, {trainer.KEY: next(self._values)})
            durations.append(time.perf_counter_ns() - started)
            assert result.applied_everywhere, result
        return durations

    async def train(self, on: bool) -> None:
        """See `Bench`. Idle is a pause: the training waits inside `tick` and serves what comes at once."""
        if on:
            await self._operator.resume(trainer.RUN)
        else:
            await self._operator.pause(trainer.RUN, None)


@contextlib.asynccontextmanager
async def _zloom(parts: Parts, durability: Durability) -> AsyncIterator[ZloomBench]:
    data_dir = parts.folder / f"journal-{secrets.token_hex(4)}"
    options = ["--bind", parts.endpoint, "--data-dir", str(data_dir), "--durability", durability]
    in_thread = functools.partial(zloom_broker, data_dir, durability)
    parts.start(in_thread, "zloom", "broker", "--log-level", "error", *options)
    parts.start(trainer.train, "bench.trainer", parts.endpoint)
    async with zloom.connect(parts.endpoint, context=parts.context) as operator:
        bench = ZloomBench(operator)
        await bench.train(False)
        yield bench
        await operator.command(trainer.RUN, "stop")
        await bench.train(True)  # out of the pause, and so out of the loop


def zloom_broker(
    data_dir: Path, durability: Durability, endpoint: str, context: echo.Context, ready: roles.Ready
) -> None:
    """Run a broker on a loop in this thread, until it is told to stop through `ready`."""

    async def serve() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        settings = BrokerSettings(bind=(endpoint,), data_dir=data_dir, durability=durability)
        async with running(settings, context):
            ready(endpoint, lambda: loop.call_soon_threadsafe(stop.set))
            await stop.wait()

    asyncio.run(serve())


# --- peers ------------------------------------------------------------------------------------


class BlockingBench:
    """An echo, with blocking calls all the way."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        socket.rcvtimeo = round(SECONDS_SILENT * 1000)

    async def measure(self, plan: Plan) -> list[int]:
        """See `Bench`. In a thread, because the operators of zloom need the loop to answer their brokers."""
        return await asyncio.to_thread(self._measure, plan)

    def _measure(self, plan: Plan) -> list[int]:
        durations: list[int] = []
        for pause in plan.pauses():
            time.sleep(pause)
            started = time.perf_counter_ns()
            self.ask(echo.PAYLOAD)
            durations.append(time.perf_counter_ns() - started)
        return durations

    def ask(self, payload: bytes) -> None:
        """Have a payload echoed; raises zmq.Again when nothing comes."""
        self._socket.send(payload)
        self._socket.recv()

    async def train(self, on: bool) -> None:
        """See `Bench`."""
        await asyncio.to_thread(self.ask, echo.BUSY if on else echo.IDLE)


@contextlib.asynccontextmanager
async def _pyzmq(parts: Parts) -> AsyncIterator[BlockingBench]:
    parts.start(echo.broker, "bench.echo", "broker", parts.endpoint)
    parts.start(echo.worker, "bench.echo", "worker", parts.endpoint)
    with _own_context(parts) as context, echo.open_socket(context, zmq.DEALER, parts.endpoint) as socket:
        bench = BlockingBench(socket)
        yield bench
        await asyncio.to_thread(bench.ask, echo.END)


class AsyncioBench:
    """An echo, with zmq.asyncio all the way."""

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self._socket = socket

    async def measure(self, plan: Plan) -> list[int]:
        """See `Bench`."""
        durations: list[int] = []
        async with asyncio.timeout(plan.seconds + SECONDS_SILENT):
            for pause in plan.pauses():
                await asyncio.sleep(pause)
                started = time.perf_counter_ns()
                await self.ask(echo.PAYLOAD)
                durations.append(time.perf_counter_ns() - started)
        return durations

    async def ask(self, payload: bytes) -> None:
        """Have a payload echoed."""
        await self._socket.send(payload)
        await self._socket.recv()

    async def train(self, on: bool) -> None:
        """See `Bench`."""
        async with asyncio.timeout(SECONDS_SILENT):
            await self.ask(echo.BUSY if on else echo.IDLE)


@contextlib.asynccontextmanager
async def _asyncio(parts: Parts) -> AsyncIterator[AsyncioBench]:
    parts.start(echo.broker_async, "bench.echo", "broker_async", parts.endpoint)
    parts.start(echo.worker_async, "bench.echo", "worker_async", parts.endpoint)
    with _own_context(parts) as context, echo.open_async(context, zmq.DEALER, parts.endpoint) as socket:
        bench = AsyncioBench(socket)
        yield bench
        async with asyncio.timeout(SECONDS_SILENT):
            await bench.ask(echo.END)


@contextlib.contextmanager
def _own_context(parts: Parts) -> Iterator[echo.Context]:
    if parts.context is not None:
        yield parts.context
        return
    with _shared_context() as context:
        yield context
