"""A broker that comes back to many weavelets at once: all are active again soon, and it is not trampled."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.oracles import counters, memory, needs_proc, until
from tests.faults.table import Tally
from tests.faults.test_broker import change, operating
from tests.shell.scripted_peer import Peer
from tests.support import DEADLINE, broker_process, free_endpoint
from zloom import messages as m

SWARM = Path(__file__).with_name("swarm.py")

BACK = 2.0
"""Seconds from readiness on in which 1,000 are active again, on two cores that have nothing else to do."""

MIB = 1024 * 1024


@contextlib.asynccontextmanager
async def swarm(endpoint: str, count: int, processes: int) -> AsyncIterator[None]:
    each = count // processes
    pipe = asyncio.subprocess.PIPE
    running = []
    try:
        for number in range(processes):
            place = [endpoint, str(number * each), str(each), str(count)]
            running.append(await asyncio.create_subprocess_exec(sys.executable, SWARM, *place, stdin=pipe))
        yield
    finally:
        for process in running:
            process.kill()
            await process.wait()


class Watch:
    """Asks how many are live."""

    def __init__(self, operator: Peer) -> None:
        self._operator = operator
        self._asked = 0

    async def live(self) -> int:
        self._asked += 1
        answer = await self._operator.ask(m.GetRuns(id=f"live-{self._asked}", run="run"))
        return sum(run.live for run in answer.runs)


@needs_proc
@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.fault("broker: killed and started again under 1,000 weavelets")
async def test_a_herd_comes_back(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    count = 1000 if long_form else 50
    with free_endpoint("ipc") as endpoint:
        async with swarm(endpoint, count, 2):
            with broker_process(tmp_path / "data", endpoint) as broker:
                async with operating(endpoint) as operator:
                    watch = Watch(operator)
                    await all_are_live(watch, count, 120.0)
                    broker.process.kill()
            for number in range(5 if long_form else 1):
                with broker_process(tmp_path / "data", endpoint) as broker:
                    async with operating(endpoint) as operator:
                        watch = Watch(operator)
                        took = await all_are_live(watch, count, DEADLINE)
                        print(f"{count} weavelets were active again {took:.2f} s after readiness")
                        if long_form:
                            assert took < BACK
                        tally.held("detected", count)
                        state = await operator.ask(change(f"q{number}", number))
                        assert isinstance(state, m.RevisionState), state
                        settled = await operator.get(m.RevisionState, id=f"q{number}", settled=True)
                        assert {each.outcome for each in settled.outcomes} == {"applied"}
                        assert len(settled.outcomes) == count
                        tally.held("converged", count)
                        assert (await counters(operator))["dropped_for_credit"] == 0
                        assert memory(broker.process.pid) < (100 + count * 0.25) * MIB
                        tally.held("bounded")
                    broker.process.kill()


async def all_are_live(watch: Watch, count: int, deadline: float) -> float:
    """Return the seconds until they are."""

    async def are_live() -> bool:
        return await watch.live() == count

    return await until(are_live, f"{count} are live", deadline)
