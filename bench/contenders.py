"""What is measured: zloom in both durabilities, and the peers, each with its parts around the operator."""

import asyncio
import contextlib
import functools
import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import zloom
from bench import echo, floor, peers, roles, skeleton, trainer
from bench.parts import Bench, OpenBench, Parts, Plan, awaited
from bench.results import NATS, REDIS, SKELETONS, Contender, Load, OpenContender, Transport
from zloom_broker.server import running
from zloom_broker.settings import BrokerSettings, Durability

JETSTREAM_SYNC = {"JetStream": "2m", "JetStream always": "always"}
"""When each of them has its files on disk: every two minutes by default, or before it answers."""


def reaches(contender: Contender, transport: Transport) -> bool:
    """Tell if a contender exists over a transport: NATS and Redis know TCP only; a socket is no queue.

    The skeleton is there for the goals, which are set for tcp.
    """
    if contender in (*NATS, *REDIS, *SKELETONS):
        return transport == "tcp"
    return contender != "sockets" or transport != "inproc"


@contextlib.asynccontextmanager
async def start(contender: Contender, transport: Transport, folder: Path) -> AsyncIterator[Bench]:
    """Start a contender with all its parts, as long as the block lasts.

    Args:
        contender: Which; of NATS and Redis, one that was found.
        transport: Between its parts, one that `reaches` it.
        folder: For a journal, on a real disk.

    Raises:
        TimeoutError: A part did not become ready, or did not end.
    """
    with contextlib.ExitStack() as stack:
        async with _operator(contender, Parts(transport, folder, stack)) as bench:
            yield bench


@contextlib.asynccontextmanager
async def start_open(contender: OpenContender, folder: Path) -> AsyncIterator[OpenBench]:
    """Do what `start` does over tcp, with one who can have many changes on their way."""
    with contextlib.ExitStack() as stack:
        async with _open_operator(contender, Parts("tcp", folder, stack)) as bench:
            yield bench


def _operator(contender: Contender, parts: Parts) -> AbstractAsyncContextManager[Bench]:
    match contender:
        case "pyzmq":
            return peers.pyzmq(parts)
        case "zmq.asyncio":
            return peers.zmq_asyncio(parts)
        case "sockets":
            return floor.sockets(parts)
        case "Redis":
            from bench import redis_peer  # it is an extra

            return redis_peer.pubsub(parts)
        case _:
            return _open_operator(contender, parts)


def _open_operator(contender: OpenContender, parts: Parts) -> AbstractAsyncContextManager[OpenBench]:
    match contender:
        case "zloom fsync":
            return _zloom(parts, "fsync")
        case "zloom buffered":
            return _zloom(parts, "buffered")
        case "skeleton fsync":
            return skeleton.skeleton(parts, "fsync")
        case "skeleton buffered":
            return skeleton.skeleton(parts, "buffered")
        case "NATS" | "JetStream" | "JetStream always":
            from bench import nats_peer  # it is an extra

            if contender == "NATS":
                return nats_peer.core(parts)
            return nats_peer.jetstream(parts, JETSTREAM_SYNC[contender])


class ZloomBench:
    """A change of one key, from the call to the result that says where it was applied."""

    def __init__(self, operator: zloom.Operator) -> None:
        self._operator = operator
        self._values = itertools.cycle((0.1, 0.2))

    async def measure(self, plan: Plan) -> list[int]:
        """See `Bench`; raises AssertionError when a change was not applied."""
        return await awaited(plan, self.change)

    async def change(self) -> None:
        """See `OpenBench`; raises AssertionError when it was not applied."""
        result = await self._operator.set(trainer.RUN, {trainer.KEY: next(self._values)})
        assert result.applied_everywhere, result

    async def train(self, load: Load) -> None:
        """See `Bench`. Idle is a pause: the training waits inside `tick` and serves what comes at once."""
        if load == "idle":
            await self._operator.pause(trainer.RUN, None)
        else:
            await self._operator.command(trainer.RUN, load)
            await self._operator.resume(trainer.RUN)


@contextlib.asynccontextmanager
async def _zloom(parts: Parts, durability: Durability) -> AsyncIterator[ZloomBench]:
    data_dir = parts.folder / f"journal-{secrets.token_hex(4)}"
    options = ["--bind", parts.endpoint, "--no-auth", "--data-dir", str(data_dir), "--durability", durability]
    in_thread = functools.partial(zloom_broker, data_dir, durability)
    parts.start(in_thread, "zloom", "broker", "--log-level", "error", *options)
    parts.start(trainer.train, "bench.trainer", parts.endpoint)
    async with zloom.connect(parts.endpoint, context=parts.context) as operator:
        bench = ZloomBench(operator)
        await bench.train("idle")
        yield bench
        await operator.command(trainer.RUN, trainer.END)
        await operator.resume(trainer.RUN)  # out of the pause, and so out of the loop


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
