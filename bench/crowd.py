"""Many weavelets, or subscribers of NATS, of Redis or of bare ZeroMQ, in one process, which answer at once.

Each has connections of its own, as if it were a process. It says that it is ready when all of them are
connected, but for those of bare ZeroMQ and skeletons, for whom their server waits; and ends with its input.
"""

import asyncio
import logging
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import zloom
from bench import floor_fanout, redis_server, skeleton_weavelet
from bench.orders import CHANGES, OUTCOMES
from bench.roles import announce
from bench.trainer import ATTEMPT, KEY, RUN
from zloom.settings import WeaveletSettings
from zloom.socket_options import Context, new_context

CROWD_DEADLINE = 60.0
"""Seconds until all of a crowd must be connected."""

RECONNECT = 0.1
"""Seconds between two tries of a subscriber: zloom's first one is after about as long; by default 2 s."""

SOCKETS_EACH = 8
"""Two that are open, and those of earlier tries that libzmq has not taken down yet."""


async def weavelets(endpoint: str, ranks: range, world_size: int, stack: AsyncExitStack) -> None:
    """Start one weavelet for each of the ranks, and wait until all are active."""
    context = new_context(SOCKETS_EACH * len(ranks) + SOCKETS_EACH)
    stack.callback(context.destroy, linger=0)
    started = [_weavelet(endpoint, rank, world_size, context) for rank in ranks]
    for each in started:
        await stack.enter_async_context(each)
    active = await asyncio.gather(*(each.wait_until_active(CROWD_DEADLINE) for each in started))
    if not all(active):
        raise TimeoutError(f"{active.count(False)} of {len(active)} weavelets are not active")


def _weavelet(endpoint: str, rank: int, world_size: int, context: Context) -> zloom.AsyncWeavelet:
    weavelet = zloom.AsyncWeavelet(
        RUN,
        broker=endpoint,
        rank=rank,
        world_size=world_size,
        attempt=ATTEMPT,
        context=context,
        settings=WeaveletSettings(hold_watch=None),
    )

    @weavelet.on_config(KEY, initial=0.1, immediate=True)
    def set_learning_rate(value: float) -> None:
        """Do nothing: what is measured is the way here and back."""

    return weavelet


async def subscribers(endpoint: str, ranks: range, world_size: int, stack: AsyncExitStack) -> None:
    """Connect one subscriber for each of the ranks, which answers what is published."""
    import nats

    async def answer(message: Any) -> None:
        await message.respond(message.data)

    async def lost(error: Exception) -> None:
        """Say nothing: it connects again, as it should."""

    for _ in ranks:
        connection = await nats.connect(
            endpoint, reconnect_time_wait=RECONNECT, max_reconnect_attempts=-1, error_cb=lost
        )
        stack.push_async_callback(connection.close)
        await connection.subscribe(CHANGES, cb=answer)
        await connection.flush()


async def redis_subscribers(endpoint: str, ranks: range, world_size: int, stack: AsyncExitStack) -> None:
    """Do the same with Redis, where who listens needs a second connection to answer."""
    import redis.asyncio

    async def answer(client: Any, listener: Any) -> None:
        async for message in listener.listen():
            if message["type"] == "message":
                await client.publish(OUTCOMES, message["data"])

    for _ in ranks:
        client = await stack.enter_async_context(redis.asyncio.from_url(endpoint))
        listener = await stack.enter_async_context(redis_server.listening(client, CHANGES))
        stack.callback(asyncio.create_task(answer(client, listener)).cancel)


async def bare_subscribers(endpoints: str, ranks: range, world_size: int, stack: AsyncExitStack) -> None:
    """Do the same with sockets of ZeroMQ and nothing else, on a thread that ends with the process."""
    context = new_context(SOCKETS_EACH * len(ranks) + SOCKETS_EACH)
    subscribers = floor_fanout.Subscribers(context, endpoints, len(ranks))
    threading.Thread(target=subscribers.answer, daemon=True).start()


async def skeletons(endpoints: str, ranks: range, world_size: int, stack: AsyncExitStack) -> None:
    """Do the same with what a weavelet cannot do without, and nothing else."""
    context = new_context(SOCKETS_EACH * len(ranks) + SOCKETS_EACH)
    stack.callback(context.destroy, linger=0)
    keys = skeleton_weavelet.declared_keys
    weavelets = (skeleton_weavelet.Weavelet(rank, keys(), skeleton_weavelet.at_once) for rank in ranks)
    skeleton_weavelet.join(context, endpoints, weavelets, stack)


Join = Callable[[str, range, int, AsyncExitStack], Awaitable[None]]

KINDS: dict[str, Join] = {
    "zloom": weavelets,
    "pyzmq": bare_subscribers,
    "skeleton": skeletons,
    "nats": subscribers,
    "redis": redis_subscribers,
}


def shares(total: int, parts: int) -> list[range]:
    """Return the ranks below `total`, shared out among so many processes; none is left without any."""
    parts = min(parts, total)
    return [range(total * part // parts, total * (part + 1) // parts) for part in range(parts)]


async def main(kind: str, endpoint: str, first: str, end: str, world_size: str) -> None:
    """Join with the ranks from `first` to before `end`, until the input ends."""
    logging.getLogger("zloom").setLevel(logging.ERROR)  # each of them would say that its broker is gone
    async with AsyncExitStack() as stack:
        await KINDS[kind](endpoint, range(int(first), int(end)), int(world_size), stack)
        announce()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
