"""The same step on every rank: several processes on gloo, under a storm of changes and of failures."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import pytest

import zloom
from tests.e2e import storm_trainer
from tests.e2e.ranks import Changes, Storm, all_train, at_once, ended, one_fate, ranks
from tests.e2e.storm_trainer import RUN, Plan, Story
from tests.support import DEADLINE, BrokerProcess, broker_process, free_endpoint, free_ports

CRASH = """
import os, signal, time
from zloom.messages import Decision
from zloom_broker.server import Server
from zloom_broker.rounds import Rounds

heard, send, told = {heard}, Server._send, []

def die(*_):
    time.sleep(0.1 if told else 0.0)  # for libzmq's thread, which sends
    os.kill(os.getpid(), signal.SIGKILL)

def send_or_die(self, core, effect):
    if isinstance(effect.message, Decision) and effect.message.commit:
        if len(told) == heard:
            die()
        told.append(effect)
    send(self, core, effect)

Server._send = send_or_die
if heard < 0:
    Rounds._decide = die
"""
"""Has the broker be killed when it would write a commit to its journal (`heard` is -1), or when the commit is
on disk and so many ranks have heard of it."""

WINDOWS = {"before the commit": -1, "before any has heard": 0, "when one has heard": 1}


def job(endpoint: str, folder: Path, world_size: int, **options: Any) -> list[Plan]:
    port = free_ports()
    return [Plan(endpoint, folder, rank, world_size, port, **options) for rank in range(world_size)]


def stories(plans: list[Plan]) -> list[Story]:
    return [read_story(plan.folder, plan.rank) for plan in plans]


def read_story(folder: Path, rank: int = 0) -> Story:
    return Story(**json.loads((folder / f"{rank}.json").read_text()))


def draw(random: Random) -> Changes:
    """Return a value for each key that a rank has."""
    return {
        "learning_rate": random.uniform(0.001, 0.1),
        "optimizer_type": random.choice(("sgd", "adamw")),
        "accumulate_grad_batches": random.randint(1, 5),
        "batch_size": random.randint(1, 9),
        "sync_every": random.randint(1, 7),
    }


@contextlib.asynccontextmanager
async def storm(tmp_path: Path, world_size: int, **options: Any) -> AsyncIterator[zloom.Operator]:
    """A job that is stopped with the block; its ranks have done the same then."""
    with (
        free_endpoint("ipc") as endpoint,
        broker_process(tmp_path / "data", endpoint),
        ranks(storm_trainer.main, plans := job(endpoint, tmp_path, world_size, **options)) as processes,
    ):
        async with zloom.connect(endpoint) as operator:
            await all_train(operator, RUN, world_size)
            yield operator
            stopped = one_fate(await operator.stop(RUN, timeout=DEADLINE))
            assert await ended(processes) == [0] * world_size
    first, *others = stories(plans)
    assert all(other == first for other in others)
    assert (first.ended, first.trained) == ("stop", (stopped or 0) - 1)


@pytest.mark.parametrize(("world_size", "store"), [(4, True), (2, False)], ids=["4-store", "2-broker"])
async def test_ranks_stay_equal_in_a_storm(tmp_path: Path, world_size: int, store: bool) -> None:
    seed = world_size + 10 * store
    options: dict[str, Any] = {"seed": seed, "store": store, "faults": 0.05, "delay": 0.001}
    async with storm(tmp_path, world_size, **options) as operator:
        blown = Storm(operator, RUN, Random(seed), draw, tuple(draw(Random())))
        await blown.blow(8)
    assert blown.applied
    assert blown.refused
    told = sorted((step, key, value) for step, _, changes in blown.applied for key, value in changes.items())
    assert sorted((step, key, value) for step, key, value in read_story(tmp_path).kept) == told


@dataclass(frozen=True)
class Crashed:
    """Two ranks whose broker has died.

    Attributes:
        broker: That is gone.
        plans: Of the ranks.
        processes: Of the ranks.
        begun: The step that one of them had begun before anything was to be changed.
    """

    broker: BrokerProcess
    plans: list[Plan]
    processes: list[BaseProcess]
    begun: int

    async def leave(self) -> Story:
        """Wait until the ranks have ended, and return what each of them did."""
        assert await ended(self.processes) == [0, 0]
        first, second = stories(self.plans)
        assert first == second
        return first


@contextlib.asynccontextmanager
async def crashed(folder: Path, heard: int, **options: Any) -> AsyncIterator[Crashed]:
    """Two ranks and a broker that has died while they changed a value."""
    folder.mkdir()  # noqa: ASYNC240
    with (
        free_endpoint("ipc") as endpoint,
        broker_process(folder / "data", endpoint, prelude=CRASH.format(heard=heard)) as broker,
        ranks(storm_trainer.main, plans := job(endpoint, folder, 2, **options)) as processes,
    ):
        async with zloom.connect(endpoint) as operator:
            await all_train(operator, RUN, 2)
            begun = max((each.step or 0) for each in await operator.replicas(RUN))
            change = operator.set(RUN, {"learning_rate": 0.05, "sync_every": 3}, wait=False)
            asked = asyncio.create_task(change)  # the answer may die with the broker
            assert await asyncio.to_thread(broker.process.wait, DEADLINE) == -9
            asked.cancel()
            await asyncio.wait([asked])
        yield Crashed(broker, plans, processes, begun)


async def broker_returns(folder: Path, heard: int, store: bool) -> None:
    async with crashed(folder, heard, store=store) as job:
        with broker_process(folder / "data", job.broker.endpoint):
            async with zloom.connect(job.broker.endpoint) as operator:
                fate = one_fate(await operator.follow(RUN, 1, timeout=DEADLINE))
                again = one_fate(await operator.set(RUN, {"batch_size": 2}, timeout=DEADLINE))
                assert again is not None
                await operator.stop(RUN, timeout=DEADLINE)
                story = await job.leave()
    expected: list[list[Any]] = (
        [] if fate is None else [[fate, "learning_rate", 0.05], [fate, "sync_every", 3]]
    )
    assert as_lists(story) == [*expected, [again, "batch_size", 2]]
    if heard < 0 or not store:  # it was free to begin again, or its journal is the register
        assert fate is not None


async def broker_stays_away(folder: Path, heard: int) -> None:
    async with crashed(folder, heard) as job:
        last = job.begun + 80
        (folder / storm_trainer.LAST).write_text(str(last))
        story = await job.leave()
    assert (story.ended, story.trained) == ("last", last)
    if heard < 1:
        assert story.kept == []
        assert story.longest > 4  # until they had given the broker up


@pytest.mark.fault("ranks: the broker killed in a storm of changes, with a store", "converged")
def test_no_death_of_the_broker_splits_ranks_that_share_a_store(tmp_path: Path) -> None:
    at_once(
        *(broker_returns(tmp_path / name, WINDOWS[name], store=True) for name in WINDOWS),
        broker_stays_away(tmp_path / "before any has heard, away", 0),
        broker_stays_away(tmp_path / "when one has heard, away", 1),
    )


@pytest.mark.fault("ranks: the broker killed in a storm of changes, without a store", "converged")
def test_no_death_of_the_broker_splits_ranks_that_share_none(tmp_path: Path) -> None:
    at_once(
        *(broker_returns(tmp_path / name, WINDOWS[name], store=False) for name in WINDOWS),
        hold_limit_is_kept(tmp_path / "limit"),
    )


async def hold_limit_is_kept(folder: Path) -> None:
    async with crashed(folder, -1, store=False, hold_limit=1.0) as job:
        assert await ended(job.processes) == [0, 0]
    for story in stories(job.plans):
        assert story.kept == []
        assert story.ended.startswith("HoldLimitExceeded: ")


@contextlib.asynccontextmanager
async def steered(
    folder: Path, plans: list[Plan], endpoint: str
) -> AsyncIterator[tuple[zloom.Operator, list[BaseProcess]]]:
    with broker_process(folder / "data", endpoint), ranks(storm_trainer.main, plans) as processes:
        async with zloom.connect(endpoint) as operator:
            yield operator, processes


async def rank_dies(folder: Path, store: bool) -> None:
    """One rank is killed in its handler, when the others have carried the update out or are about to."""
    folder.mkdir()  # noqa: ASYNC240
    with free_endpoint("ipc") as endpoint:
        plans = job(endpoint, folder, 3, store=store)
        plans[2] = replace(plans[2], fatal=0.07)
        async with steered(folder, plans, endpoint) as (operator, processes):
            await all_train(operator, RUN, 3)
            changes = {"learning_rate": 0.07, "sync_every": 5}
            result = await operator.set(RUN, changes, timeout=DEADLINE)
            assert [each.outcome for each in result.outcomes] == ["aborted", "aborted", "lost"], result
            assert all("rank 2" in each.error for each in result.outcomes[:2]), result
            assert await ended(processes) == [0, 0, -9]
    assert [story.kept for story in stories(plans[:2])] == [[], []]


async def rank_joins(folder: Path) -> None:
    """One rank comes later than the others, which wait for it in their first collective."""
    folder.mkdir()  # noqa: ASYNC240
    with free_endpoint("ipc") as endpoint:
        plans = job(endpoint, folder, 2, store=False)
        plans[1] = replace(plans[1], late=folder / "come")
        async with steered(folder, plans, endpoint) as (operator, processes):
            await one_is_there(operator)
            with pytest.raises(zloom.Refused, match="missing: 1"):
                await operator.set(RUN, {"sync_every": 5})
            (folder / "come").touch()
            await all_train(operator, RUN, 2)
            step = one_fate(await operator.set(RUN, {"sync_every": 5}, timeout=DEADLINE))
            await operator.stop(RUN, timeout=DEADLINE)
            assert await ended(processes) == [0, 0]
    first, second = stories(plans)
    assert first == second
    assert as_lists(first) == [[step, "sync_every", 5]]


def as_lists(story: Story) -> list[list[Any]]:
    """Return what was kept as JSON has it."""
    return [list(each) for each in story.kept]


async def rank_is_told_to_end(folder: Path) -> None:
    """One rank gets SIGTERM while all pause, and its handler says so to the others."""
    folder.mkdir()  # noqa: ASYNC240
    with free_endpoint("ipc") as endpoint:
        plans = job(endpoint, folder, 2)
        async with steered(folder, plans, endpoint) as (operator, processes):
            await all_train(operator, RUN, 2)
            paused = one_fate(await operator.pause(RUN, timeout=DEADLINE))
            os.kill(processes[1].pid or 0, signal.SIGTERM)
            assert await ended(processes) == [0, 0]
    first, second = stories(plans)
    assert first == second
    assert (first.ended, first.trained) == ("SIGTERM", (paused or 0) - 1)


async def one_is_there(operator: zloom.Operator) -> None:
    async with asyncio.timeout(DEADLINE):
        while True:
            if await operator.runs() and [each.rank for each in await operator.replicas(RUN)] == [0]:
                return
            await asyncio.sleep(0.05)


@pytest.mark.fault("ranks: one dies in the middle of a change", "converged", "detected")
def test_ranks_that_die_join_or_are_told_to_end(tmp_path: Path) -> None:
    at_once(
        rank_dies(tmp_path / "dies, store", store=True),
        rank_dies(tmp_path / "dies, broker", store=False),
        rank_joins(tmp_path / "joins"),
        rank_is_told_to_end(tmp_path / "told"),
    )
