"""The peers that are plain ZeroMQ: the operator's side of `bench.echo`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import zmq
import zmq.asyncio

from bench import echo
from bench.orders import END, PAYLOAD
from bench.parts import SECONDS_SILENT, Parts, Plan, awaited, shared_context, timed
from bench.results import Load


class BlockingBench:
    """An echo, with blocking calls all the way."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        socket.rcvtimeo = round(SECONDS_SILENT * 1000)

    async def measure(self, plan: Plan) -> list[int]:
        """See `Bench`. In a thread, because the operators of zloom need the loop to answer their brokers."""
        return await asyncio.to_thread(timed, plan, lambda: self.ask(PAYLOAD))

    def ask(self, payload: bytes) -> None:
        """Have a payload echoed; raises zmq.Again when nothing comes."""
        self._socket.send(payload)
        self._socket.recv()

    async def train(self, load: Load) -> None:
        """See `Bench`."""
        await asyncio.to_thread(self.ask, load.encode())


@contextlib.asynccontextmanager
async def pyzmq(parts: Parts) -> AsyncIterator[BlockingBench]:
    """Start the echo of blocking sockets, as long as the block lasts."""
    parts.start(echo.broker, "bench.echo", "broker", parts.endpoint)
    parts.start(echo.worker, "bench.echo", "worker", parts.endpoint)
    with own_context(parts) as context, echo.open_socket(context, zmq.DEALER, parts.endpoint) as socket:
        bench = BlockingBench(socket)
        yield bench
        await asyncio.to_thread(bench.ask, END)


class AsyncioBench:
    """An echo, with zmq.asyncio all the way."""

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self._socket = socket

    async def measure(self, plan: Plan) -> list[int]:
        """See `Bench`."""
        async with asyncio.timeout(plan.seconds + SECONDS_SILENT):
            return await awaited(plan, lambda: self.ask(PAYLOAD))

    async def ask(self, payload: bytes) -> None:
        """Have a payload echoed."""
        await self._socket.send(payload)
        await self._socket.recv()

    async def train(self, load: Load) -> None:
        """See `Bench`."""
        async with asyncio.timeout(SECONDS_SILENT):
            await self.ask(load.encode())


@contextlib.asynccontextmanager
async def zmq_asyncio(parts: Parts) -> AsyncIterator[AsyncioBench]:
    """Start the echo of zmq.asyncio, as long as the block lasts."""
    parts.start(echo.broker_async, "bench.echo", "broker_async", parts.endpoint)
    parts.start(echo.worker_async, "bench.echo", "worker_async", parts.endpoint)
    with own_context(parts) as context, echo.open_async(context, zmq.DEALER, parts.endpoint) as socket:
        bench = AsyncioBench(socket)
        yield bench
        async with asyncio.timeout(SECONDS_SILENT):
            await bench.ask(END)


@contextlib.contextmanager
def own_context(parts: Parts) -> Iterator[echo.Context]:
    """Yield the context of the operator's side: that of all parts over inproc, else one of its own."""
    if parts.context is not None:
        yield parts.context
        return
    with shared_context() as context:
        yield context
