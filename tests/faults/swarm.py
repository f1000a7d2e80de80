"""Many weavelets in one process, which train until stdin is closed: ``swarm.py BROKER FIRST COUNT WORLD``."""

import asyncio
import sys
from typing import Any

import zloom
from zloom.socket_options import new_context


async def train(weavelet: zloom.AsyncWeavelet) -> None:
    @weavelet.on_config("learning_rate", initial=0.1)
    def set_learning_rate(value: float) -> None:
        pass

    async with weavelet:
        while True:
            await weavelet.tick()
            await asyncio.sleep(0.5)  # the step's work


async def main() -> None:
    broker, first, count, world = sys.argv[1], *map(int, sys.argv[2:])
    context = new_context(max_sockets=3 * count + 10)
    settings = zloom.WeaveletSettings(hold_watch=None)
    tasks = []
    for rank in range(first, first + count):
        place: dict[str, Any] = {"attempt": "one", "rank": rank, "world_size": world}
        weavelet = zloom.AsyncWeavelet("run", broker=broker, **place, context=context, settings=settings)
        tasks.append(asyncio.create_task(train(weavelet)))
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    context.destroy(linger=0)


if __name__ == "__main__":
    asyncio.run(main())
