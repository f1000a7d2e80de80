"""Many changes: how many a second the journal takes, and how soon a broker that was killed has them again."""

import asyncio
import contextlib
import os
import queue
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import zloom
from bench import fanout, nats_server, roles
from bench.collected import Collected
from bench.extent import Extent
from bench.goals import Goal
from bench.orders import CHANGES, PAYLOAD
from bench.results import Absence
from bench.trainer import KEY, RUN
from zloom_broker.journal import open_journal

NAME = "journal"
ZLOOM, JETSTREAM = "zloom fsync", "JetStream always"
GROUP, SINGLE = "commits of many", "a commit each"
RATE, READY = "taken", "restart after kill -9"
ROWS, BURST = "rows of 128 bytes into the journal", "changes of an operator at once"

BURST_SIZE, QUICK_BURST_SIZE = 10_000, 200
OPERATED, QUICK_OPERATED = 3000, 200
"""Changes of an operator in a turn."""

SINGLES, QUICK_SINGLES = 200, 20
"""Rows that are committed one by one: each costs a disk two fsyncs."""

REPLAYED, QUICK_REPLAYED, LARGE_REPLAYED = 100_000, 400, 1_000_000
AT_ONCE = 1000
"""Changes of an operator that are on their way together."""

GOALS = (
    Goal(ROWS, RATE, GROUP, SINGLE, 20, at_most=False),
    Goal(BURST, RATE, ZLOOM, JETSTREAM),
    *(
        Goal(f"{count} changes", READY, "zloom", "JetStream")
        for count in (QUICK_REPLAYED, REPLAYED, LARGE_REPLAYED)
    ),
    Goal(f"{LARGE_REPLAYED} changes", READY, "zloom", "JetStream", 3000, by="itself"),
)

SYNC = {"fsync": "always", "buffered": "2m"}
"""JetStream's `sync_interval`, by the broker's durability."""

Burst = Callable[[int], Awaitable[None]]
"""Makes so many changes and returns when all are confirmed."""


def measure(extent: Extent, collected: Collected) -> None:
    """Measure the journal by itself, then the broker with changes of an operator, then its restart."""
    for number in range(extent.rounds):
        extent.say(f"{NAME}, rows: round {number + 1} of {extent.rounds}")
        _commit(extent, collected)
    asyncio.run(_bursts(extent, collected))
    for count in _replayed(extent):
        _replay("zloom", _broker, _zloom, extent, count, collected)
        if not nats_server.missing():
            _replay("JetStream", _jetstream, _nats, extent, count, collected)


def _replayed(extent: Extent) -> list[int]:
    if extent.quick:
        return [QUICK_REPLAYED]
    return [REPLAYED, LARGE_REPLAYED] if extent.large else [REPLAYED]


def absent() -> list[Absence]:
    """Return whom this machine lacks."""
    why = nats_server.missing()
    return [Absence(NAME, "JetStream", why)] if why else []


# --- the journal by itself ---------------------------------------------------------------------


def _commit(extent: Extent, collected: Collected) -> None:
    committed: queue.SimpleQueue[int] = queue.SimpleQueue()
    singles = QUICK_SINGLES if extent.quick else SINGLES
    burst = QUICK_BURST_SIZE if extent.quick else BURST_SIZE
    with open_journal(extent.folder / secrets.token_hex(4)) as journal:
        journal.start(committed.put, lambda seq, reason: committed.put(-1))
        started = time.perf_counter()
        for seq in range(1, singles + 1):
            journal.submit(seq, [PAYLOAD])
            _await_row(committed, seq)
        collected.add(ROWS, RATE, "1/s", SINGLE, singles / (time.perf_counter() - started))
        started = time.perf_counter()
        for seq in range(singles + 1, singles + burst + 1):
            journal.submit(seq, [PAYLOAD])
        _await_row(committed, singles + burst)
        collected.add(ROWS, RATE, "1/s", GROUP, burst / (time.perf_counter() - started))


def _await_row(committed: "queue.SimpleQueue[int]", seq: int) -> None:
    while (newest := committed.get(timeout=roles.DEADLINE)) < seq:
        if newest < 0:
            raise TimeoutError(f"the journal did not commit row {seq}")


