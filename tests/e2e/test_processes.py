"""Guarantees end to end: a real broker, real trainers and a real operator, in processes that are killed."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

import zloom
from tests.e2e.loop_trainer import PROGRESS
from tests.support import DEADLINE, broker_process, free_endpoint
from zloom.messages import Happened
from zloom.model import ReplicaStatus, ThreadStack

TRAINER = Path(__file__).with_name("loop_trainer.py")


Steered = tuple[zloom.Operator, subprocess.Popen[bytes]]


@pytest.fixture
def endpoint() -> Iterator[str]:
    with free_endpoint("ipc") as endpoint:
        yield endpoint


@contextlib.contextmanager
def trainer(
    endpoint: str, log: Path, *arguments: str, stderr: IO[str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(TRAINER), endpoint, str(log), *arguments]
    with subprocess.Popen(command, stderr=stderr) as process:
        try:
            yield process
        finally:
            process.kill()


def noted(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


async def until(condition: Callable[[], Awaitable[bool]], what: str, deadline: float = DEADLINE) -> float:
    """Ask again until it holds; return the seconds that it took."""
    begun = time.monotonic()
    while not await condition():
        assert time.monotonic() - begun < deadline, f"not within {deadline} s: {what}"
        await asyncio.sleep(0.02)
    return time.monotonic() - begun


async def the_replica(operator: zloom.Operator) -> ReplicaStatus | None:
    present = [r for r in await operator.replicas("loop") if r.state not in ("lost", "finished")]
    return present[0] if present else None


async def trains(operator: zloom.Operator) -> None:
    async def training() -> bool:
        replica = await the_replica(operator)
        return replica is not None and (replica.step or 0) > 0

    await until(training, "the trainer reports a step")


async def is_in(operator: zloom.Operator, state: str) -> bool:
    return any(replica.state == state for replica in await operator.replicas("loop"))


async def told_of(operator: zloom.Operator, kind: str, cause: Callable[[], object]) -> float:
    """Cause an event of the run; return the seconds until then, by the broker's clock."""
    async with asyncio.timeout(DEADLINE), operator.watch("loop") as feed:
        caused = time.time()
        cause()
        async for told in feed:
            if isinstance(told, Happened) and told.event.kind == kind:
                return told.event.at - caused
    raise AssertionError("what is watched has no end")


@contextlib.asynccontextmanager
async def steered(tmp_path: Path, endpoint: str) -> AsyncIterator[Steered]:
    """A broker, a trainer that trains, and an operator."""
    with broker_process(tmp_path / "data", endpoint), trainer(endpoint, tmp_path / "log") as process:
        async with zloom.connect(endpoint) as operator:
            await trains(operator)
            yield operator, process


async def test_a_change_is_applied_at_a_step_and_answered(tmp_path: Path, endpoint: str) -> None:
    async with steered(tmp_path, endpoint) as (operator, process):
        result = await operator.set("loop", {"learning_rate": 0.5, "count": 3})
        assert result.applied_everywhere
        assert result.revision == 1
        applied = [(line["key"], line["value"], line["step"]) for line in noted(tmp_path / "log")]
        step = result.outcomes[0].step
        assert applied == [("learning_rate", 0.5, step), ("count", 3, step)]
        await operator.stop("loop")
        assert process.wait(DEADLINE) == 0


@pytest.mark.fault("broker: killed in a burst, end to end", "kept", "consecutive", "once", "converged")
async def test_g1_g4_g5_broker_killed_in_a_burst(tmp_path: Path, endpoint: str) -> None:
    """What was accepted is kept, each request has one effect, and the trainer goes on meanwhile."""
    data, log = tmp_path / "data", tmp_path / "log"
    requests = {f"request-{number}": number for number in range(1, 101)}
    with trainer(endpoint, log) as process, contextlib.ExitStack() as brokers:
        broker = brokers.enter_context(broker_process(data, endpoint))
        async with zloom.connect(endpoint) as operator:
            await trains(operator)

            async def change(request_id: str, count: int) -> zloom.Result:
                return await operator.set("loop", {"count": count}, request_id=request_id, timeout=DEADLINE)

            burst = [asyncio.create_task(change(*request)) for request in requests.items()]
            await asyncio.wait(burst, return_when=asyncio.FIRST_COMPLETED)
            accepted = [task.result().revision for task in burst if task.done()]
            broker.process.kill()
            broker.process.wait()
            brokers.enter_context(broker_process(data, endpoint))
            results = await asyncio.gather(*burst)
            assert all(result.applied_everywhere for result in results)
            assert sorted(result.revision for result in results) == list(range(1, 101))
            assert set(accepted) <= {result.revision for result in results}
            history = sorted(await operator.history("loop"), key=lambda entry: entry.revision.revision)
            assert [entry.revision.changes["count"] for entry in history] == [
                line["value"] for line in noted(log) if line.get("key") == "count"
            ]
            repeated = [await change(*request) for request in list(requests.items())[:5]]
            assert [result.revision for result in repeated] == [result.revision for result in results[:5]]
            assert all(result.duplicate for result in repeated)
            await operator.stop("loop")
        assert process.wait(DEADLINE) == 0


