"""The peer on Redis: the operator's side of `bench.redis_worker`.

A change is published on one channel and its outcome, from the worker's handler, on another; nothing keeps
either.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import redis.asyncio

from bench import redis_server, roles
from bench.orders import CHANGES, END, OUTCOMES
from bench.parts import SECONDS_SILENT, AskingBench, Parts


@contextlib.asynccontextmanager
async def pubsub(parts: Parts) -> AsyncIterator[AskingBench]:
    """Start a server, a worker and a client, as long as the block lasts."""
    with (
        redis_server.running(parts.folder) as server,
        roles.process("bench.redis_worker", server.endpoint),
    ):
        async with (
            redis.asyncio.from_url(server.endpoint) as client,
            redis_server.listening(client, OUTCOMES) as listener,
        ):
            outcomes = listener.listen()

            async def ask(payload: bytes) -> None:
                async with asyncio.timeout(SECONDS_SILENT):
                    await client.publish(CHANGES, payload)
                    await anext(outcomes)

            yield AskingBench(ask)
            await ask(END)
