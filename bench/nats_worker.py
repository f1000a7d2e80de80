"""A trainer with NATS in a thread, as one would write it on nats-py: handlers run between two steps.

While the training waits they run at once, on the thread of NATS.
"""

import asyncio
import sys
import threading
from typing import Any

import nats

from bench.orders import END
from bench.roles import announce
from bench.training import Training

CHANGES, OUTCOMES = "changes", "outcomes"


class Worker:
    """The side of NATS, on its own loop.

    Args:
        training: On the main thread.
        ended: Set when it was told to leave.
    """

    def __init__(self, training: Training, ended: asyncio.Event) -> None:
        self._training = training
        self._ended = ended

    async def handle(self, order: bytes) -> None:
        """Wait for the safe point, where the handler would run."""
        reached = self._training.safe_point()
        if not reached.done():
            await asyncio.wrap_future(reached)
        self._training.obey(order)
        if order == END:
            self._ended.set()

    async def on_core(self, connection: Any) -> None:
        """Answer requests."""

        async def answer(message: Any) -> None:
            await self.handle(message.data)
            await message.respond(message.data)

        await connection.subscribe(CHANGES, cb=answer)
        await connection.flush()

    async def on_jetstream(self, connection: Any) -> None:
        """Take from one stream, put into another; each is acknowledged after its outcome is kept."""
        streams = connection.jetstream()

        async def answer(message: Any) -> None:
            await self.handle(message.data)
            await streams.publish(OUTCOMES, message.data)

        await streams.subscribe(CHANGES, cb=answer)


async def _answer(kind: str, url: str, training: Training) -> None:
    ended = asyncio.Event()
    worker = Worker(training, ended)
    connection = await nats.connect(url)
    await (worker.on_core if kind == "core" else worker.on_jetstream)(connection)
    announce()
    await ended.wait()
    await connection.drain()
    training.end()


def main(kind: str, url: str) -> None:
    """Train until told to leave; `kind` is core or jetstream."""
    training = Training()
    threading.Thread(target=lambda: asyncio.run(_answer(kind, url, training)), daemon=True).start()
    training.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
