"""One change to many weavelets, until the operator has the outcomes of all, beside NATS, Redis and pyzmq.

The skeleton does what zloom cannot do without.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil
import zmq

import zloom
from bench import crowd, nats_server, redis_server, roles, skeleton
from bench.collected import Collected
from bench.echo import open_async
from bench.extent import Extent
from bench.floor_fanout import SEPARATOR
from bench.goals import Goal, with_skeletons
from bench.orders import CHANGES, OUTCOMES, PAYLOAD
from bench.results import Absence
from bench.trainer import KEY, RUN

NAME = "fanout"
ZLOOM, SKELETON, FLOOR, NATS, REDIS = "zloom buffered", "skeleton buffered", "pyzmq", "NATS", "Redis"
TIME, CPU, CROWD_CPU = "all outcomes", "server's CPU", "weavelets' CPU"

SIZES, QUICK_SIZES = (1, 10, 100, 1000), (1, 8)
PROCESSES = 4
"""Among which the weavelets are shared out."""

CHANGES_A_TURN = {1: 100, 10: 50, 100: 20, 1000: 5}
"""By the number of weavelets; the median of a turn's is a round's."""

QUICK_CHANGES = 2

GOALS = tuple(
    goal
    for size in (*QUICK_SIZES, *SIZES[1:])
    for goal in with_skeletons(
        (
            Goal(f"{size} weavelets", TIME, ZLOOM, NATS, 0.7 if size == SIZES[-1] else None),
            Goal(f"{size} weavelets", CPU, ZLOOM, NATS),
            Goal(f"{size} weavelets", TIME, FLOOR, NATS),
            Goal(f"{size} weavelets", CPU, FLOOR, NATS),
            Goal(f"{size} weavelets", TIME, ZLOOM, REDIS),
            Goal(f"{size} weavelets", CPU, ZLOOM, REDIS),
        )
    )
)

Change = Callable[[], Awaitable[object]]
"""Makes a change, and returns when all have answered."""


@dataclass(frozen=True, slots=True)
class Side:
    """A contender that is running.

    Attributes:
        change: See `Change`.
        server: Its broker or server.
        crowd: The processes of its weavelets or subscribers.
    """

    change: Change
    server: psutil.Process
    crowd: list[psutil.Process]


def measure(extent: Extent, collected: Collected) -> None:
    """Make changes, in turns, to ever more weavelets."""
    for size in QUICK_SIZES if extent.quick else SIZES:
        asyncio.run(_measure(extent, size, collected))


def absent() -> list[Absence]:
    """Return whom this machine lacks."""
    lacking = {NATS: nats_server.missing(), REDIS: redis_server.missing()}
    return [Absence(NAME, name, why) for name, why in lacking.items() if why]


async def _measure(extent: Extent, size: int, collected: Collected) -> None:
    async with AsyncExitStack() as stack:
        sides = {
            ZLOOM: await stack.enter_async_context(_zloom(extent, size)),
            SKELETON: await stack.enter_async_context(_skeleton(extent, size)),
            FLOOR: await stack.enter_async_context(_floor(size)),
        }
        if not nats_server.missing():
            sides[NATS] = await stack.enter_async_context(_nats(extent, size))
        if not redis_server.missing():
            sides[REDIS] = await stack.enter_async_context(_redis(extent, size))
        count = QUICK_CHANGES if extent.quick else CHANGES_A_TURN[size]
        for number in range(extent.rounds):
            extent.say(f"{NAME}, {size}: round {number + 1} of {extent.rounds}")
            for name, side in sides.items():
                for measured, millis in (await _turn(side, count)).items():
                    collected.add(f"{size} weavelets", measured, "ms", name, millis)


async def _turn(side: Side, count: int) -> dict[str, float]:
    """Return the median milliseconds of a change, and those of CPU for each."""
    await side.change()
    server, crowd, millis = _cpu_millis([side.server]), _cpu_millis(side.crowd), []
    for _ in range(count):
        started = time.perf_counter()
        await side.change()
        millis.append((time.perf_counter() - started) * 1000)
    return {
        TIME: median(millis),
        CPU: (_cpu_millis([side.server]) - server) / count,
        CROWD_CPU: (_cpu_millis(side.crowd) - crowd) / count,
    }


def _cpu_millis(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(float(each.user + each.system) for each in times) * 1000


@contextlib.contextmanager
def crowd_of(kind: str, endpoint: str, size: int) -> Iterator[list[psutil.Process]]:
    """Run a crowd in `PROCESSES` processes, which start at the same time, as long as the block lasts."""
    with ExitStack() as stack:
        parts = [
            stack.enter_context(
                roles.begun("bench.crowd", kind, endpoint, str(ranks.start), str(ranks.stop), str(size))
            )
            for ranks in crowd.shares(size, PROCESSES)
        ]
        for part in parts:
            part.listen(crowd.CROWD_DEADLINE)
        yield [psutil.Process(part.pid) for part in parts]


async def change_all(operator: zloom.Operator, value: float, size: int) -> None:
    """Make a change that so many weavelets apply at once.

    Raises:
        TimeoutError: Not all of them did in time.
    """
    result = await operator.set(RUN, {KEY: value}, mode="immediate", timeout=crowd.CROWD_DEADLINE)
    applied = sum(each.outcome == "applied" for each in result.outcomes)
    if applied < size:
        raise TimeoutError(f"{applied} of {size} weavelets applied a change in {result.latency:.0f} s")


@contextlib.asynccontextmanager
async def _zloom(extent: Extent, size: int) -> AsyncIterator[Side]:
    data_dir = extent.folder / secrets.token_hex(4)
    options = ["--bind", "tcp://127.0.0.1:*", "--no-auth", "--data-dir", str(data_dir)]
    values = itertools.cycle((0.2, 0.3))
    with (
        roles.running(
            "zloom", "broker", "--log-level", "error", "--durability", "buffered", *options
        ) as broker,
        crowd_of("zloom", broker.endpoint, size) as weavelets,
    ):
        async with zloom.connect(broker.endpoint) as operator:
            server = psutil.Process(broker.pid)
            yield Side(lambda: change_all(operator, next(values), size), server, weavelets)


@contextlib.asynccontextmanager
async def _skeleton(extent: Extent, size: int) -> AsyncIterator[Side]:
    with (
        roles.running("bench.skeleton_broker", str(size), "buffered", str(extent.folder)) as server,
        crowd_of("skeleton", server.endpoint, size) as weavelets,
        skeleton.operator(server.endpoint) as operator,
    ):
        values = itertools.cycle((0.2, 0.3))

        async def change() -> None:
            state = await operator.set(KEY, next(values), mode="immediate")
            assert len(state.outcomes) == size

        yield Side(change, psutil.Process(server.pid), weavelets)


@contextlib.asynccontextmanager
async def _floor(size: int) -> AsyncIterator[Side]:
    with (
        roles.running("bench.floor_fanout", str(size)) as server,
        crowd_of("pyzmq", server.endpoint, size) as subscribers,
        zmq.Context() as context,
        open_async(context, zmq.DEALER, server.endpoint.split(SEPARATOR)[0]) as operator,
    ):

        async def change() -> None:
            async with asyncio.timeout(crowd.CROWD_DEADLINE):
                await operator.send(PAYLOAD)
                await operator.recv()

        yield Side(change, psutil.Process(server.pid), subscribers)


@contextlib.asynccontextmanager
async def _nats(extent: Extent, size: int) -> AsyncIterator[Side]:
    import nats

    with (
        nats_server.running(extent.folder) as server,
        crowd_of("nats", server.endpoint, size) as subscribers,
    ):
        connection = await nats.connect(server.endpoint)
        inbox = connection.new_inbox()
        came, all_came = 0, asyncio.Event()

        async def count(message: Any) -> None:
            nonlocal came
            came += 1
            if came == size:
                all_came.set()

        async def change() -> None:
            nonlocal came
            came = 0
            all_came.clear()
            await connection.publish(CHANGES, PAYLOAD, reply=inbox)
            async with asyncio.timeout(roles.DEADLINE):
                await all_came.wait()

        await connection.subscribe(inbox, cb=count)  # `next_msg` takes four times of that

        try:
            yield Side(change, psutil.Process(server.pid), subscribers)
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def _redis(extent: Extent, size: int) -> AsyncIterator[Side]:
    import redis.asyncio

    with (
        redis_server.running(extent.folder) as server,
        crowd_of("redis", server.endpoint, size) as subscribers,
    ):
        async with (
            redis.asyncio.from_url(server.endpoint) as client,
            redis_server.listening(client, OUTCOMES) as listener,
        ):
            answers = listener.listen()

            async def change() -> None:
                async with asyncio.timeout(roles.DEADLINE):
                    await client.publish(CHANGES, PAYLOAD)
                    for _ in range(size):
                        await anext(answers)

            yield Side(change, psutil.Process(server.pid), subscribers)
