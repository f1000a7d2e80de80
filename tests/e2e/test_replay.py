"""A run that was steered by hand and recorded, and one that is steered by the recording, end bit-equal."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch

import zloom
from tests.e2e import seeded_trainer
from tests.e2e.forks import FORKS
from tests.e2e.test_lightning_callback import until
from tests.support import DEADLINE, broker_process, free_endpoint
from zloom import recording
from zloom.messages import Reported
from zloom.recording_file import RecordingReader

ZLOOM = [sys.executable, "-m", "zloom"]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    with free_endpoint("ipc") as endpoint, broker_process(tmp_path / "data", endpoint) as broker:
        yield {**os.environ, "ZLOOM_BROKER": broker.endpoint}


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a process; it is killed where it has not ended with the block."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait until a process has ended; return what it said."""
    out, error = process.communicate(timeout=3 * DEADLINE)
    assert process.returncode == code, (out, error)
    return out


def paused(operator: zloom.SyncOperator, run: str, step: int) -> None:
    """Wait until a run is paused at a step."""
    with operator.watch(run) as feed:
        for told in feed:
            if isinstance(told, Reported) and told.status.state == "paused" and told.status.step == step:
                return


def steer_by_hand(operator: zloom.SyncOperator, run: str) -> None:
    """Change this and that, at the first step, twice at one step, while it runs, and with a ramp."""
    paused(operator, run, 1)
    operator.set(run, {"learning_rate": 0.02})
    operator.command(run, "resume", {"steps": 40})
    paused(operator, run, 41)
    operator.set(run, {"optimizer_type": "sgd"})
    operator.set(run, {"optimizer_type": "adamw", "batch_size": 5})
    with pytest.raises(zloom.Refused):
        operator.set(run, {"batch_size": 0})
    taken_back = operator.set(run, {"batch_size": 100}, at_step=300, wait=False)
    operator.set(run, {"learning_rate": 0.05}, at_step=42, wait=False)
    operator.cancel(run, taken_back.revision)
    operator.command(run, "resume", {"steps": 60})
    paused(operator, run, 101)
    ramp = operator.set(run, {"learning_rate": 0.001}, ramps={"learning_rate": zloom.Ramp(100)})
    operator.command(run, "resume", {"steps": 33})
    paused(operator, run, 134)
    assert operator.cancel(run, ramp.revision).outcomes[0].values["learning_rate"] < 0.05
    operator.command(run, "resume", {"steps": 100})
    paused(operator, run, 234)
    operator.rollback(run, 1)
    operator.command(run, "resume")


@contextlib.contextmanager
def training(
    run: str, parameters: Path, environment: dict[str, str], rank: int = 0, ranks: int = 1
) -> Iterator[ForkServerProcess]:
    """Run a trainer that starts paused; it is killed where it has not ended with the block."""
    held = {**environment, "ZLOOM_START_PAUSED": "110"}
    process = FORKS.Process(target=seeded_trainer.main, args=(run, parameters, held, rank, ranks))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def finished(process: ForkServerProcess) -> None:
    process.join(DEADLINE)
    assert process.exitcode == 0


def test_a_replay_ends_with_the_parameters_of_the_recorded_run(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "hand.zloom"
    files = {name: tmp_path / f"{name}.pt" for name in ("hand", "single", "rank0", "rank1")}
    record = [*ZLOOM, "record", "hand", str(file), "--wait", "--json"]
    replay = [*ZLOOM, "replay", str(file), "--wait", "--json", "--run"]
    with (
        started(record, environment) as recorder,
        training("hand", files["hand"], environment) as hand,
        zloom.connect_sync(environment["ZLOOM_BROKER"]) as operator,
    ):
        until(file.exists)  # the recording has begun
        steer_by_hand(operator, "hand")
        finished(hand)
        recorded = json.loads(ended(recorder))
    with (
        started([*replay, "single"], environment) as replayer,
        started([*replay, "ranks"], environment) as replayer_of_ranks,
        training("single", files["single"], environment) as single,
        training("ranks", files["rank0"], environment, 0, 2) as rank0,
        training("ranks", files["rank1"], environment, 1, 2) as rank1,
    ):
        told = [json.loads(ended(each)) for each in (replayer, replayer_of_ranks)]
        for trainer in (single, rank0, rank1):
            finished(trainer)
    monkeypatch.setenv("ZLOOM_BROKER", environment["ZLOOM_BROKER"])
    unsteered = seeded_trainer.train("alone")
    for each in told:
        assert each["exact"], each
        assert [change["step"] for change in each["changes"]] == [1, 41, 41, 42, 101, 134, 234]
    by_hand, *replayed = (torch.load(path) for path in files.values())
    assert all(torch.equal(each[name], value) for each in replayed for name, value in by_hand.items())
    assert not any(torch.equal(unsteered[name], value) for name, value in by_hand.items())
    assert (recorded["complete"], recorded["missed"]) == (True, 0)
    check_recording(file, recorded)


def check_recording(file: Path, told: dict[str, Any]) -> None:
    """See that the file holds what the recorder said, and all that there was from its beginning on."""
    reader = RecordingReader(file)
    records = list(reader.records())
    assert isinstance(records[-1], recording.End)
    assert records[-1].reason == "finished"
    assert [key.baseline for key in reader.header.keys] == [0.01, 8, "adamw"]
    reports = [each for each in records if isinstance(each, recording.Reported)]
    steps = [step for each in reports if "loss" in each.metrics for step in each.metrics["loss"].steps]
    assert steps == list(range(1, 401))
    assert told["points"] == 400
    events = [each.event.kind for each in records if isinstance(each, recording.Happened)]
    assert events[-1] == "finished"
    assert (reader.loss.cut, reader.loss.unknown, told["size"]) == (0, 0, file.stat().st_size)
