"""Limits, clipping and accumulation against a real Trainer."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy
from torch.optim import Optimizer, lr_scheduler

from tests.e2e.lightning_models import QUIET, Change, Manual, Regression, loader, run
from zloom.lightning.limits import AccumulateGradBatches, GradientClipVal, LogEveryNSteps, MaxEpochs, MaxSteps
from zloom.lightning.steer import Place, Steer

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


def one_cycle(total: int, wrap: Any = None, interval: str = "step") -> Any:
    """Configure SGD under a OneCycleLR of `total` steps, wrapped by `wrap(optimizer, schedule)`."""

    def configure(module: LightningModule) -> Any:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
        schedule: Any = lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=total)
        schedule = wrap(optimizer, schedule) if wrap else schedule
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": interval}}

    return configure


def refused(steer: Steer, value: Any, module: LightningModule | None = None, **options: Any) -> str:
    """Return the reason of the refusal, `None` when there was none; training must end well."""
    change = Change(steer, value, after=options.pop("after", 1))
    run(module or Regression(), change, **options)
    return str(change.error)


@pytest.mark.parametrize(("value", "batches"), [(1, 4), (2, 8), (5, 20), (0, 4)])
def test_max_epochs_ends_training(value: int, batches: int) -> None:
    module, change = Regression(), Change(MaxEpochs(), value, after=2)
    fitted = run(module, change, max_epochs=3)
    assert len(module.losses) == batches
    assert fitted.max_epochs == MaxEpochs().get(fitted) == value
    assert change.undo is not None
    change.undo()
    assert fitted.max_epochs == 3


@pytest.mark.parametrize(("value", "batches"), [(1, 2), (2, 2), (7, 7), (-1, 12)])
def test_max_steps_ends_training(value: int, batches: int) -> None:
    module, change = Regression(), Change(MaxSteps(), value, after=2)
    fitted = run(module, change, max_epochs=3, max_steps=9)
    assert len(module.losses) == batches
    assert change.undo is not None
    change.undo()
    assert fitted.max_steps == 9


@pytest.mark.parametrize(("steer", "fits", "outruns"), [(MaxEpochs(), 3, 4), (MaxSteps(), 12, 13)])
@pytest.mark.parametrize("after", [0, 2, 5])
def test_what_outruns_a_one_cycle_is_refused_and_the_very_end_is_not(
    steer: Steer, fits: int, outruns: int, after: int
) -> None:
    limits = {"max_epochs": 2} if isinstance(steer, MaxEpochs) else {"max_epochs": -1, "max_steps": 8}
    assert "total_steps=12" in refused(steer, outruns, Regression(one_cycle(12)), after=after, **limits)
    module = Regression(one_cycle(12))
    assert refused(steer, fits, module, after=after, **limits) == "None"
    assert len(module.losses) == 12


def chained(optimizer: Optimizer, schedule: Any) -> Any:
    return lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(optimizer), schedule])


def second(optimizer: Optimizer, schedule: Any) -> Any:
    return lr_scheduler.SequentialLR(optimizer, [lr_scheduler.ConstantLR(optimizer), schedule], [4])


def first(optimizer: Optimizer, schedule: Any) -> Any:
    return lr_scheduler.SequentialLR(optimizer, [schedule, lr_scheduler.ConstantLR(optimizer)], [4])


@pytest.mark.parametrize(
    ("wrap", "total", "fits", "outruns"), [(chained, 12, 12, 13), (second, 8, 12, 13), (first, 5, 40, None)]
)
@pytest.mark.parametrize("after", [1, 6])
def test_a_nested_one_cycle_counts_from_its_milestone(
    wrap: Any, total: int, fits: int, outruns: int | None, after: int
) -> None:
    limits = {"max_epochs": -1, "max_steps": 8, "after": after}
    assert refused(MaxSteps(), fits, Regression(one_cycle(total, wrap)), **limits) == "None"
    if outruns:
        assert f"total_steps={total}" in refused(
            MaxSteps(), outruns, Regression(one_cycle(total, wrap)), **limits
        )


@pytest.mark.filterwarnings("ignore:.*OneCycleLR. scheduler is using 'interval'. 'epoch':RuntimeWarning")
def test_a_one_cycle_over_epochs_counts_epochs() -> None:
    def by_epoch() -> Regression:
        return Regression(one_cycle(4, interval="epoch"))

    assert refused(MaxEpochs(), 4, by_epoch(), max_epochs=2) == "None"
    assert "total_steps=4" in refused(MaxEpochs(), 5, by_epoch(), max_epochs=2)


def test_less_of_a_plan_that_outruns_already_is_not_refused() -> None:
    assert refused(MaxSteps(), 2, Regression(one_cycle(6)), max_epochs=100) == "None"


def test_log_every_n_steps_changes_the_rows(tmp_path: Any) -> None:
    class Logs(Regression):
        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            self.log("loss", loss := super().training_step(batch, batch_idx))
            return loss

    logger = CSVLogger(tmp_path)
    run(Logs(), Change(LogEveryNSteps(), 1, after=6), max_epochs=3, logger=logger, log_every_n_steps=4)
    rows = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    steps = [row.split(",")[rows[0].split(",").index("step")] for row in rows[1:]]
    assert steps == ["3", "5", "6", "7", "8", "9", "10", "11"]


def test_a_clip_value_clips_and_null_ends_it() -> None:
    norms: list[float] = []

    class Norms(Regression):
        def on_before_zero_grad(self, optimizer: Optimizer) -> None:
            grads = [p.grad for p in self.parameters() if p.grad is not None]
            norms.append(
                torch.linalg.vector_norm(torch.stack([g.norm() for g in grads])).item() if grads else 0.0
            )

    changes = [Change(GradientClipVal(), 0.25, after=2), Change(GradientClipVal(), None, after=4)]
    fitted = run(Norms(), *changes, max_epochs=2)
    assert [change.error for change in changes] == [None, None]
    # Batch i zeroes the gradients of batch i - 1; 0 is before the first. Batches 1 and 2 were clipped.
    assert [norm == pytest.approx(0.25, rel=1e-4) for norm in norms[1:]] == [False, False, True, True] + [
        False
    ] * 3
    assert fitted.gradient_clip_val is None


def test_clipping_is_refused_where_the_module_clips() -> None:
    class Overrides(Regression):
        def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
            self.clip_gradients(optimizer, 0.5)

    class Calls(Regression):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            self.clip_gradients(optimizer, 0.5, "norm")

    class Inherits(Calls):
        pass

    assert "overrides configure_gradient_clipping" in refused(GradientClipVal(), 1.0, Overrides())
    assert "on_before_optimizer_step() of the module calls clip_gradients" in refused(
        GradientClipVal(), 1.0, Inherits()
    )
    assert "in manual optimization" in refused(GradientClipVal(), 1.0, Manual())


def test_clipping_is_refused_for_a_fused_optimizer_under_a_scaler() -> None:
    def fused(module: LightningModule) -> Any:
        return torch.optim.SGD(module.parameters(), lr=0.01, fused=True)

    def scaled() -> list[Any]:
        return [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]

    assert "fused=False" in refused(GradientClipVal(), 1.0, Regression(fused), plugins=scaled())
    assert refused(GradientClipVal(), 0.0, Regression(fused), plugins=scaled()) == "None"
    assert refused(GradientClipVal(), 1.0, Regression(fused)) == "None"
    assert refused(GradientClipVal(), 1.0, plugins=scaled()) == "None"


class DeepSpeedStrategy:
    """Stands for Lightning's, which cannot be constructed without DeepSpeed."""


