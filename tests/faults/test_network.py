"""Connections that are cut, silent, one-sided, slow or half open, between one rank and the broker.

The other rank and the operator are connected directly: what happens to one must not reach them.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import zloom
from tests.faults.oracles import until
from tests.faults.proxy import Direction, Network, network
from tests.faults.survivors import Survivor, converge
from tests.faults.table import Tally
from tests.faults.test_broker import Burst, check_history, operating
from tests.faults.test_trainer import is_in, listening, taken, trainer, trains
from tests.shell.scripted_peer import Peer
from tests.support import DEADLINE, broker_process, free_ports
from zloom import messages as m

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a second address of loopback")

LOST = 6.5
"""Seconds in which one that was cut off is known as lost: 6, and what a machine under load adds."""

BACK = 12.0
"""Seconds in which it is itself again, once it may: a silent peer gives up after 3, tries again within 1, and
asks for its rank each second."""


@dataclass
class Place:
    """A broker, one rank behind a network, one beside it, and an operator."""

    between: Network
    far: Survivor
    near: Survivor
    operator: Peer
    burst: Burst

    @property
    def opened(self) -> int:
        """How many connections of the far rank there were."""
        return sum(line.opened for line in self.between)

    @property
    def lost(self) -> int:
        """How often the operator was told that a rank is lost."""
        told = [each.event.kind for each in self.operator.updates if isinstance(each, m.Happened)]
        return told.count("lost")

    async def change(self) -> None:
        """Send changes; they are all accepted, whoever hears of them."""
        self.burst.make(5)
        await self.burst.finish(self.operator)
        assert not self.burst.refused

    async def far_state(self) -> str:
        name = f"far-{time.monotonic_ns()}"
        found = await self.operator.ask(m.GetReplicas(id=name, run="run"))
        return next((each.state for each in found.replicas if each.rank == 1), "absent")


@contextlib.asynccontextmanager
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    endpoint = f"tcp://127.0.0.1:{free_ports()}"
    with broker_process(tmp_path / "data", endpoint):
        async with network(endpoint) as (between, far_endpoint), operating(endpoint) as operator:
            near, far = Survivor(endpoint, 0, 2), Survivor(far_endpoint, 1, 2)
            tasks = [asyncio.create_task(each.train()) for each in (near, far)]
            try:
                await converge(operator, 2, DEADLINE)
                yield Place(between, far, near, operator, Burst(0))
            finally:
                between.heal()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def check_recovered(here: Place, tally: Tally) -> None:
    """Both ranks are at the newest revision, and took each once and in order."""
    await converge(here.operator, 2, BACK)
    tally.held("converged", 2)
    await check_history(here.operator, [here.near, here.far], here.burst.accepted, tally)


@pytest.mark.parametrize("cut", [(), ("up",), ("down",)], ids=lambda cut: "".join(cut) or "both")
@pytest.mark.fault("network: partition, and loss in one direction alone")
async def test_cut_off(tmp_path: Path, tally: Tally, long_form: bool, cut: tuple[Direction, ...]) -> None:
    if cut != ("down",) and not long_form:
        pytest.skip("in the long form")
    async with place(tmp_path) as here:
        for _ in range(3 if long_form else 1):
            await here.change()
            for line in here.between:
                line.partition(*cut)
            steps, begun = here.far.step, time.monotonic()
            await here.change()
            await until(lambda: is_lost(here), f"{cut}: the rank that is cut off is lost")
            assert time.monotonic() - begun < LOST
            tally.held("detected")
            assert here.far.step > steps
            tally.held("served")
            here.between.heal()
            await check_recovered(here, tally)


async def is_lost(here: Place) -> bool:
    return await here.far_state() == "lost"


@pytest.mark.fault("network: connections that are reset")
async def test_reset(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    async with place(tmp_path) as here:
        for _ in range(50 if long_form else 3):
            opened = here.opened
            for line in here.between:
                line.reset()
            await here.change()
            await until(lambda opened=opened: here.opened >= opened + 2, "both connect again")  # type: ignore[misc]
            await converge(here.operator, 2, BACK)
            tally.held("detected")
        await check_recovered(here, tally)
        assert here.lost == 0


@pytest.mark.fault("network: control alone reset, open at one end only, or silent")
@pytest.mark.parametrize("fault", ["reset", "half open", "silent"])
async def test_control_alone(tmp_path: Path, tally: Tally, long_form: bool, fault: str) -> None:
    """Revisions and beats still reach the rank, over updates; what it says does not reach the broker."""
    if fault == "silent" and not long_form:
        pytest.skip("in the long form")
    async with place(tmp_path) as here:
        for _ in range(3 if long_form else 1):
            steps, opened = here.far.step, here.opened
            match fault:
                case "reset":
                    here.between.control.reset()
                case "half open":
                    here.between.control.half_close()
                case "silent":
                    here.between.control.partition()
                    await until(lambda: is_lost(here), "it is lost once it makes its sockets anew")
                    here.between.heal()
            await here.change()
            await until(lambda opened=opened: here.opened > opened, "it connects again")  # type: ignore[misc]
            await check_recovered(here, tally)
            tally.held("detected")
            assert here.far.step > steps
            tally.held("served")
        if fault == "reset":
            assert here.lost == 0


@pytest.mark.fault("network: control alone reset while the GIL is held")
async def test_control_alone_while_the_gil_is_held(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    """libzmq's thread connects again, but only Python could say hello there."""
    if not long_form:
        pytest.skip("in the long form: the GIL is held for 12 s")
    log = tmp_path / "log"
    endpoint = f"tcp://127.0.0.1:{free_ports()}"
    with broker_process(tmp_path / "data", endpoint):
        async with network(endpoint) as (between, far), zloom.connect(endpoint) as operator:
            with trainer(far, log):
                await until(lambda: trains(operator), "the trainer trains", 2 * DEADLINE)
                async with listening(operator) as events:
                    command = operator.command("run", "hold_gil", {"seconds": 12}, timeout=30.0)
                    held = asyncio.create_task(command)
                    await until(lambda: taken(log, "hold_gil") == [12], "the GIL is held")
                    between.control.reset()  # before it is pinged, which finds that control is gone
                    assert (await held).applied_everywhere
                    tally.held("served")
                    await until(lambda: is_in(operator, "live"), "the trainer is live again")
                    assert "lost" not in events
                    tally.held("detected")


@pytest.mark.fault("network: connections that are open at one end only")
async def test_half_open(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    if not long_form:
        pytest.skip("in the long form: it takes three beats of silence each time")
    async with place(tmp_path) as here:
        for _ in range(3):
            for line in here.between:
                line.half_close()
            begun = time.monotonic()
            await here.change()
            await check_recovered(here, tally)
            assert time.monotonic() - begun < BACK
            tally.held("detected")


@pytest.mark.fault("network: 300 ms each way")
async def test_latency(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    async with place(tmp_path) as here:
        for line in here.between:
            line.latency = 0.3
        for _ in range(20 if long_form else 2):
            begun = time.monotonic()
            await here.change()
            assert time.monotonic() - begun < 0.3 + DEADLINE / 10, "whoever is near does not wait for the far"
            tally.held("served")
            await converge(here.operator, 2, BACK)
            tally.held("converged", 2)
        await check_recovered(here, tally)
        assert here.lost == 0
        tally.held("detected")