# --- changes of an operator --------------------------------------------------------------------


async def _bursts(extent: Extent, collected: Collected) -> None:
    count = QUICK_OPERATED if extent.quick else OPERATED
    async with contextlib.AsyncExitStack() as stack:
        broker = stack.enter_context(_broker(extent.folder / secrets.token_hex(4), "fsync"))
        sides = {ZLOOM: await stack.enter_async_context(_zloom(broker))}
        if not nats_server.missing():
            home = Path(stack.enter_context(TemporaryDirectory(dir=extent.folder)))
            server = stack.enter_context(_jetstream(home, "fsync"))
            sides[JETSTREAM] = await stack.enter_async_context(_nats(server))
        for number in range(extent.rounds):
            extent.say(f"{NAME}, bursts: round {number + 1} of {extent.rounds}")
            for name, burst in sides.items():
                started = time.perf_counter()
                await burst(count)
                collected.add(BURST, RATE, "1/s", name, count / (time.perf_counter() - started))


@contextlib.asynccontextmanager
async def _zloom(broker: roles.Running) -> AsyncIterator[Burst]:
    """An operator and one weavelet, whose handler runs on its loop and whose outcome is journaled too."""
    with fanout.crowd_of("zloom", broker.endpoint, 1):
        async with zloom.connect(broker.endpoint) as operator:

            async def burst(count: int) -> None:
                for first in range(0, count, AT_ONCE):
                    numbers = range(first, min(first + AT_ONCE, count))
                    changes = (
                        operator.set(RUN, {KEY: 0.1 + number}, wait=False, timeout=roles.DEADLINE)
                        for number in numbers
                    )
                    await asyncio.gather(*changes)

            yield burst


@contextlib.asynccontextmanager
async def _nats(server: roles.Running) -> AsyncIterator[Burst]:
    import nats

    connection = await nats.connect(server.endpoint)
    streams = connection.jetstream(timeout=roles.DEADLINE)
    await streams.add_stream(name=CHANGES, subjects=[CHANGES])

    async def burst(count: int) -> None:
        for first in range(0, count, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, count))
            await asyncio.gather(*[await streams.publish_async(CHANGES, PAYLOAD) for _ in numbers])

    try:
        yield burst
    finally:
        await connection.close()


@contextlib.contextmanager
def _broker(data_dir: Path, durability: str) -> Iterator[roles.Running]:
    with TemporaryDirectory(prefix="zloom-") as sockets:
        options = ["--bind", f"ipc://{sockets}/control", "--data-dir", str(data_dir)]
        quiet = ["--log-level", "error", "--durability", durability]
        with roles.running("zloom", "broker", *quiet, *options) as running:
            yield running


def _jetstream(home: Path, durability: str) -> AbstractContextManager[roles.Running]:
    home.mkdir(exist_ok=True)
    return nats_server.serving(home, SYNC[durability])


# --- restart -----------------------------------------------------------------------------------

Serve = Callable[[Path, str], AbstractContextManager[roles.Running]]
Operate = Callable[[roles.Running], contextlib.AbstractAsyncContextManager[Burst]]


def _replay(
    name: str, serve: Serve, operate: Operate, extent: Extent, count: int, collected: Collected
) -> None:
    """Have a server keep so many changes, and start it again after kill -9, once a round."""
    home = extent.folder / secrets.token_hex(4)
    extent.say(f"{NAME}, {name}: making {count} changes")
    with serve(home, "buffered") as server:
        asyncio.run(_fill(operate, server, count))
        os.kill(server.pid, signal.SIGKILL)
    for _ in range(extent.rounds):
        started = time.perf_counter()
        with serve(home, "buffered") as server:
            millis = (time.perf_counter() - started) * 1000
            os.kill(server.pid, signal.SIGKILL)
        collected.add(f"{count} changes", READY, "ms", name, millis)


async def _fill(operate: Operate, server: roles.Running, count: int) -> None:
    async with operate(server) as burst:
        await burst(count)
