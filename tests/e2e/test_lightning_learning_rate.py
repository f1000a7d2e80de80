"""`learning_rate`: a changed run equals one that had the rate from the start, on every torch scheduler."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.optim import Optimizer, lr_scheduler
from torch.optim.swa_utils import SWALR

from tests.e2e.lightning_models import QUIET, Change, Manual, Regression, loader, run
from tests.e2e.test_lightning_optimizer import TwoOptimizers
from zloom.errors import CannotSteer
from zloom.lightning.optimizer import LearningRate, OptimizerType
from zloom.torch.learning_rate import effective_rate

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]

Make = Callable[[Optimizer, float], Any]


def sequence(optimizer: Optimizer, lr: float) -> Any:
    warm_up = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, 12, eta_min=lr / 10)
    return lr_scheduler.SequentialLR(
        optimizer, [warm_up, lr_scheduler.ExponentialLR(optimizer, 0.9), cosine], [4, 10]
    )


def nested(optimizer: Optimizer, lr: float) -> Any:
    """Two levels; torch's own constructors warn at a sequence in a sequence."""
    return lr_scheduler.ChainedScheduler([sequence(optimizer, lr), lr_scheduler.StepLR(optimizer, 5, 0.7)])


def chain(optimizer: Optimizer, lr: float) -> Any:
    return lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(optimizer, 0.3, total_iters=6), lr_scheduler.ExponentialLR(optimizer, 0.97)]
    )


SCHEDULES: dict[str, Make] = {
    "LambdaLR": lambda o, lr: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "MultiplicativeLR": lambda o, lr: lr_scheduler.MultiplicativeLR(o, lambda step: 0.95),
    "StepLR": lambda o, lr: lr_scheduler.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o, lr: lr_scheduler.MultiStepLR(o, [2, 7, 15], 0.3),
    "ConstantLR": lambda o, lr: lr_scheduler.ConstantLR(o, 0.3, 10),
    "LinearLR": lambda o, lr: lr_scheduler.LinearLR(o, 0.1, total_iters=15),
    "ExponentialLR": lambda o, lr: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o, lr: lr_scheduler.PolynomialLR(o, 18, 2.0),
    "CosineAnnealingLR": lambda o, lr: lr_scheduler.CosineAnnealingLR(o, 9, eta_min=lr / 20),
    "CosineAnnealingWarmRestarts": lambda o, lr: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2, lr / 20),
    "CyclicLR": lambda o, lr: lr_scheduler.CyclicLR(
        o, lr, lr * 4, 3, mode="triangular2", cycle_momentum=False
    ),
    "OneCycleLR": lambda o, lr: lr_scheduler.OneCycleLR(o, lr, total_steps=30, cycle_momentum=False),
    "OneCycleLR-3": lambda o, lr: lr_scheduler.OneCycleLR(o, lr, total_steps=30, three_phase=True),
    "SequentialLR": sequence,
    "ChainedScheduler": chain,
    "Chained-Sequential": nested,
    "Sequential-OneCycle": lambda o, lr: lr_scheduler.SequentialLR(
        o, [lr_scheduler.OneCycleLR(o, lr, total_steps=8), lr_scheduler.ExponentialLR(o, 0.9)], [7]
    ),
    "SWALR": lambda o, lr: SWALR(o, swa_lr=lr / 5, anneal_epochs=10),
    "ReduceLROnPlateau": lambda o, lr: lr_scheduler.ReduceLROnPlateau(
        o, factor=0.5, patience=1, min_lr=lr / 5
    ),
}


