"""Points of metrics from several trainers to one operator that watches, none lost, beside NATS."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack

import zloom
from bench import nats_server, roles
from bench.collected import Collected
from bench.extent import Extent
from bench.goals import Goal
from bench.ingest_source import SUBJECT
from bench.results import Absence
from bench.trainer import RUN
from zloom.messages import Reported
from zloom.series import points_in

NAME = "ingest"
ZLOOM, NATS = "zloom", "NATS, a message a point"
CASE, WHAT = "4 trainers, 1 watches", "points"
SOURCES = 4

POINTS = {ZLOOM: 80_000, NATS: 20_000}
"""Of each trainer in a turn: what a weavelet keeps, and so loses none of, and what takes NATS a second."""

QUICK_POINTS = {ZLOOM: 2_000, NATS: 1_000}

DEADLINE = 60.0
"""Seconds in which all points of a turn must have come."""

GOALS = (
    Goal(CASE, WHAT, ZLOOM, NATS, 20, at_most=False),
    Goal(CASE, WHAT, ZLOOM, NATS, 1e6, at_most=False, by="itself"),
)

Receive = Callable[[int], Awaitable[None]]
"""Returns when so many points have come."""


def measure(extent: Extent, collected: Collected) -> None:
    """Have all trainers report at once, in turns."""
    asyncio.run(_measure(extent, collected))


def absent() -> list[Absence]:
    """Return whom this machine lacks."""
    why = nats_server.missing()
    return [Absence(NAME, NATS, why)] if why else []


async def _measure(extent: Extent, collected: Collected) -> None:
    points = QUICK_POINTS if extent.quick else POINTS
    async with AsyncExitStack() as stack:
        sides = {ZLOOM: await stack.enter_async_context(_zloom(extent))}
        if not nats_server.missing():
            sides[NATS] = await stack.enter_async_context(_nats(extent))
        for number in range(extent.rounds):
            extent.say(f"{NAME}: round {number + 1} of {extent.rounds}")
            for name, (sources, receive) in sides.items():
                seconds = await _turn(sources, receive, points[name])
                collected.add(CASE, WHAT, "1/s", name, SOURCES * points[name] / seconds)


async def _turn(sources: list[roles.Conversation], receive: Receive, points: int) -> float:
    """Return the seconds until all points of all trainers are here."""
    started = time.perf_counter()
    for source in sources:
        source.tell(str(points))
    async with asyncio.timeout(DEADLINE):
        await receive(SOURCES * points)
    return time.perf_counter() - started


@contextlib.contextmanager
def _sources(kind: str, endpoint: str) -> Iterator[list[roles.Conversation]]:
    with ExitStack() as stack:
        started = [
            stack.enter_context(roles.begun("bench.ingest_source", kind, endpoint, str(rank), str(SOURCES)))
            for rank in range(SOURCES)
        ]
        for each in started:
            each.listen()
        yield started


@contextlib.asynccontextmanager
async def _zloom(extent: Extent) -> AsyncIterator[tuple[list[roles.Conversation], Receive]]:
    data_dir = extent.folder / secrets.token_hex(4)
    options = ["--bind", "tcp://127.0.0.1:*", "--no-auth", "--data-dir", str(data_dir)]
    with (
        roles.running("zloom", "broker", "--log-level", "error", *options) as broker,
        _sources("zloom", broker.endpoint) as sources,
    ):
        async with zloom.connect(broker.endpoint) as operator, operator.watch(RUN) as feed:

            async def receive(points: int) -> None:
                async for seen in feed:
                    points -= counted(seen)
                    if points == 0:
                        break
                assert not feed.missed, f"{feed.missed} publications are missing"

            yield sources, receive


def counted(seen: object) -> int:
    """Return how many points there are in what an operator watches."""
    return points_in(seen.metrics) if isinstance(seen, Reported) else 0


@contextlib.asynccontextmanager
async def _nats(extent: Extent) -> AsyncIterator[tuple[list[roles.Conversation], Receive]]:
    import nats

    with nats_server.running(extent.folder) as server, _sources("nats", server.endpoint) as sources:
        connection = await nats.connect(server.endpoint)
        arrived, all_here, missing = 0, asyncio.Event(), 0

        async def take(message: object) -> None:
            nonlocal arrived
            arrived += 1
            if arrived == missing:
                all_here.set()

        async def receive(points: int) -> None:
            nonlocal missing
            missing += points
            all_here.clear()
            if arrived < missing:
                await all_here.wait()

        await connection.subscribe(SUBJECT, cb=take)
        await connection.flush()
        try:
            yield sources, receive
        finally:
            await connection.close()
