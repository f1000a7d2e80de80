"""The same step on every rank: several processes on gloo, under a storm of changes and of failures."""

import asyncio
import contextlib
import json
import multiprocessing
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import pytest

import zloom
from tests.e2e import storm_trainer
from tests.e2e.storm_trainer import RUN, Plan
from tests.support import DEADLINE, broker_process, free_endpoint, free_ports
from zloom.messages import Reported

FORKS = multiprocessing.get_context("forkserver")
"""Ranks are forked from one process that has torch: importing it in each would take most of the time."""

FORKS.set_forkserver_preload(["tests.e2e.storm_trainer"])


@contextlib.contextmanager
def ranks(plans: list[Plan]) -> Iterator[list[BaseProcess]]:
    """Run a job; whoever has not ended with the block is killed."""
    processes = [FORKS.Process(target=storm_trainer.main, args=(plan,)) for plan in plans]
    for process in processes:
        process.start()
    try:
        yield processes  # type: ignore[misc]
    finally:
        for process in processes:
            process.kill()
            process.join()


def job(endpoint: str, folder: Path, world_size: int, **options: Any) -> list[Plan]:
    port = free_ports()
    return [Plan(endpoint, folder, rank, world_size, port, **options) for rank in range(world_size)]


async def all_train(operator: zloom.Operator, world_size: int) -> None:
    """Wait until all ranks have begun, and the broker knows their pace."""
    paces: dict[int, float | None] = {}
    async with operator.watch(RUN) as feed, asyncio.timeout(2 * DEADLINE):
        async for told in feed:
            if isinstance(told, Reported):
                paces[told.status.rank] = told.status.step_time
                if len(paces) == world_size and None not in paces.values():
                    return


async def ended(processes: list[BaseProcess]) -> list[int | None]:
    """Wait until all ranks have ended; return their exit codes."""
    for process in processes:
        await asyncio.to_thread(process.join, DEADLINE)
    return [process.exitcode for process in processes]


def stories(plans: list[Plan]) -> list[dict[str, Any]]:
    return [json.loads((plan.folder / f"{plan.rank}.json").read_text()) for plan in plans]


def one_fate(result: zloom.Result) -> int | None:
    """Return the step at which all ranks applied a change; None when none did."""
    kinds = {outcome.outcome for outcome in result.outcomes}
    assert result.settled, result
    if "applied" not in kinds:
        assert kinds <= {"aborted", "rejected"}, result
        return None
    assert kinds == {"applied"}, result
    (step,) = {outcome.step for outcome in result.outcomes}
    return step


class Storm:
    """An operator who changes one thing after the other, and sometimes several at once."""

    def __init__(self, operator: zloom.Operator, seed: int) -> None:
        self.operator = operator
        self.random = Random(seed)
        self.applied: list[tuple[int, dict[str, Any]]] = []
        self.undone = 0

    async def blow(self, count: int) -> None:
        for _ in range(count):
            several = self.random.choice((1, 1, 1, 3))
            await asyncio.gather(*(self.change() for _ in range(several)))
            if self.random.random() < 0.25:
                await self.pause()
            elif self.random.random() < 0.25:
                await self.checkpoint()

    async def change(self) -> None:
        values = {
            "learning_rate": self.random.uniform(0.001, 0.1),
            "optimizer_type": self.random.choice(("sgd", "adamw")),
            "accumulate_grad_batches": self.random.randint(1, 5),
            "batch_size": self.random.randint(1, 9),
            "sync_every": self.random.randint(1, 7),
        }
        keys = self.random.sample(sorted(values), self.random.randint(1, 3))
        changes = {key: values[key] for key in keys}
        result = await self.attempt(self.operator.set(RUN, changes, timeout=DEADLINE))
        step = one_fate(result) if result else None
        if step is not None:
            self.applied.append((step, changes))
        elif result:
            self.undone += 1

    async def attempt(self, change: Awaitable[zloom.Result]) -> zloom.Result | None:
        try:
            return await change
        except zloom.Refused as refused:
            if refused.code == "key_pending":  # another change of the same gust is under way
                return None
            raise

    async def pause(self) -> None:
        paused = one_fate(await self.operator.pause(RUN, timeout=DEADLINE))
        await self.change()
        await self.checkpoint()
        resumed = one_fate(await self.operator.resume(RUN, timeout=DEADLINE))
        assert paused == resumed

    async def checkpoint(self) -> None:
        result = await self.operator.checkpoint(RUN, timeout=DEADLINE)
        assert one_fate(result) is not None
        assert len({outcome.detail for outcome in result.outcomes}) == 1  # the same parameters


@contextlib.asynccontextmanager
async def storm(tmp_path: Path, world_size: int, **options: Any) -> AsyncIterator[zloom.Operator]:
    """A job that is stopped with the block; its ranks have done the same then."""
    with (
        free_endpoint("ipc") as endpoint,
        broker_process(tmp_path / "data", endpoint),
        ranks(plans := job(endpoint, tmp_path, world_size, **options)) as processes,
    ):
        async with zloom.connect(endpoint) as operator:
            await all_train(operator, world_size)
            yield operator
            stopped = one_fate(await operator.stop(RUN, timeout=DEADLINE))
            assert await ended(processes) == [0] * world_size
    first, *others = stories(plans)
    assert all(other == first for other in others)
    assert (first["ended"], first["trained"]) == ("stop", (stopped or 0) - 1)


@pytest.mark.parametrize("store", [True, False], ids=["store", "broker"])
@pytest.mark.parametrize("world_size", [2, 4])
async def test_ranks_stay_equal_in_a_storm(tmp_path: Path, world_size: int, store: bool) -> None:
    seed = world_size + 10 * store
    options: dict[str, Any] = {"seed": seed, "store": store, "faults": 0.05}
    async with storm(tmp_path, world_size, **options) as operator:
        blown = Storm(operator, seed)
        await blown.blow(12)
    assert blown.applied
    assert blown.undone
    (story, *_) = stories([replace(plan, folder=tmp_path) for plan in job("", tmp_path, 1)])
    told = sorted((step, key, value) for step, changes in blown.applied for key, value in changes.items())
    assert sorted((step, key, value) for step, key, value in story["kept"]) == told
