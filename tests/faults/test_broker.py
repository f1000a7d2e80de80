"""A broker that is killed, stopped, set to another hour, or has no disk to write to."""

import asyncio
import contextlib
import resource
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from tests.faults.disk import Failing, FaultyDisk, needs_compiler
from tests.faults.oracles import (
    LEAVE,
    assert_consecutive,
    assert_kept,
    assert_once,
    counters,
    needs_proc,
    until,
    whole_history,
)
from tests.faults.survivors import Survivor, converge, surviving
from tests.faults.table import Tally
from tests.shell.scripted_peer import Peer, connected
from tests.support import DEADLINE, broker_process, free_endpoint
from zloom import messages as m
from zloom.socket_options import new_context

CONVERGED = 10.0
"""Seconds in which all are back at one state: libzmq reconnects within 1, a silent peer within 4."""


@contextlib.asynccontextmanager
async def operating(endpoint: str) -> AsyncIterator[Peer]:
    """An operator with a context of its own."""
    context = new_context()
    try:
        with connected(context, endpoint) as operator:
            await operator.hello()
            yield operator
    finally:
        context.destroy(linger=0)


def change(name: str, number: int) -> m.SetConfig:
    """Return a change whose value no other has."""
    changes: m.SetConfig = m.SetConfig(
        id=name, run="run", changes={"learning_rate": 1 / (number + 2)}, mode="next"
    )
    return changes


async def check_history(
    operator: Peer, survivors: list[Survivor], accepted: dict[str, int], tally: Tally
) -> None:
    """What was accepted is there once, in order, and each survivor took exactly that."""
    entries = await whole_history(operator)
    assert_kept(entries, accepted)
    assert_consecutive(entries)
    assert_once(entries)
    values = [entry.revision.changes["learning_rate"] for entry in entries]
    for each in survivors:
        await until(lambda each=each: len(each.values) >= len(values), "all were applied")  # type: ignore[misc]
        assert each.values == values
    tally.held("kept", len(accepted))
    tally.held("consecutive", len(entries))
    tally.held("once", len(entries))