class Flat(Regression):
    """Logs a metric that never improves, so that a plateau schedule reduces whatever the rate is."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.log("flat", 1.0)
        return super().training_step(batch, batch_idx)


def with_schedule(make: Make, lr: float, tensor: bool = False) -> Callable[[LightningModule], Any]:
    """Configure two groups, the second at half the rate of the first (where the schedule allows it)."""

    def configure(module: LightningModule) -> Any:
        rate: Any = torch.tensor(lr, dtype=torch.float64) if tensor else lr
        optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=0.5)
        schedule = make(optimizer, lr)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"}
            | ({"monitor": "flat"} if isinstance(module, Flat) else {}),
        }

    return configure


def test_every_scheduler_of_torch_is_tried() -> None:
    ours = {"LRScheduler", "_LRScheduler"}
    known = {
        name
        for name, thing in vars(lr_scheduler).items()
        if isinstance(thing, type) and issubclass(thing, lr_scheduler.LRScheduler)
    }
    assert known - ours <= SCHEDULES.keys()


@pytest.mark.parametrize(("after", "tensor"), [(0, False), (6, False), (6, True), (13, False)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_changed_run_goes_on_as_if_the_rate_had_always_been_that(
    name: str, after: int, tensor: bool
) -> None:
    make = SCHEDULES[name]
    steer = LearningRate()
    steered, reference = (Flat(with_schedule(make, lr, tensor)) for lr in (0.01, 0.03))
    change = Change(steer, 0.03, after=after)
    fitted = run(steered, change, max_epochs=5, at={0: steer.get})
    expected = run(reference, max_epochs=5, at={0: steer.get})
    assert change.error is None
    assert steer.get(fitted) == pytest.approx(0.03, rel=1e-12)
    applied = after if after == 0 else after - 1
    assert steered.rates[applied + 1 :] == pytest.approx(reference.rates[applied + 1 :], rel=1e-12, abs=1e-18)
    assert len(set(reference.rates)) > 1
    assert _last(fitted) == pytest.approx(_last(expected), rel=1e-12)


def _last(fitted: Any) -> list[float]:
    return [float(rate) for rate in fitted.lr_scheduler_configs[0].scheduler.get_last_lr()]


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_change_undone_at_once_leaves_no_trace(name: str, tensor: bool) -> None:
    steered, reference = (Flat(with_schedule(SCHEDULES[name], 0.01, tensor)) for _ in range(2))
    steer = LearningRate()
    run(steered, max_epochs=3, at={0: steer.get, 5: lambda t: steer.apply(t, 0.7)()})
    run(reference, max_epochs=3, at={0: steer.get})
    assert steered.rates == reference.rates
    assert steered.losses == reference.losses


def test_groups_keep_their_proportions_and_without_a_schedule_the_rate_is_the_rate() -> None:
    def configure(module: LightningModule) -> Any:
        first, second = module.parameters()
        return torch.optim.SGD([{"params": [first], "lr": 0.02}, {"params": [second], "lr": 0.005}])

    change = Change(LearningRate(), 0.04, after=2)
    fitted = run(Regression(configure), change)
    assert [group["lr"] for group in fitted.optimizers[0].param_groups] == pytest.approx(
        [0.04, 0.01], rel=1e-12
    )
    assert effective_rate(fitted.optimizers[0]) == pytest.approx(0.04)


@pytest.mark.parametrize("name", ["LambdaLR", "OneCycleLR", "ReduceLROnPlateau"])
def test_the_rate_is_the_very_number_that_was_asked_for(name: str) -> None:
    """Operators are told the value, and ranks agree on it: not on one that a ratio has rounded."""
    asked = [0.4464, 0.4877, 0.4907, 0.1238]  # each differs from the last times their ratio
    got: list[float] = []
    steer = LearningRate()

    def ask(trainer: Any) -> None:
        steer.apply(trainer, asked[len(got)])
        got.append(steer.get(trainer))

    run(
        Flat(with_schedule(SCHEDULES[name], 0.1, tensor=False)), max_epochs=2, at=dict.fromkeys(range(4), ask)
    )
    assert got == asked


def test_it_applies_to_the_very_batch() -> None:
    module = Regression()
    change = Change(LearningRate(), 0.5, after=0)
    run(module, change)
    assert module.rates == [0.5] * 4


@pytest.mark.parametrize("accumulate", [1, 2])
def test_with_accumulation_and_in_manual_optimization(accumulate: int) -> None:
    make = SCHEDULES["CosineAnnealingLR"]
    cases: list[tuple[Any, dict[str, Any]]] = [
        (Regression, {"accumulate_grad_batches": accumulate}),
        (Manual, {}),
    ]
    for kind, options in cases:
        steered, reference = (kind(with_schedule(make, lr)) for lr in (0.01, 0.03))
        run(steered, Change(LearningRate(), 0.03, after=3), max_epochs=3, **options)
        run(reference, max_epochs=3, **options)
        assert steered.rates[3:] == pytest.approx(reference.rates[3:], rel=1e-12)


def test_it_follows_a_change_of_the_optimizer() -> None:
    make = SCHEDULES["CosineAnnealingLR"]
    steered, reference = (Regression(with_schedule(make, lr)) for lr in (0.01, 0.03))
    changes = Change(OptimizerType(), "adam", after=2), Change(LearningRate(), 0.03, after=2)
    run(steered, *changes, max_epochs=3)
    run(reference, max_epochs=3)
    assert all(change.error is None for change in changes)
    assert steered.rates[3:] == pytest.approx(reference.rates[3:], rel=1e-12)


def test_several_optimizers_and_a_rate_of_zero_are_refused() -> None:
    several = Change(LearningRate(), 0.1)
    run(TwoOptimizers(), several)
    assert isinstance(several.error, CannotSteer)
    assert "2 optimizers" in str(several.error)

    frozen = Change(LearningRate(), 0.1)
    run(Regression(lambda m: torch.optim.SGD(m.parameters(), lr=0.0)), frozen, data=loader(32))
    assert "base rate is 0" in str(frozen.error)
