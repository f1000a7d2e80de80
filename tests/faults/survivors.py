"""Trainers on the test's own loop that outlive whatever happens to their broker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

import zloom
from tests.faults.oracles import query, until
from tests.shell.scripted_peer import Peer
from zloom import messages as m


class Survivor:
    """A real weavelet in a loop of steps, which keeps what its handler was given.

    Args:
        endpoint: Of the broker.
        rank: Of so many.
        world_size: Ranks of the run.
    """

    def __init__(self, endpoint: str, rank: int = 0, world_size: int = 1) -> None:
        self.values: list[float] = []
        self.step = 0
        self.weavelet = zloom.AsyncWeavelet(
            "run", broker=endpoint, attempt="one", rank=rank, world_size=world_size
        )

        @self.weavelet.on_config("learning_rate", initial=0.1)
        def set_learning_rate(value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> None:
            self.values.append(value)

    async def train(self) -> None:
        """Train until cancelled."""
        async with self.weavelet:
            while True:
                await self.weavelet.tick()
                self.step += 1
                await asyncio.sleep(0.005)  # the step's work


@contextlib.asynccontextmanager
async def surviving(endpoint: str, count: int) -> AsyncIterator[list[Survivor]]:
    """Let so many ranks train, as long as the block lasts."""
    survivors = [Survivor(endpoint, rank, count) for rank in range(count)]
    tasks = [asyncio.create_task(each.train()) for each in survivors]
    try:
        yield survivors
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [each for each in ended if not isinstance(each, asyncio.CancelledError)]
        assert not failed


async def converge(operator: Peer, count: int, seconds: float) -> float:
    """Wait until so many replicas are live at the newest revision of this epoch; return how long it took."""
    numbers = iter(range(1_000_000))

    async def converged() -> bool:
        name = f"converge-{id(numbers)}-{next(numbers)}"
        runs = await query(operator, m.GetRuns(id=f"{name}-runs", run="run"))
        found = await query(operator, m.GetReplicas(id=f"{name}-replicas", run="run"))
        if not runs.runs:
            return False
        here = [r for r in found.replicas if r.state == "live" and r.revision == runs.runs[-1].revision]
        return len(here) == count

    return await until(converged, f"{count} replicas at the newest revision", seconds)