def under(strategy: object) -> Trainer:
    """Return a Trainer that has fitted, under a strategy that cannot run here."""
    fitted = run(Regression())
    fitted._accelerator_connector.strategy = strategy
    return fitted


def test_clipping_and_accumulation_are_refused_on_strategies_that_do_it_themselves() -> None:
    deepspeed = under(DeepSpeedStrategy())
    assert "DeepSpeed clips" in str(GradientClipVal().unsupported(deepspeed))
    assert "DeepSpeed accumulates" in str(AccumulateGradBatches().unsupported(deepspeed))
    sharded = under(FSDPStrategy())
    sharded.strategy._lightning_module = Regression()
    assert "cannot clip by norm" in str(GradientClipVal().unsupported(sharded))
    sharded.gradient_clip_algorithm = "value"  # type: ignore[assignment]
    assert GradientClipVal().unsupported(sharded) is None
    assert AccumulateGradBatches().unsupported(sharded) is None


@pytest.mark.parametrize(
    ("old", "new", "after", "at"),
    [(4, 3, 5, 12), (2, 4, 3, 4), (4, 2, 1, 4), (3, 1, 1, 3), (1, 5, 2, 5), (2, 3, 1, 6)],
)
def test_accumulation_changes_where_both_windows_begin(old: int, new: int, after: int, at: int) -> None:
    steps: list[int] = []

    class Steps(Regression):
        def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
            steps.append(len(self.batches))

    change = Change(AccumulateGradBatches(), new, after=after)
    run(Steps(), change, data=loader(batch_size=1, count=24), accumulate_grad_batches=old)
    assert change.applied is not None
    assert change.applied[0] == at
    before = [batch for batch in range(1, at + 1) if batch % old == 0]
    behind = [batch for batch in range(at + 1, 25) if batch % new == 0 or batch == 24]
    assert steps == before + behind


def test_accumulation_that_does_not_align_changes_at_the_end_of_the_epoch() -> None:
    change = Change(AccumulateGradBatches(), 7, after=1)
    run(Regression(), change, data=loader(batch_size=8), accumulate_grad_batches=2, max_epochs=2)
    assert change.applied == (4, Place.EPOCH_END)


def test_accumulation_is_refused_where_it_cannot_be() -> None:
    steer = AccumulateGradBatches()
    scheduler = GradientAccumulationScheduler({0: 1, 1: 2})
    assert "GradientAccumulationScheduler" in refused(steer, 2, callbacks=[scheduler])
    assert "in manual optimization" in refused(steer, 2, Manual())
    assert "1 or more" in refused(steer, 0)
    lbfgs = Regression(lambda m: torch.optim.LBFGS(m.parameters()))
    assert "LBFGS" in refused(steer, 2, lbfgs)
    assert "total_steps=4" in refused(
        steer, 1, Regression(one_cycle(4)), max_epochs=2, accumulate_grad_batches=2
    )
