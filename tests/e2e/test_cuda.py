"""Trainings on a real GPU, steered through a real broker."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.e2e.lightning_models import QUIET, Change, Regression, run
from tests.e2e.test_lightning_callback import until
from tests.e2e.test_loop_steering import DENSE
from tests.support import DEADLINE, operator_of
from zloom.client import SyncOperator
from zloom.lightning.optimizer import LearningRate, OptimizerType
from zloom.messages import Happened
from zloom.model import ReplicaStatus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    *(pytest.mark.filterwarnings(line) for line in QUIET),
]

SECOND = 2_000_000_000
"""Cycles of a GPU, about."""


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[SyncOperator]:
    with operator_of(tmp_path) as connected:
        yield connected


@contextlib.contextmanager
def training(operator: SyncOperator, *words: str) -> Iterator[None]:
    """Have a trainer train until the end of the block, and end well."""
    command = [sys.executable, "-m", "tests.e2e.cuda_trainer", operator.endpoint, *words]
    with subprocess.Popen(command) as process:
        try:
            until(lambda: any((each.step or 0) > 0 for each in operator.replicas("cuda")))
            yield
            operator.command("cuda", "stop")
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


def status(operator: SyncOperator) -> ReplicaStatus:
    (replica,) = operator.replicas("cuda")
    return replica


def test_an_eager_run_takes_changes_of_the_optimizer_and_goes_on(operator: SyncOperator) -> None:
    with training(operator):
        assert operator.set("cuda", {"learning_rate": 3e-4, "weight_decay": 0.0}).applied_everywhere
        until(lambda: status(operator).metrics.get("rate") == 3e-4)
        for name in ("sgd", "adam", "adamw"):
            assert operator.set("cuda", {"optimizer_type": name}).applied_everywhere
            step = status(operator).step or 0
            until(lambda step=step: (status(operator).step or 0) > step + 100)  # type: ignore[misc]
        assert status(operator).metrics["loss"] < 1.2


def test_a_captured_graph_uses_the_rate_that_was_set(operator: SyncOperator) -> None:
    """The graph reads the tensor that it was captured with."""
    with training(operator, "--graph"):
        assert operator.set("cuda", {"learning_rate": 1e-30}).applied_everywhere
        until(lambda: status(operator).metrics.get("rate") == pytest.approx(1e-30))
        before = status(operator)
        until(lambda: (status(operator).step or 0) > (before.step or 0) + 500)
        assert status(operator).metrics["weight"] == before.metrics["weight"], "nothing moves by so little"
        assert operator.set("cuda", {"learning_rate": 1e-3}).applied_everywhere
        until(lambda: status(operator).metrics["weight"] != before.metrics["weight"])


def test_the_card_is_seen_and_its_memory_nearly_full_is_told(operator: SyncOperator) -> None:
    with training(operator), operator.watch("cuda") as feed:
        (device,) = operator.devices()
        assert device.device.id.startswith(("GPU-", "MIG-"))
        assert device.device.memory_total > 2**30
        for command, kind in (("fill", "device_trouble"), ("empty", "device_recovered")):
            operator.command("cuda", command, {"share": 0.98} if command == "fill" else {})
            told = next(each.event for each in feed if isinstance(each, Happened) and each.event.kind == kind)
            assert device.device.id in told.device
        (device,) = operator.devices()
        assert device.status is not None
        assert device.status.memory_used is not None
        assert 0 < device.status.memory_used < 0.9 * device.device.memory_total


def test_a_failed_card_is_told_to_the_run_that_is_on_it(operator: SyncOperator) -> None:
    with training(operator):
        (device,) = operator.devices()
        assert operator.fail_device(device.device.id, "pulled") == [status(operator).replica]


def test_the_line_that_waits_for_the_card_is_found(operator: SyncOperator) -> None:
    with training(operator):
        operator.command("cuda", "wait", {"cycles": 4 * SECOND}, wait=False)
        until(lambda: "torch.cuda.synchronize()" in _lines(operator))
        assert status(operator).state == "live"


def _lines(operator: SyncOperator) -> set[str]:
    (stacks,) = operator.stacks("cuda")
    return {frame.source for thread in stacks.threads for frame in thread.frames}


@pytest.mark.parametrize("name", DENSE)
def test_an_optimizer_that_is_changed_keeps_its_state_on_the_card(name: str) -> None:
    on_card = Devices()
    change = Change(OptimizerType(), name, after=2)
    rate = Change(LearningRate(), 0.004, after=4)
    fitted = run(Regression(), change, rate, callbacks=[on_card], accelerator="gpu", max_epochs=2)
    assert (change.error, rate.error) == (None, None)
    assert on_card.kinds <= {"cuda"}  # SGD has no state
    assert float(fitted.optimizers[0].param_groups[0]["lr"]) == 0.004


class Devices(Callback):
    """Notes where the state of the optimizer is, while it trains."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()

    def on_train_batch_end(self, trainer: object, *_: object) -> None:
        (optimizer,) = trainer.optimizers  # type: ignore[attr-defined]
        for state in optimizer.state.values():
            tensors = (each for each in state.values() if isinstance(each, torch.Tensor) and each.dim() > 0)
            self.kinds |= {each.device.type for each in tensors}
