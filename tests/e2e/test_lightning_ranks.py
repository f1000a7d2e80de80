"""Lightning on several real ranks: every key and command in a storm, and SIGTERM where ranks wait."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import zloom
from tests.e2e import lightning_rank
from tests.e2e.lightning_rank import Plan, Story
from tests.e2e.ranks import Changes, Storm, all_train, at_once, ended, one_fate, ranks
from tests.support import DEADLINE, broker_process, free_endpoint, free_ports


def draw(random: Random) -> Changes:
    """Return a value for each key that a fit has."""
    return {
        "optimizer_type": random.choice(("sgd", "adamw", "nadam", "rmsprop")),
        "learning_rate": random.uniform(0.0001, 0.01),
        "weight_decay": random.uniform(0.0, 0.1),
        "momentum": random.uniform(0.1, 0.9),
        "gradient_clip_val": random.choice((None, random.uniform(0.1, 2.0))),
        "accumulate_grad_batches": random.randint(1, 4),
        "batch_size": random.randint(1, 8),
        "max_epochs": random.randint(10**6, 10**7),
        "max_steps": random.randint(10**6, 10**7),
        "log_every_n_steps": random.randint(0, 100),
        "jolt": random.randint(1, 10**6),
    }


IN_PAUSE = ("optimizer_type", "learning_rate", "weight_decay", "momentum", "gradient_clip_val", "max_epochs")
COMMANDS = ("checkpoint", "validate")


@contextlib.asynccontextmanager
async def job(
    folder: Path, world_size: int, delay: float = 0.01, **odd: Any
) -> AsyncIterator[tuple[zloom.Operator, list[BaseProcess]]]:
    """A fit that is under way; what is odd about a rank is odd about the last one only.

    Its delay is every rank's pace: jobs that train as fast as they can leave nothing to those beside them.
    """
    folder.mkdir()  # noqa: ASYNC240
    port = free_ports()
    with free_endpoint("ipc") as endpoint, broker_process(folder / "data", endpoint):
        plans = [
            Plan(endpoint, folder, rank, world_size, port, seed=world_size) for rank in range(world_size)
        ]
        plans[-1] = replace(plans[-1], delay=delay, **odd)
        with ranks(lightning_rank.main, plans) as processes:
            async with zloom.connect(endpoint) as operator:
                await all_train(operator, folder.name, world_size)
                yield operator, processes


def stories(folder: Path, world_size: int) -> list[Story]:
    return [Story(**json.loads((folder / f"{rank}.json").read_text())) for rank in range(world_size)]


def effective(kept: list[tuple[int, str, Any]]) -> list[tuple[int, str, Any]]:
    """Return what the changes of each step came to, in order: (step, key, value)."""
    now: Changes = {}
    told = []
    for (step, key), value in sorted({(step, key): value for step, key, value in kept}.items()):
        if key not in now or now[key] != value:
            told.append((step, key, value))
        now[key] = value
    return told


def told(applied: list[tuple[int, int, Changes]]) -> list[tuple[int, str, Any]]:
    """Return what the operator was told, in the order in which it was carried out."""
    in_order = sorted(applied, key=lambda each: each[:2])
    return [(step, key, value) for step, _, changes in in_order for key, value in changes.items()]


async def all_undone(storm: Storm) -> None:
    """Change all keys at once until that fails on one rank, and so is taken back on all."""
    before = len(storm.refused)
    while len(storm.refused) == before:
        await storm.change(*draw(Random()))


async def all_finished(operator: zloom.Operator, run: str, reason: str) -> None:
    """Wait until the broker has the goodbyes of all ranks, with this reason."""
    told: list[tuple[str, str]] = []
    with contextlib.suppress(TimeoutError):
        async with operator.watch(run) as feed, asyncio.timeout(DEADLINE):
            while True:
                told = [(each.state, each.reason) for each in await operator.replicas(run)]
                if {state for state, _ in told} <= {"finished", "lost"}:
                    break
                await anext(feed)
    assert set(told) == {("finished", reason)}


async def storm(folder: Path, world_size: int, gusts: int) -> None:
    """Every key by itself, then a storm; all ranks did the same, and what the operator was told."""
    async with job(folder, world_size, seed=world_size, faults=0.5, delay=0.002) as (operator, processes):
        blown = Storm(operator, folder.name, Random(world_size), draw, IN_PAUSE, COMMANDS)
        for key in draw(Random()):
            await blown.change(key)
        await blown.blow(gusts)
        await all_undone(blown)
        await blown.pause()
        config = await operator.get(folder.name)
        stopped = one_fate(await operator.stop(folder.name, timeout=DEADLINE))
        assert await ended(processes) == [0] * world_size
        await all_finished(operator, folder.name, "finished")
    first, *others = stories(folder, world_size)
    assert others == [first] * (world_size - 1)
    assert (first.ended, first.trained) == ("finished", stopped)
    assert first.values == config
    assert others[-1].faults == len(blown.refused)
    assert effective(first.kept) == effective(told(blown.applied))


def test_every_key_and_command_on_ranks_of_lightning(tmp_path: Path) -> None:
    at_once(storm(tmp_path / "two", 2, 8), storm(tmp_path / "four", 4, 2))


async def signalled_in_a_pause(folder: Path) -> None:
    async with job(folder, 2) as (operator, processes):
        assert one_fate(await operator.command(folder.name, "pause", {"limit": None}, timeout=DEADLINE))
        terminate(processes[1])
        await all_terminated(folder, operator, processes)


async def signalled_while_another_holds(folder: Path) -> None:
    """Rank 1 is in its handler; rank 0 has carried the update out and holds until rank 1 has."""
    gate = folder / "gate"
    async with job(folder, 2, gate=gate) as (operator, processes):
        revision = (await operator.set(folder.name, {"jolt": 1}, wait=False)).revision
        async with operator.watch(folder.name) as feed, asyncio.timeout(DEADLINE):
            while {each.rank: each.state for each in await operator.replicas(folder.name)}[0] != "holding":
                await anext(feed)
        terminate(processes[1])
        gate.touch()
        assert one_fate(await operator.follow(folder.name, revision, timeout=DEADLINE))
        await all_terminated(folder, operator, processes)


async def signalled_in_training(folder: Path, rank: int) -> None:
    """Lightning tells the other ranks when rank 0 is to end; another than 0 they miss in their next batch."""
    async with job(folder, 2) as (operator, processes):
        terminate(processes[rank])
        if rank == 0:
            await all_terminated(folder, operator, processes)
            return
        assert await ended(processes) == [0, 0]
        first, second = stories(folder, 2)
        assert first.ended.startswith("RuntimeError: ")
        assert second.ended == "SIGTERMException: "


def terminate(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)


async def all_terminated(folder: Path, operator: zloom.Operator, processes: list[BaseProcess]) -> None:
    """Wait until all ranks have ended, after the same step, and have said why."""
    assert await ended(processes) == [0, 0]
    await all_finished(operator, folder.name, "terminated by SIGTERM")
    # A signal that comes while they validate ends that on one rank, and the other validates to the end.
    first, second = (replace(story, validations=[]) for story in stories(folder, 2))
    assert first == second
    assert first.ended == "SIGTERMException: "


def test_a_signal_to_one_rank_leaves_none_behind(tmp_path: Path) -> None:
    at_once(
        signalled_in_a_pause(tmp_path / "paused"),
        signalled_while_another_holds(tmp_path / "holds"),
        signalled_in_training(tmp_path / "first", 0),
        signalled_in_training(tmp_path / "second", 1),
    )
