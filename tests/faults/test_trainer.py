"""Trainers whose handlers hang, die or steer, that hold the GIL for a minute, or leave workers behind."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import zloom
from tests.faults.oracles import LEAVE, until
from tests.faults.table import Tally
from tests.support import DEADLINE, broker_process, free_endpoint
from zloom.messages import Happened

TRAINER = Path(__file__).with_name("faulty_trainer.py")


@contextlib.contextmanager
def trainer(endpoint: str, log: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, str(TRAINER), endpoint, str(log), *arguments]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


Steered = tuple[zloom.Operator, "subprocess.Popen[bytes]", Path]


@contextlib.asynccontextmanager
async def steered(tmp_path: Path, *arguments: str) -> AsyncIterator[Steered]:
    """A broker, a trainer that trains, and an operator."""
    log = tmp_path / "log"
    with (
        free_endpoint("ipc") as endpoint,
        broker_process(tmp_path / "data", endpoint),
        trainer(endpoint, log, *arguments) as process,
    ):
        async with zloom.connect(endpoint) as operator:
            await until(lambda: trains(operator), "the trainer trains", 2 * DEADLINE)
            yield operator, process, log


async def trains(operator: zloom.Operator) -> bool:
    return any((each.step or 0) > 0 for each in await operator.replicas("run"))


async def is_in(operator: zloom.Operator, state: str) -> bool:
    return any(each.state == state for each in await operator.replicas("run"))


def taken(log: Path, key: str) -> list[Any]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["value"] for line in lines if line["key"] == key]


@contextlib.asynccontextmanager
async def listening(operator: zloom.Operator) -> AsyncIterator[list[str]]:
    """Yield the kinds of the events of the run, as they come."""
    kinds: list[str] = []

    async def follow() -> None:
        async for told in operator.watch("run"):
            if isinstance(told, Happened):
                kinds.append(told.event.kind)

    task = asyncio.create_task(follow())
    try:
        yield kinds
    finally:
        task.cancel()


@pytest.mark.fault("trainer: a handler that changes the config again")
async def test_a_handler_that_changes_the_config_again(tmp_path: Path, tally: Tally) -> None:
    async with steered(tmp_path) as (operator, process, log):
        first = await operator.set("run", {"again": 5})
        assert first.applied_everywhere
        await until(lambda: taken(log, "again") == [5, 4, 3, 2, 1, 0], "each is carried out")
        tally.held("once", 6)
        history = await operator.history("run")
        assert sorted(entry.revision.revision for entry in history) == [1, 2, 3, 4, 5, 6]
        tally.held("consecutive", 6)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        await asyncio.to_thread(process.wait, DEADLINE)
        assert time.monotonic() - begun < LEAVE
        tally.held("left")


@pytest.mark.fault("trainer: killed in the middle of a command")
async def test_killed_by_its_own_handler(tmp_path: Path, tally: Tally) -> None:
    async with steered(tmp_path) as (operator, _, _):
        begun = time.monotonic()
        result = await operator.command("run", "die", timeout=DEADLINE)
        assert [each.outcome for each in result.outcomes] == ["lost"]
        assert time.monotonic() - begun < 2.5
        tally.held("detected")
        with pytest.raises(zloom.Refused, match="no replica"):
            await operator.set("run", {"learning_rate": 0.5})
        tally.held("told")


@pytest.mark.fault("trainer: a handler that never returns")
async def test_a_handler_that_never_returns(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    if not long_form:
        pytest.skip("in the long form: stalled is said after 5 s")
    async with steered(tmp_path) as (operator, process, log), listening(operator) as events:
        result = await operator.command("run", "hang", timeout=1.0)
        assert not result.settled
        tally.held("told")
        await until(lambda: is_in(operator, "stalled"), "the trainer is stalled", 10.0)
        tally.held("detected")
        [stacks] = await operator.stacks("run")
        functions = [
            frame.function for thread in stacks.threads if thread.training for frame in thread.frames
        ]
        assert any(function.endswith("hang") for function in functions)
        tally.held("told")
        assert "lost" not in events
        begun = time.monotonic()
        process.terminate()
        await asyncio.to_thread(process.wait, DEADLINE)
        assert time.monotonic() - begun < LEAVE
        tally.held("left")
        await until(lambda: is_in(operator, "lost"), "it is lost")
        assert taken(log, "hang") == [True]
        tally.held("once")


@pytest.mark.timeout(200)
@pytest.mark.fault("trainer: a call that holds the GIL for 60 s")
async def test_the_gil_held_for_a_minute(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    if not long_form:
        pytest.skip("in the long form; the end-to-end tests hold it for 7 s")
    async with steered(tmp_path) as (operator, _, log), listening(operator) as events:
        held = asyncio.create_task(operator.command("run", "hold_gil", {"seconds": 60}, timeout=90.0))
        await until(lambda: is_in(operator, "unresponsive"), "the trainer is unresponsive")
        tally.held("detected")
        rates = [1 / (number + 2) for number in range(100)]
        for rate in rates:
            await operator.set("run", {"learning_rate": rate}, wait=False)
        assert (await held).applied_everywhere
        await until(lambda: taken(log, "learning_rate") == rates, "nothing is missed afterwards")
        tally.held("kept", len(rates))
        tally.held("consecutive", len(rates))
        await until(lambda: is_in(operator, "live"), "the trainer is live again")
        assert "lost" not in events
        tally.held("detected")


@pytest.mark.parametrize("workers", ["fork", "forkserver", "spawn"])
@pytest.mark.fault("trainer: killed, and the workers of its DataLoader are not")
async def test_workers_that_survive(tmp_path: Path, tally: Tally, long_form: bool, workers: str) -> None:
    if not long_form:
        pytest.skip("in the long form: torch is loaded three times")
    async with steered(tmp_path, "--workers", workers) as (operator, process, log):
        assert (await operator.set("run", {"learning_rate": 0.5})).applied_everywhere
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [line["pid"] for line in lines] == [process.pid], "a worker took it too"
        tally.held("once")
        process.kill()
        took = await until(lambda: is_in(operator, "lost"), "the trainer is lost")
        assert took < 6.5
        tally.held("detected")
