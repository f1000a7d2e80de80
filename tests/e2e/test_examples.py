"""The examples that are plain loops, run as their docstrings say, and as `make demo` steers them."""

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from examples.demo_ranks import RAMP, RANKS, steer_ranks
from tests.support import DEADLINE, broker_process, free_endpoint
from zloom.client import Result, SyncOperator, connect, connect_sync

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def started(tmp_path: Path, run: str, *command: str) -> Iterator[tuple[SyncOperator, subprocess.Popen[str]]]:
    """A broker, an example that trains, and an operator."""
    with (
        free_endpoint("ipc") as bind,
        broker_process(tmp_path / "data", bind) as broker,
        connect_sync(broker.endpoint) as operator,
        (tmp_path / "err").open("w") as errors,
    ):
        environment = os.environ | {"ZLOOM_BROKER": broker.endpoint, "PYTHONPATH": str(EXAMPLES.parent)}
        whole = (sys.executable, *command)
        with subprocess.Popen(
            whole, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as child:
            try:
                _await_steps(operator, run, child)
                yield operator, child
            finally:
                child.terminate()


def _await_steps(operator: SyncOperator, run: str, child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 2 * DEADLINE  # torch is imported by three processes at once
    while not all_train(operator, run):
        assert child.poll() is None, "the example ended by itself"
        assert time.monotonic() < deadline, "no step was made"
        time.sleep(0.05)


def all_train(operator: SyncOperator, run: str) -> bool:
    if run not in {one.run for one in operator.runs()}:
        return False
    ranks = operator.replicas(run)
    return len(ranks) == ranks[0].world_size and all((one.step or 0) > 0 for one in ranks)


def one_step(result: Result) -> int | None:
    """Return the step at which the one replica applied it."""
    (outcome,) = result.outcomes
    assert outcome.outcome == "applied", result
    return outcome.step


def test_the_plain_loop_is_steered(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    command = str(EXAMPLES / "train_loop.py"), "--checkpoint-dir", folder
    with started(tmp_path, "loop-lm", *command) as (operator, child):
        one_step(operator.set("loop-lm", {"learning_rate": 1e-4, "batch_size": 4}))
        (saved,) = operator.checkpoint("loop-lm").outcomes
        assert "embed_byte.weight" in torch.load(saved.detail)
        assert operator.pause("loop-lm").applied_everywhere
        step = one_step(operator.stop("loop-lm"))
        output, _ = child.communicate(timeout=DEADLINE)
    assert (output, child.returncode) == (f"stopped at step {step}\n", 0)


@pytest.mark.timeout(300)  # some fifteen processes start, one after the other
async def test_the_demo_s_ranks_train_with_each_change_from_the_steps_on_that_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.StringIO()
    with free_endpoint("ipc") as bind, broker_process(tmp_path / "data", bind) as broker:
        monkeypatch.setenv("ZLOOM_BROKER", broker.endpoint)
        monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
        async with connect(broker.endpoint) as operator:
            points, changes = await steer_ranks(operator, Console(file=printed, width=200), tmp_path)
    assert [change.mode for change in changes] == ["next", "consistent", "at a step", "ramp"]
    trained_with = [dict(each) for each in points]
    for rank, rates in enumerate(trained_with):
        for change in changes[:3]:
            step, value = change.steps[rank], float(change.what.split()[0].removeprefix("learning_rate="))
            assert rates[step - 1] != value == rates[step]
        assert 0.5 not in rates.values(), "what one rank refused is kept by none"
    begin = changes[3].steps[0]
    of_ramp = [[rates[step] for step in range(begin, begin + RAMP + 1)] for rates in trained_with]
    assert of_ramp[0] == of_ramp[1]
    assert sorted(set(of_ramp[0]), reverse=True) == of_ramp[0], "it falls from step to step"
    assert "rank 0  aborted: rank 1: text: FileNotFoundError" in printed.getvalue()
    assert "rank 1  rejected: text: FileNotFoundError" in printed.getvalue()
    stopped = (line.partition(" stopped at ") for line in (tmp_path / "ranks.log").read_text().splitlines())
    assert len({step for _, separator, step in stopped if separator}) == 1
    assert RANKS == len(points) == 2