class Burst:
    """Changes that are sent in bursts, and again under the same ids until they are answered."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.accepted: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self.open: dict[str, m.SetConfig] = {}
        self._number = 0

    def make(self, count: int) -> None:
        for _ in range(count):
            self._number += 1
            name = f"q{self._number}"
            self.open[name] = change(name, self._number)

    def send(self, operator: Peer) -> None:
        for request in self.open.values():
            operator.send(request)

    def take(self, operator: Peer) -> None:
        """Take in what was answered: one revision under one id, and no refusal after that."""
        for message in operator.inbox:
            if isinstance(message, m.RevisionState):
                assert self.accepted.setdefault(message.id, message.revision) == message.revision
                self.open.pop(message.id, None)
            elif isinstance(message, m.Refusal):
                assert message.id not in self.accepted
                self.refused[message.id] = message.text
                self.open.pop(message.id, None)
        operator.inbox.clear()

    async def finish(self, operator: Peer) -> None:
        def is_done() -> bool:
            self.take(operator)
            return not self.open

        self.send(operator)
        await until(is_done, "all requests are answered")


@pytest.mark.parametrize("quarter", range(4))
@pytest.mark.fault("broker: kill -9 in the middle of bursts, at random moments")
async def test_killed_in_bursts(tmp_path: Path, tally: Tally, long_form: bool, quarter: int) -> None:
    """A thousand cycles in the long form, on twenty journals."""
    if quarter and not long_form:
        pytest.skip("in the long form")
    for life in range(5 if long_form else 1):
        await kill_often(tmp_path / f"data-{life}", 5 * quarter + life, 50 if long_form else 3, tally)


async def kill_often(folder: Path, seed: int, cycles: int, tally: Tally) -> None:
    burst = Burst(seed)
    with free_endpoint("ipc") as endpoint:
        async with surviving(endpoint, 2) as survivors:
            with broker_process(folder, endpoint) as broker:
                async with operating(endpoint) as operator:
                    await converge(operator, 2, DEADLINE)
            for cycle in range(cycles):
                with broker_process(folder, endpoint) as broker:
                    async with operating(endpoint) as operator:
                        if cycle % 10 == 9:
                            await converge(operator, 2, CONVERGED)
                            tally.held("converged", 2)
                        burst.make(20)
                        burst.send(operator)
                        await moment_of_the_kill(operator, burst.random, cycle)
                        broker.process.kill()
                        broker.process.wait()
                        burst.take(operator)
                        tally.held("detected")
            with broker_process(folder, endpoint) as broker:
                async with operating(endpoint) as operator:
                    await burst.finish(operator)
                    await converge(operator, 2, CONVERGED)
                    tally.held("converged", 2)
                    assert not burst.refused
                    await check_history(operator, survivors, burst.accepted, tally)


async def moment_of_the_kill(operator: Peer, random: Random, cycle: int) -> None:
    """Wait for any moment, or for the one at which so many promises have just been made."""
    if cycle % 2:
        await asyncio.sleep(random.uniform(0, 0.04))
    else:
        count = random.randint(1, 15)
        await operator.until(lambda peer: sum(isinstance(x, m.RevisionState) for x in peer.inbox) >= count)


@pytest.mark.fault("broker: SIGSTOP for 1 to 60 s")
async def test_stopped(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    burst = Burst(0)
    with free_endpoint("ipc") as endpoint, broker_process(tmp_path / "data", endpoint) as broker:
        async with surviving(endpoint, 2) as survivors, operating(endpoint) as operator:
            await converge(operator, 2, DEADLINE)
            for seconds in (1, 5, 15, 60) if long_form else (1,):
                burst.make(20)
                broker.process.send_signal(signal.SIGSTOP)
                burst.send(operator)
                steps = survivors[0].step
                await asyncio.sleep(seconds)  # the length of the fault
                assert survivors[0].step > steps
                broker.process.send_signal(signal.SIGCONT)
                async with operating(endpoint) as fresh:  # the other's connection may have been given up
                    await burst.finish(fresh)
                    await converge(fresh, 2, CONVERGED)
                    tally.held("converged", 2)
            async with operating(endpoint) as fresh:
                await check_history(fresh, survivors, burst.accepted, tally)
            begun = time.monotonic()
            broker.process.terminate()
            assert await asyncio.to_thread(broker.process.wait, DEADLINE) == 0
            assert time.monotonic() - begun < LEAVE
            tally.held("left")


# --- disk ------------------------------------------------------------------------------------------


@needs_proc
@pytest.mark.fault("broker: a disk that is full, and has room again")
async def test_a_disk_that_is_full_now_and_then(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    burst = Burst(1)
    with free_endpoint("ipc") as endpoint, broker_process(tmp_path / "data", endpoint) as broker:
        async with surviving(endpoint, 2) as survivors, operating(endpoint) as operator:
            await converge(operator, 2, DEADLINE)
            _, hard = resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE)
            for number in range(100 if long_form else 3):
                resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (0, hard))
                await assert_refused(operator, f"full-{number}", tally)
                resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
                burst.make(5)
                await burst.finish(operator)
            assert not burst.refused
            assert (await counters(operator))["commits_failed"] > 0
            tally.held("counted")
            await converge(operator, 2, CONVERGED)
            tally.held("converged", 2)
            await check_history(operator, survivors, burst.accepted, tally)


async def assert_refused(operator: Peer, name: str, tally: Tally) -> None:
    """A change is refused with the reason; reading works, and the ranks train on."""
    refusal = await operator.ask(change(name, 0))
    operator.inbox.clear()
    assert isinstance(refusal, m.Refusal), refusal
    assert refusal.code == "journal_failed"
    assert "the journal could not be written" in refusal.text
    tally.held("told")
    runs = await operator.ask(m.GetRuns(id=f"{name}-runs"))
    assert [run.live for run in runs.runs] == [2]
    tally.held("detected", 2)


FAILURES: list[Failing] = ["EIO", "no room", "fsync", "head"]


@needs_compiler
@pytest.mark.fault("broker: EIO and ENOSPC on write, on fsync, on the head file")
async def test_a_disk_with_errors(
    tmp_path: Path, tally: Tally, long_form: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is confirmed that a restart does not find; what was refused is not there."""
    burst = Burst(2)
    disk = FaultyDisk(tmp_path, tmp_path / "data")
    for name, value in disk.environment.items():
        monkeypatch.setenv(name, value)
    with free_endpoint("ipc") as endpoint:
        async with surviving(endpoint, 2) as survivors:
            for number, what in enumerate(FAILURES * 10 if long_form else FAILURES[::3]):
                with broker_process(tmp_path / "data", endpoint) as broker:
                    async with operating(endpoint) as operator:
                        await converge(operator, 2, DEADLINE)
                        disk.fail(what)
                        await assert_refused(operator, f"bad-{number}", tally)
                        disk.fail("nothing")
                        burst.make(5)
                        await burst.finish(operator)
                        broker.process.kill()
            with broker_process(tmp_path / "data", endpoint):
                async with operating(endpoint) as operator:
                    await converge(operator, 2, CONVERGED)
                    tally.held("converged", 2)
                    assert not burst.refused
                    await check_history(operator, survivors, burst.accepted, tally)


