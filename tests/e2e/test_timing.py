"""When a change happens, on two ranks in processes of their own that train in lockstep."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import zloom
from tests.e2e import rank_trainer
from tests.e2e.rank_trainer import Plan
from tests.e2e.ranks import all_train, ended, ranks
from tests.support import DEADLINE, broker_process, free_endpoint, free_ports
from zloom.messages import Happened, Reported

RANKS = 2


@contextlib.asynccontextmanager
async def steered(
    tmp_path: Path, *, has_store: bool = True, bad: float = 0.0
) -> AsyncIterator[zloom.Operator]:
    """A broker, two ranks that train, and an operator; only the last rank has a bad rate."""
    with free_endpoint("ipc") as endpoint, broker_process(tmp_path / "data", endpoint):
        port = free_ports()
        plans = [
            Plan(endpoint, tmp_path / f"{rank}.log", rank, RANKS, port, has_store) for rank in range(RANKS)
        ]
        plans[-1] = replace(plans[-1], bad=bad)
        with ranks(rank_trainer.main, plans) as processes:
            async with zloom.connect(endpoint) as operator:
                await all_train(operator, "ranks", RANKS)
                yield operator
                await operator.stop("ranks")
                assert await ended(processes) == [0] * RANKS
    logs = [noted(tmp_path, rank) for rank in range(RANKS)]
    if not bad:
        assert logs[0] == logs[1]  # the same rates at the same steps
        assert not any("unequal" in line for line in logs[0])


async def until(feed: Any, wanted: Callable[[Any], object], kind: type = Reported) -> Any:
    async with asyncio.timeout(DEADLINE):
        async for told in feed:
            if isinstance(told, kind) and wanted(told):
                return told
    raise AssertionError("the feed ended")


def noted(folder: Path, rank: int) -> list[dict[str, Any]]:
    path = folder / f"{rank}.log"
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps_of(result: zloom.Result) -> int:
    """Return the step at which all ranks applied it."""
    assert result.applied_everywhere, result
    steps = {outcome.step for outcome in result.outcomes}
    assert len(steps) == 1
    (step,) = steps
    assert step is not None
    return step


@pytest.mark.parametrize("has_store", [True, False], ids=["store", "broker"])
async def test_a_ramp_keeps_the_ranks_equal_at_every_step(tmp_path: Path, has_store: bool) -> None:
    async with steered(tmp_path, has_store=has_store) as operator:
        ramps = {"rate": zloom.Ramp(50, 2.0)}
        first = steps_of(await operator.set("ranks", {"rate": 3.0}, ramps=ramps, timeout=DEADLINE))
        async with operator.watch("ranks") as feed:
            await until(feed, lambda told: told.status.step > first + 50 and not told.status.ramps)
        expected = [{"step": first + n, "rate": 2.0 + n / 50} for n in range(51)]
        assert [line["step"] for line in noted(tmp_path, 0)] == [line["step"] for line in expected]
        assert [line["rate"] for line in noted(tmp_path, 0)] == pytest.approx(
            [line["rate"] for line in expected]
        )


async def test_a_cancelled_ramp_ends_at_one_value_on_all_ranks(tmp_path: Path) -> None:
    async with steered(tmp_path) as operator:
        ramps = {"rate": zloom.Ramp(10**7, 2.0)}
        result = await operator.set("ranks", {"rate": 90.0}, ramps=ramps, timeout=DEADLINE)
        ended = await operator.cancel("ranks", result.revision, timeout=DEADLINE)
        steps_of(ended)
        values = [outcome.values for outcome in ended.outcomes]
        assert values[0] == values[1]
        assert await operator.get("ranks") == values[0]


async def test_a_handler_that_raises_on_one_rank_is_told_to_operators(tmp_path: Path) -> None:
    async with steered(tmp_path, bad=2.5) as operator, operator.watch("ranks") as feed:
        ramps = {"rate": zloom.Ramp(4, 2.0)}
        await operator.set("ranks", {"rate": 3.0}, ramps=ramps, timeout=DEADLINE)
        told = await until(feed, lambda told: told.event.kind == "ramp_failed", Happened)
        assert "rank 1 stays at 2.25: rate: ValueError: too hot" in told.event.text
        steps_of(await operator.set("ranks", {"rate": 4.0}, timeout=DEADLINE))  # equal again
        assert [noted(tmp_path, rank)[-1]["rate"] for rank in range(RANKS)] == [4.0, 4.0]


@pytest.mark.parametrize("has_store", [True, False], ids=["store", "broker"])
async def test_a_bounded_resume_pauses_all_ranks_at_one_step(tmp_path: Path, has_store: bool) -> None:
    async with steered(tmp_path, has_store=has_store) as operator:
        paused = steps_of(await operator.pause("ranks", timeout=DEADLINE))
        for turn in (1, 2):
            assert steps_of(await operator.resume("ranks", steps=5, timeout=DEADLINE)) == paused + 5 * (
                turn - 1
            )
            assert await paused_at(operator, paused + 5 * turn) == {paused + 5 * turn}
        assert (await operator.resume("ranks", timeout=DEADLINE)).applied_everywhere


async def paused_at(operator: zloom.Operator, step: int) -> set[int]:
    """Wait until all ranks are paused at this step or a later one; return their steps."""
    async with asyncio.timeout(DEADLINE):
        while True:
            ranks = await operator.replicas("ranks")
            if all(each.state == "paused" and (each.step or 0) >= step for each in ranks):
                return {(each.step or 0) for each in ranks}
            await asyncio.sleep(0.02)


async def test_steps_are_counted_and_a_named_step_is_kept(tmp_path: Path) -> None:
    async with steered(tmp_path) as operator:
        result = await operator.set("ranks", {"rate": 2.0}, after=5_000, timeout=DEADLINE)
        assert steps_of(result) == result.at_step
        assert noted(tmp_path, 0) == [{"step": result.at_step, "rate": 2.0}]


async def test_what_waits_for_its_step_is_superseded_or_cancelled_on_all_ranks(tmp_path: Path) -> None:
    async with steered(tmp_path) as operator:
        waiting = await operator.set("ranks", {"rate": 2.0}, at_step=10**9, wait=False)
        assert (
            await operator.set("ranks", {"rate": 3.0}, supersede=True, timeout=DEADLINE)
        ).applied_everywhere
        ended = await operator.follow("ranks", waiting.revision)
        assert [each.outcome for each in ended.outcomes] == ["superseded"] * RANKS
        waiting = await operator.set("ranks", {"rate": 4.0}, at_step=10**9, wait=False)
        assert (await operator.cancel("ranks", waiting.revision)).applied_everywhere
        ended = await operator.follow("ranks", waiting.revision)
        assert [each.outcome for each in ended.outcomes] == ["cancelled"] * RANKS
        assert [line["rate"] for line in noted(tmp_path, 0)] == [3.0]


async def test_a_checkpoint_that_one_rank_cannot_save_keeps_all_from_changing(tmp_path: Path) -> None:
    async with steered(tmp_path, bad=-1.0) as operator:
        with pytest.raises(zloom.CheckpointFailed, match="rank 1: rejected: checkpoint: OSError: disk full"):
            await operator.set("ranks", {"rate": 2.0}, checkpoint_first=True, timeout=DEADLINE)
        assert [entry.revision.command for entry in await operator.history("ranks")] == ["checkpoint"]
        assert noted(tmp_path, 0) == []
