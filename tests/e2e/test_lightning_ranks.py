"""Lightning on several real ranks: every key and command, in a storm."""

import asyncio
import contextlib
import json
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
    folder: Path, world_size: int, **odd: Any
) -> AsyncIterator[tuple[zloom.Operator, list[BaseProcess]]]:
    """A fit that is under way; what is odd about a rank is odd about the last one only."""
    folder.mkdir()  # noqa: ASYNC240
    port = free_ports()
    with free_endpoint("ipc") as endpoint, broker_process(folder / "data", endpoint):
        plans = [
            Plan(endpoint, folder, rank, world_size, port, seed=world_size) for rank in range(world_size)
        ]
        plans[-1] = replace(plans[-1], **odd)
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
    async with asyncio.timeout(DEADLINE):
        while {(each.state, each.reason) for each in await operator.replicas(run)} != {("finished", reason)}:
            await asyncio.sleep(0.05)


async def storm(folder: Path, world_size: int, gusts: int) -> None:
    """Every key by itself, then a storm; all ranks did the same, and what the operator was told."""
    async with job(folder, world_size, seed=world_size, faults=0.3, delay=0.002) as (operator, processes):
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
    assert all(other == first for other in others)
    assert (first.ended, first.trained) == ("finished", stopped)
    # What Adam calls momentum is none to another class, so that it does not go over with the type.
    assert first.values | {"momentum": None} == config | {"momentum": None}
    assert others[-1].faults == len(blown.refused)
    assert effective(first.kept) == effective(told(blown.applied))


def test_every_key_and_command_on_ranks_of_lightning(tmp_path: Path) -> None:
    at_once(storm(tmp_path / "two", 2, 8), storm(tmp_path / "four", 4, 2))
