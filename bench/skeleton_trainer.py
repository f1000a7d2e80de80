"""The trainer of the skeleton: `python -m bench.skeleton_trainer ENDPOINTS`.

A weavelet on a thread of its own, and a training that carries its changes out between two steps, or at once
while it waits.
"""

import asyncio
import contextlib
import queue
import sys
import threading
from contextlib import AsyncExitStack
from typing import cast

import zmq

from bench.results import Load
from bench.roles import announce
from bench.skeleton_weavelet import Changes, Done, Weavelet, declared_keys, join, make
from bench.training import Step, step_of


class Training:
    """Makes steps on the thread that runs it, and changes between them."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[tuple[Changes, Done]] = queue.SimpleQueue()
        self._step: Step | None = None
        self._steps = 0

    async def steered(self, endpoints: str) -> None:
        """Be its weavelet, until the process is ended."""
        self._loop = asyncio.get_running_loop()
        with zmq.Context() as context:
            async with AsyncExitStack() as stack:
                weavelet = Weavelet(0, declared_keys(self._switch), self._hand_over)
                join(context, endpoints, [weavelet], stack)
                announce()
                await asyncio.Event().wait()

    def run(self) -> None:
        """Train, until the process is ended."""
        while True:
            if self._step is None:
                self._make(*self._orders.get())
            else:
                self._step()
                self._steps += 1
                with contextlib.suppress(queue.Empty):
                    while True:
                        self._make(*self._orders.get_nowait())

    def _hand_over(self, changes: Changes, done: Done) -> None:
        self._orders.put((changes, done))

    def _make(self, changes: Changes, done: Done) -> None:
        make(changes)
        self._loop.call_soon_threadsafe(done, self._steps)

    def _switch(self, load: str) -> None:
        self._step = None if load == "idle" else step_of(cast(Load, load))


def main(endpoints: str) -> None:
    """Train, steered by the broker, until the process is ended."""
    training = Training()
    threading.Thread(target=asyncio.run, args=(training.steered(endpoints),), daemon=True).start()
    training.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
