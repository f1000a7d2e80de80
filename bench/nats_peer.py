"""The peers on NATS: the operator's side of `bench.nats_worker`.

With core NATS a change is a request, answered by the worker's handler; nothing keeps it. With JetStream the
change goes to one stream on files and its outcome to another, so that both are kept as zloom keeps them: the
operator has the server's acknowledgement of the change, and then the outcome.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import nats
from nats.js.api import AckPolicy, ConsumerConfig, StorageType

from bench import nats_server, roles
from bench.orders import CHANGES, END, OUTCOMES
from bench.parts import SECONDS_SILENT, AskingBench, Outcomes, Parts


@contextlib.asynccontextmanager
async def core(parts: Parts) -> AsyncIterator[AskingBench]:
    """Start a server without JetStream, a worker and a client, as long as the block lasts."""
    with (
        nats_server.running(parts.folder) as server,
        roles.process("bench.nats_worker", "core", server.endpoint),
    ):
        connection = await nats.connect(server.endpoint)

        async def ask(payload: bytes) -> None:
            await connection.request(CHANGES, payload, timeout=SECONDS_SILENT)

        yield AskingBench(ask)
        await ask(END)
        await connection.close()


@contextlib.asynccontextmanager
async def jetstream(parts: Parts, sync: str) -> AsyncIterator[AskingBench]:
    """Start the same with JetStream, which has its files on disk as `sync` says."""
    with nats_server.running(parts.folder, sync) as server:
        connection = await nats.connect(server.endpoint)
        streams = connection.jetstream(timeout=SECONDS_SILENT)
        for name in (CHANGES, OUTCOMES):
            await streams.add_stream(name=name, subjects=[name], storage=StorageType.FILE)
        outcomes, unacknowledged = Outcomes(), ConsumerConfig(ack_policy=AckPolicy.NONE)

        async def take(message: Any) -> None:
            outcomes.take(message.data)

        await streams.subscribe(OUTCOMES, cb=take, config=unacknowledged)

        async def ask(payload: bytes) -> None:
            outcome = outcomes.of(payload)
            await streams.publish(CHANGES, payload)
            async with asyncio.timeout(SECONDS_SILENT):
                await outcome

        with roles.process("bench.nats_worker", "jetstream", server.endpoint):
            yield AskingBench(ask)
            await ask(END)
        await connection.close()
