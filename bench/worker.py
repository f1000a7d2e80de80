"""A trainer whose broker's client has a loop in a thread of its own: its handlers run between two steps.

While the training waits they run at once, on the thread of the loop.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from bench.orders import END
from bench.training import Training


class Worker:
    """The handler, on the loop.

    Args:
        training: On the main thread.
    """

    def __init__(self, training: Training) -> None:
        self._training = training
        self.ended = asyncio.Event()
        """It was told to leave."""

    async def handle(self, order: bytes) -> None:
        """Wait for the safe point, where the handler would run."""
        reached = self._training.safe_point()
        if not reached.done():
            await asyncio.wrap_future(reached)
        self._training.obey(order)
        if order == END:
            self.ended.set()


def train(answer: Callable[[Worker], Coroutine[Any, Any, None]]) -> None:
    """Train on this thread until told to leave.

    Args:
        answer: Takes orders, each of which it has handled and then answers, until `Worker.ended`.
    """
    training = Training()

    async def serve() -> None:
        await answer(Worker(training))
        training.end()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    training.run()
