"""`weight_decay` and `momentum` against a real Trainer."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.optim import lr_scheduler

from tests.e2e.lightning_models import QUIET, Change, Regression, run
from tests.e2e.test_lightning_optimizer import TwoOptimizers
from zloom.lightning.optimizer import Momentum, OptimizerType, WeightDecay
from zloom.lightning.steer import Steer

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


def groups(*decays: float, **options: Any) -> Any:
    """Configure one AdamW group per decay."""

    def configure(module: LightningModule) -> Any:
        parts = [
            {"params": [parameter], "weight_decay": decay}
            for parameter, decay in zip(module.parameters(), decays, strict=True)
        ]
        return torch.optim.AdamW(parts, lr=0.01, **options)

    return configure


def decays(fitted: Trainer) -> list[float]:
    return [float(group["weight_decay"]) for group in fitted.optimizers[0].param_groups]


@pytest.mark.parametrize(
    ("before", "values", "after"),
    [
        ((0.1, 0.0), (0.2,), [0.2, 0.0]),
        ((0.0, 0.1), (0.2,), [0.0, 0.2]),
        ((0.1, 0.02), (0.2,), [0.2, 0.04]),
        ((0.0, 0.0), (0.2,), [0.2, 0.2]),
        ((0.1, 0.0), (0.0, 0.3), [0.3, 0.0]),
    ],
)
def test_groups_keep_their_proportions_of_decay(before: Any, values: Any, after: list[float]) -> None:
    changes = [Change(WeightDecay(), value, after=index) for index, value in enumerate(values, 1)]
    fitted = run(Regression(groups(*before)), *changes)
    assert all(change.error is None for change in changes)
    assert decays(fitted) == pytest.approx(after)
    for change in reversed(changes):
        assert change.undo is not None
        change.undo()
    assert decays(fitted) == pytest.approx(list(before))
    assert not any("zloom_decay_share" in group for group in fitted.optimizers[0].param_groups)


def test_a_decay_of_zero_remembers_its_groups_through_a_change_of_the_optimizer() -> None:
    steer = WeightDecay()
    changes = [
        Change(steer, 0.0, after=1),
        Change(OptimizerType(), "sgd", after=1),
        Change(steer, 0.3, after=2),
    ]
    fitted = run(Regression(groups(0.1, 0.0)), *changes)
    assert [change.error for change in changes] == [None] * 3
    assert decays(fitted) == [0.3, 0.0]


def test_the_decay_is_the_one_that_trains() -> None:
    steered, reference = Regression(groups(0.1, 0.0)), Regression(groups(0.5, 0.0))
    run(steered, Change(WeightDecay(), 0.5, after=0))
    run(reference)
    assert steered.losses == reference.losses


@pytest.mark.parametrize(
    ("name", "options"),
    [("sgd", {"momentum": 0.5}), ("rmsprop", {"momentum": 0.5}), ("adam", {"betas": (0.5, 0.999)})],
)
def test_momentum_is_the_one_that_trains(name: str, options: dict[str, Any]) -> None:
    cls: Any = {"sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam}[name]
    steered, reference = (
        Regression(lambda m: cls(m.parameters(), lr=0.01)),
        Regression(lambda m: cls(m.parameters(), lr=0.01, **options)),
    )
    fitted = run(steered, Change(Momentum(), 0.5, after=0))
    run(reference)
    assert Momentum().get(fitted) == 0.5
    assert steered.losses == reference.losses


@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.RMSprop])
def test_momentum_can_come_and_go_in_mid_training(cls: Any) -> None:
    steer = Momentum()
    changes = [Change(steer, value, after=after) for value, after in ((0.8, 2), (0.0, 4), (0.8, 6))]
    module = Regression(lambda m: cls(m.parameters(), lr=0.001))
    fitted = run(module, *changes, max_epochs=3)
    assert [change.error for change in changes] == [None] * 3
    assert module.losses[-4:] < module.losses[:4]
    buffers = [state["momentum_buffer"].clone() for state in fitted.optimizers[0].state.values()]
    steer.apply(fitted, 0.0)()
    after = [state["momentum_buffer"] for state in fitted.optimizers[0].state.values()]
    assert all(torch.equal(old, new) for old, new in zip(buffers, after, strict=True))


def test_a_stale_buffer_is_not_used_again() -> None:
    steer = Momentum()
    module = Regression(lambda m: torch.optim.SGD(m.parameters(), lr=0.001, momentum=0.9))
    fitted = run(module, Change(steer, 0.0, after=2))
    assert not any("momentum_buffer" in state for state in fitted.optimizers[0].state.values())


def refused(steer: Steer, value: float, module: LightningModule) -> str:
    change = Change(steer, value, after=1)
    run(module, change)
    return str(change.error)


def test_what_cannot_mean_one_optimizer_is_refused() -> None:
    assert "2 optimizers" in refused(WeightDecay(), 0.1, TwoOptimizers())
    assert "2 optimizers" in refused(Momentum(), 0.1, TwoOptimizers())


def test_a_momentum_that_a_schedule_cycles_is_refused() -> None:
    def configure(module: LightningModule) -> Any:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
        schedule = lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    assert "cycle_momentum=False" in refused(Momentum(), 0.5, Regression(configure))


def test_nesterov_without_momentum_is_the_plain_gradient() -> None:
    steered = Regression(lambda m: torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9, nesterov=True))
    reference = Regression(lambda m: torch.optim.SGD(m.parameters(), lr=0.01))
    run(steered, Change(Momentum(), 0.0, after=0))
    run(reference)
    assert steered.losses == reference.losses
