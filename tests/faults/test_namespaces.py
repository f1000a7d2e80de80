"""A trainer on another host: packets that vanish, a link that is down, a broker that dies beyond it."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import zloom
from tests.e2e.loop_trainer import PROGRESS
from tests.faults.namespaces import HUB, Cut, Hosts, hosts, missing
from tests.faults.oracles import HELD_UP, until
from tests.faults.table import Tally
from tests.faults.test_network import BACK, LOST
from tests.support import BrokerProcess, broker_process, free_endpoint

PORT = 5555

CUTS: tuple[Cut, ...] = ("both", "up", "down", "link")


@pytest.fixture(scope="module", autouse=True)
def _allowed() -> None:
    if why := missing():
        pytest.skip(why)


@dataclass
class Place:
    """A broker on one host, with a trainer and an operator beside it, and a trainer on the other."""

    between: Hosts
    operator: zloom.Operator
    folder: Path
    count: int = 0

    async def change_far(self) -> None:
        """Change the far run, and wait for nobody."""
        self.count += 1
        await self.operator.set("far", {"count": self.count}, wait=False)

    async def change_near(self) -> None:
        """Change the near run, which has it at once, whatever is between the other and the broker."""
        begun = time.monotonic()
        assert (await self.operator.set("near", {"count": self.count})).applied_everywhere
        assert time.monotonic() - begun < HELD_UP

    async def is_far(self, state: str) -> bool:
        return [each.state for each in await self.operator.replicas("far")] == [state]

    async def has_all(self) -> bool:
        (replica,) = await self.operator.replicas("far")
        newest = await self.operator.history("far", limit=1)
        return replica.state == "live" and replica.revision == newest[0].revision.revision

    def far_step(self) -> int:
        step: int = PROGRESS.unpack((self.folder / "far.progress").read_bytes())[0]
        return step

    def far_counts(self) -> list[int]:
        lines = (self.folder / "far.jsonl").read_text().splitlines()
        told = [json.loads(line) for line in lines if line.endswith("}")]
        return [each["value"] for each in told if each.get("key") == "count"]


@contextlib.contextmanager
def broker(between: Hosts, folder: Path, near: str) -> Iterator[BrokerProcess]:
    endpoints = f"{near} tcp://{HUB}:{PORT}"
    with broker_process(folder / "data", endpoints, within=between.on("hub")) as running:
        yield running


@contextlib.contextmanager
def trainer(within: list[str], endpoint: str, folder: Path, run: str) -> Iterator[None]:
    log, progress = folder / f"{run}.jsonl", folder / f"{run}.progress"
    words = [endpoint, str(log), "--run", run, "--progress", str(progress)]
    with subprocess.Popen([*within, sys.executable, "-m", "tests.e2e.loop_trainer", *words]) as process:
        try:
            yield
        finally:
            process.kill()


@contextlib.asynccontextmanager
async def place(between: Hosts, folder: Path, near: str) -> AsyncIterator[Place]:
    """With a broker that is there already."""
    far = between.on("far")
    with trainer([], near, folder, "near"), trainer(far, f"tcp://{HUB}:{PORT}", folder, "far"):
        async with zloom.connect(near) as operator:
            here = Place(between, operator, folder)
            await until(lambda: here.is_far("live"), "the far trainer is there")
            await until(lambda: is_near(operator), "the near trainer is there")
            yield here


async def is_near(operator: zloom.Operator) -> bool:
    return [each.state for each in await operator.replicas("near")] == ["live"]


async def check(here: Place, tally: Tally) -> None:
    """The far trainer comes to have everything, in order and each once."""
    await until(here.has_all, "the far trainer has the newest config", BACK)
    tally.held("converged")
    counts = here.far_counts()
    assert counts == sorted(set(counts)), "each once, in order"
    assert counts[-1] == here.count
    tally.held("once", len(counts))


@pytest.mark.fault("network: between namespaces, packets lost in silence, or the link down")
async def test_cut_off(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    with hosts() as between, free_endpoint("ipc") as near, broker(between, tmp_path, near):
        async with place(between, tmp_path, near) as here:
            for cut in CUTS * 3 if long_form else ("both",):
                await here.change_far()
                between.cut(cut)
                begun, step = time.monotonic(), here.far_step()
                await here.change_far()
                await here.change_near()
                await until(lambda: here.is_far("lost"), f"{cut}: the trainer beyond is lost")
                assert time.monotonic() - begun < LOST
                tally.held("detected")
                await here.change_near()
                await until(lambda step=step: here.far_step() > step + 100, "it trains on")  # type: ignore[misc]
                tally.held("served")
                between.heal(cut)
                await check(here, tally)


@pytest.mark.fault("network: between namespaces, a broker killed beyond a cut: half-open connections")
async def test_a_broker_that_dies_beyond_a_cut(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    """Its kernel's farewells are lost too, so the trainer's are open at one end only."""
    if not long_form:
        pytest.skip("in the long form: it takes three beats of silence each time")
    with hosts() as between, free_endpoint("ipc") as near, contextlib.ExitStack() as lives:
        running = lives.enter_context(broker(between, tmp_path, near))
        async with place(between, tmp_path, near) as here:
            for _ in range(3):
                await here.change_far()
                between.cut("both")
                await here.change_far()
                running.process.kill()
                running.process.wait()
                step = here.far_step()
                running = lives.enter_context(broker(between, tmp_path, near))
                await until(lambda: here.is_far("lost"), "the restarted broker misses it")
                await here.change_near()
                await until(lambda step=step: here.far_step() > step + 100, "it trains on")  # type: ignore[misc]
                between.heal("both")
                await check(here, tally)
                tally.held("detected")
