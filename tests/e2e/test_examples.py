"""The examples that are plain loops, run as their docstrings say."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support import DEADLINE, broker_process, free_endpoint
from zloom.client import Result, SyncOperator, connect_sync

EXAMPLES = Path(__file__).parents[2] / "examples"
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")

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
    return len(ranks) == ranks[0].world_size and all(one.step > 0 for one in ranks)


def one_step(result: Result, ranks: int = 2) -> int | None:
    """Return the step at which all ranks applied it."""
    assert [outcome.outcome for outcome in result.outcomes] == ["applied"] * ranks, result
    (step,) = {outcome.step for outcome in result.outcomes}
    return step


def test_the_plain_loop_is_steered(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    command = str(EXAMPLES / "train_loop.py"), "--checkpoint-dir", folder
    with started(tmp_path, "loop-lm", *command) as (operator, child):
        one_step(operator.set("loop-lm", {"learning_rate": 1e-4, "batch_size": 4}), ranks=1)
        (saved,) = operator.checkpoint("loop-lm").outcomes
        assert "embed_byte.weight" in torch.load(saved.detail)
        assert operator.pause("loop-lm").applied_everywhere
        step = one_step(operator.stop("loop-lm"), ranks=1)
        output, _ = child.communicate(timeout=DEADLINE)
    assert (output, child.returncode) == (f"stopped at step {step}\n", 0)


def test_ranks_with_local_sgd_take_each_change_at_one_step(tmp_path: Path) -> None:
    (tmp_path / "0.txt").write_bytes(bytes(range(256)))  # rank 1 has none
    command = "-m", *TORCHRUN, str(EXAMPLES / "train_ddp.py")
    with started(tmp_path, "ddp-lm", *command) as (operator, child):
        one_step(operator.set("ddp-lm", {"sync_every": 4, "learning_rate": 0.1}))
        refused = operator.set("ddp-lm", {"text": str(tmp_path), "sync_every": 2})
        assert {outcome.rank: outcome.outcome for outcome in refused.outcomes} == {
            0: "aborted",
            1: "rejected",
        }
        assert "1.txt" in refused.outcomes[0].error
        assert "1.txt" in refused.outcomes[1].error
        assert operator.pause("ddp-lm").applied_everywhere
        step = one_step(operator.stop("ddp-lm"))
        output, _ = child.communicate(timeout=DEADLINE)
    assert sorted(output.splitlines()) == [f"rank {rank} stopped at step {step}" for rank in (0, 1)]
    assert child.returncode == 0
