"""A run of which one rank is stuck: what operators are told of it, end to end."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import zloom
from tests.e2e import stuck_trainer
from tests.e2e.forks import FORKS
from tests.e2e.stuck_trainer import STUCK_AT
from tests.support import DEADLINE, broker_process, free_endpoint, free_ports
from zloom.messages import Happened

RANKS = 3
STUCK = 1


@pytest.fixture
def endpoint() -> Iterator[str]:
    with free_endpoint("ipc") as endpoint:
        yield endpoint


@contextlib.contextmanager
def job(endpoint: str) -> Iterator[None]:
    port = free_ports()
    places = [(endpoint, port, rank, RANKS, STUCK) for rank in range(RANKS)]
    processes = [FORKS.Process(target=stuck_trainer.main, args=place) for place in places]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


async def cli(endpoint: str, *words: str) -> str:
    command = [sys.executable, "-m", "zloom", *words, "--broker", endpoint]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    told, _ = await process.communicate()
    return told.decode()


async def all_stall(operator: zloom.Operator) -> None:
    stalled: set[str] = set()
    async with operator.watch("stuck") as feed:
        async for told in feed:
            if isinstance(told, Happened) and told.event.kind == "stalled":
                stalled.update(told.event.replicas)
            if len(stalled) == RANKS:
                return


async def straggling(operator: zloom.Operator) -> dict[int, str]:
    """Wait until some rank makes the others wait; return how, by rank."""
    while True:
        replicas = await operator.replicas("stuck")
        if named := {each.rank: each.straggles for each in replicas if each.straggles}:
            return named
        await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_the_stuck_rank_and_the_line_are_found(tmp_path: Path, endpoint: str) -> None:
    with broker_process(tmp_path / "data", endpoint), job(endpoint):
        async with zloom.connect(endpoint) as operator, asyncio.timeout(3 * DEADLINE):
            await all_stall(operator)
            said = await cli(endpoint, "stacks", "stuck")
            why = "ranks 0, 2 wait in collectives, and it does not"
            assert await straggling(operator) == {STUCK: why}
        waiting, stuck = said.split("\n\n")
        assert waiting.startswith(f"ranks 0, 2 · stalled, step {STUCK_AT} · ")
        assert "dist.all_reduce(torch.ones(1))" in waiting
        assert "in all_reduce" in waiting
        assert stuck.startswith(f"rank 1 · stalled, step {STUCK_AT} · ")
        assert "with lock, lock:  # never gets the second one" in stuck.splitlines()[-1]
        listed = await cli(endpoint, "ps", "stuck")
        assert f"stalled, straggler: {why}" in listed
        assert "no rank 7" in await cli(endpoint, "stacks", "stuck", "--rank", "7", "--json")