NOTICED = "no broker answers"
"""What a weavelet says once it has given up a connection, three seconds into an outage."""

HELD_UP = 1.0
"""Seconds that no call of a weavelet takes, and a machine under load hardly makes of one."""


@pytest.mark.parametrize("outage", ["killed", "stopped", "absent"])
@pytest.mark.fault("broker: killed, stopped or absent while a trainer trains", "converged")
async def test_g8_training_goes_on_without_a_broker(tmp_path: Path, endpoint: str, outage: str) -> None:
    """A broker that dies, that hangs or that was never there holds up no step, and is found when it comes."""
    data, log, progress, said = (tmp_path / name for name in ("data", "log", "progress", "said"))

    async def noticed() -> bool:
        return NOTICED in said.read_text()

    with contextlib.ExitStack() as stack:
        stderr = stack.enter_context(said.open("w"))
        stack.enter_context(trainer(endpoint, log, "--progress", str(progress), stderr=stderr))
        if outage != "absent":
            broker = stack.enter_context(broker_process(data, endpoint))
            async with zloom.connect(endpoint) as operator:
                await trains(operator)
            stack.callback(broker.process.send_signal, signal.SIGCONT)  # or a failure could not end it
            broker.process.send_signal(signal.SIGKILL if outage == "killed" else signal.SIGSTOP)
        await keeps_stepping(progress, 100)
        await until(noticed, "the trainer's weavelet notices the outage")
        await keeps_stepping(progress, 100)
        if outage == "stopped":
            broker.process.send_signal(signal.SIGCONT)
        else:
            stack.enter_context(broker_process(data, endpoint))
        async with zloom.connect(endpoint) as operator:
            await trains(operator)
            assert (await operator.set("loop", {"count": 1})).applied_everywhere
            assert [replica.state for replica in await operator.replicas("loop")] == ["live"]


async def keeps_stepping(progress: Path, steps: int) -> None:
    """See the trainer begin some more steps, none of which its weavelet held up. No broker is asked."""

    async def begun() -> bool:
        return read_progress(progress)[0] >= first + steps

    first, _ = read_progress(progress)
    await until(begun, f"the trainer goes on from step {first}")
    _, longest = read_progress(progress)
    assert longest < HELD_UP, f"a call of the weavelet took {longest:.1f} s"


def read_progress(path: Path) -> tuple[int, float]:
    written = path.read_bytes() if path.exists() else b""
    step, longest = PROGRESS.unpack(written) if written else (0, 0.0)
    return step, longest


@pytest.mark.fault("trainer: kill -9", "detected")
async def test_g10_killed_trainer_is_lost_within_two_seconds(tmp_path: Path, endpoint: str) -> None:
    async with steered(tmp_path, endpoint) as (operator, process):
        process.kill()
        took = await until(lambda: is_in(operator, "lost"), "the trainer is lost")
        assert took < 2.0


@pytest.mark.fault("trainer: kill -9 with a forked child that survives", "detected")
async def test_g10_killed_trainer_whose_child_survives_is_lost_within_six_seconds(
    tmp_path: Path, endpoint: str
) -> None:
    """The child holds the connection open; only libzmq's heartbeat ends it."""
    log = tmp_path / "log"
    with broker_process(tmp_path / "data", endpoint), trainer(endpoint, log, "--fork") as process:
        async with zloom.connect(endpoint) as operator:
            await trains(operator)
            [child] = [line["value"] for line in noted(log) if line["key"] == "child"]
            try:
                took = await told_of(operator, "lost", process.kill)
                os.kill(child, 0)  # it lives
            finally:
                os.kill(child, signal.SIGKILL)
            assert took < 6.5