@needs_compiler
@pytest.mark.fault("broker: an fsync that takes 0.7 s")
async def test_a_slow_disk_holds_up_no_reader(
    tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk(tmp_path, tmp_path / "data")
    for name, value in disk.environment.items():
        monkeypatch.setenv(name, value)
    with free_endpoint("ipc") as endpoint, broker_process(tmp_path / "data", endpoint):
        async with surviving(endpoint, 1), operating(endpoint) as operator:
            await converge(operator, 1, DEADLINE)
            disk.fail("slow fsync")
            begun = time.monotonic()
            operator.send(change("slow", 1))
            for number in range(20):
                await operator.ask(m.GetRuns(id=f"runs-{number}"))
            assert time.monotonic() - begun < 0.5
            assert not any(isinstance(each, m.RevisionState) for each in operator.inbox)
            tally.held("served", 20)
            await operator.get(m.RevisionState, id="slow")
            assert time.monotonic() - begun > 0.7
            disk.fail("nothing")


# --- clock -----------------------------------------------------------------------------------------

CLOCK = """
import signal, time
offset, real = 0.0, time.time
def turn(number, frame):
    global offset
    offset += 3600.0 if number == signal.SIGUSR1 else -3600.0
signal.signal(signal.SIGUSR1, turn)
signal.signal(signal.SIGUSR2, turn)
time.time = lambda: real() + offset
"""


@pytest.mark.fault("broker: the clock set an hour forward, and back")
async def test_another_hour(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    burst = Burst(3)
    with free_endpoint("ipc") as endpoint:
        async with surviving(endpoint, 2) as survivors:
            with broker_process(tmp_path / "data", endpoint, prelude=CLOCK) as broker:
                async with operating(endpoint) as operator:
                    await converge(operator, 2, DEADLINE)
                    turns = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR2, signal.SIGUSR1)
                    for number in turns if long_form else turns[:2]:
                        before = (await operator.ask(m.GetStats(id=f"before-{len(burst.accepted)}"))).at
                        broker.process.send_signal(number)
                        await until(lambda before=before: is_set(operator, before), "the clock is set")  # type: ignore[misc]
                        burst.make(5)
                        await burst.finish(operator)
                        await converge(operator, 2, CONVERGED)
                        tally.held("converged", 2)
                    told = [each.event.kind for each in operator.updates if isinstance(each, m.Happened)]
                    assert not {"lost", "stalled", "finished"} & set(told)
                    tally.held("detected", 2)
                    await check_history(operator, survivors, burst.accepted, tally)


async def is_set(operator: Peer, before: float) -> bool:
    stats = await operator.ask(m.GetStats(id=f"clock-{time.monotonic_ns()}"))
    return bool(abs(stats.at - before) > 3000)
