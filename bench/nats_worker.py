"""A trainer with NATS in a thread, as one would write it on nats-py: see `bench.worker`."""

import functools
import sys
from typing import Any

import nats

from bench.orders import CHANGES, OUTCOMES
from bench.roles import announce
from bench.worker import Worker, train


async def on_core(connection: Any, worker: Worker) -> None:
    """Answer requests."""

    async def answer(message: Any) -> None:
        await worker.handle(message.data)
        await message.respond(message.data)

    await connection.subscribe(CHANGES, cb=answer)
    await connection.flush()


async def on_jetstream(connection: Any, worker: Worker) -> None:
    """Take from one stream, put into another; each is acknowledged after its outcome is kept."""
    streams = connection.jetstream()

    async def answer(message: Any) -> None:
        await worker.handle(message.data)
        await streams.publish(OUTCOMES, message.data)

    await streams.subscribe(CHANGES, cb=answer)


async def _answer(kind: str, url: str, worker: Worker) -> None:
    connection = await nats.connect(url)
    await (on_core if kind == "core" else on_jetstream)(connection, worker)
    announce()
    await worker.ended.wait()
    await connection.drain()


def main(kind: str, url: str) -> None:
    """Train until told to leave; `kind` is core or jetstream."""
    train(functools.partial(_answer, kind, url))


if __name__ == "__main__":
    main(*sys.argv[1:])