async def test_g3_new_incarnation_gets_the_config_and_no_old_command(tmp_path: Path, endpoint: str) -> None:
    log = tmp_path / "log"
    async with steered(tmp_path, endpoint) as (operator, process):
        await operator.set("loop", {"learning_rate": 0.25})
        assert (await operator.pause("loop")).applied_everywhere
        process.kill()
        await until(lambda: is_in(operator, "lost"), "the trainer is lost")
        log.unlink()
        with trainer(endpoint, log) as second:
            await trains(operator)

            async def took_something() -> bool:
                return bool(noted(log))

            # It trains before it has heard of the broker, and takes the config when that has come.
            await until(took_something, "the new trainer takes a value")
            assert [(line["key"], line["value"]) for line in noted(log)] == [("learning_rate", 0.25)]
            replica = await the_replica(operator)
            assert replica is not None
            assert replica.state == "live"
            await operator.stop("loop")
            assert second.wait(DEADLINE) == 0


@pytest.mark.fault("trainer: SIGSTOP and SIGCONT", "detected", "told", "converged")
async def test_g10_stopped_process_comes_back_by_itself(tmp_path: Path, endpoint: str) -> None:
    """A stopped process is lost within 6 s; when it goes on, it catches up and amends its outcome."""
    async with steered(tmp_path, endpoint) as (operator, process):
        took = await told_of(operator, "lost", lambda: process.send_signal(signal.SIGSTOP))
        assert took < 6.5
        with pytest.raises(zloom.Refused, match="no replica"):
            await operator.set("loop", {"count": 1})
        process.send_signal(signal.SIGCONT)
        await until(lambda: is_in(operator, "live"), "the trainer is live again")
        assert (await operator.set("loop", {"count": 2})).applied_everywhere


@pytest.mark.fault("trainer: a call that holds the GIL for 7 s", "detected")
async def test_g10_process_that_holds_the_gil_is_never_lost(tmp_path: Path, endpoint: str) -> None:
    async with steered(tmp_path, endpoint) as (operator, _):
        events: list[str] = []

        async def follow() -> None:
            async for told in operator.watch("loop"):
                if isinstance(told, Happened):
                    events.append(told.event.kind)

        following = asyncio.create_task(follow())
        held = asyncio.create_task(operator.command("loop", "hold_gil", {"seconds": 7}, timeout=DEADLINE))
        await until(lambda: is_in(operator, "unresponsive"), "the trainer is unresponsive")

        async def seen() -> bool:
            [stacks] = await operator.stacks("loop")
            assert not held.done(), "its stack is told while the GIL is held"
            return "hold_gil" in training_functions(stacks.threads)

        await until(seen, "its watchdog has written where it is")
        assert (await held).applied_everywhere
        await until(lambda: is_in(operator, "live"), "the trainer is live again")
        assert "lost" not in events

        async def told() -> bool:
            [stacks] = await operator.stacks("loop")
            assert stacks.threads
            return stacks.hold is not None and stacks.hold.seconds >= 7

        await until(told, "it tells what happened")
        following.cancel()


def training_functions(threads: Sequence[ThreadStack]) -> list[str]:
    """Return the names of the functions that the training thread is in."""
    frames = [frame for thread in threads if thread.training for frame in thread.frames]
    return [frame.function.rpartition(".")[2] for frame in frames]


@pytest.mark.fault("trainer: SIGTERM with the broker dead", "left")
async def test_g12_trainer_leaves_within_two_seconds_of_sigterm(tmp_path: Path, endpoint: str) -> None:
    with trainer(endpoint, tmp_path / "log") as process:
        with broker_process(tmp_path / "data", endpoint) as broker:
            async with zloom.connect(endpoint) as operator:
                await trains(operator)
            broker.process.kill()
        begun = time.monotonic()
        process.terminate()
        assert process.wait(DEADLINE) == 0
        assert time.monotonic() - begun < 2.0


async def test_every_replica_on_a_failed_device_is_told(tmp_path: Path, endpoint: str) -> None:
    async with steered(tmp_path, endpoint) as (operator, _):

        async def registered() -> bool:
            return bool(await operator.devices())

        await until(registered, "the device is registered")
        [report] = await operator.devices()
        assert await operator.fail_device(report.device.id, "XID 79") == report.replicas

        async def told() -> bool:
            return any(line["key"] == "failure" for line in noted(tmp_path / "log"))

        await until(told, "the trainer is told")
