"""`optimizer_type` against a real Trainer: over all pairs of torch's optimizers, and where it must refuse."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from tests.e2e.lightning_models import QUIET, Change, Manual, Regression, loader, run, trainer
from zloom.errors import CannotSteer
from zloom.lightning.data import BatchSize
from zloom.lightning.optimizer import OptimizerType
from zloom.lightning.steer import Place, Position
from zloom.torch.optimizer_type import torch_optimizers

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]

# SparseAdam alone trains no dense parameter.
DENSE = sorted(torch_optimizers().keys() - {"sparseadam"})
PAIRS = list(itertools.permutations(DENSE, 2))


def scheduled(name: str, lr: float = 0.01) -> Any:
    """Configure the optimizer of that name under a StepLR that halves the rate at each step."""

    def configure(module: LightningModule) -> Any:
        optimizer = torch_optimizers()[name](module.parameters(), lr=lr)  # type: ignore[call-arg]
        scheduler = lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    return configure


@pytest.mark.parametrize(("old", "new"), PAIRS, ids=[f"{old}-{new}" for old, new in PAIRS])
def test_every_pair_trains_on_under_its_schedule_and_can_be_undone(old: str, new: str) -> None:
    module = Regression(scheduled(old))
    change = Change(OptimizerType(), new, after=4)
    seen: dict[str, Any] = {}
    data = loader(batch_size=32)
    fitted = run(
        module,
        change,
        data=data,
        max_epochs=10,
        at={0: lambda t: seen.update(before=t.optimizers[0])},
    )
    assert change.error is None
    after = fitted.optimizers[0]
    assert type(after) is torch_optimizers()[new]
    assert [id(p) for g in after.param_groups for p in g["params"]] == [id(p) for p in module.parameters()]
    assert module.losses[-1] < module.losses[4] < module.losses[0]
    assert fitted.lr_scheduler_configs[0].scheduler.optimizer is after
    assert module.rates == pytest.approx([0.01 * 0.9**step for step in range(10)], rel=1e-12)


@pytest.mark.parametrize("old", DENSE)
def test_a_change_undone_at_once_leaves_no_trace(old: str) -> None:
    def there_and_back(fitted: Trainer) -> None:
        steer = OptimizerType()
        for new in DENSE:
            steer.apply(fitted, new)()

    reference, steered = Regression(scheduled(old)), Regression(scheduled(old))
    run(reference, max_epochs=2)
    run(steered, max_epochs=2, at={3: there_and_back, 5: there_and_back})
    assert steered.losses == reference.losses
    assert steered.rates == reference.rates


def swap(module: Regression, new: str, **options: Any) -> tuple[Trainer, Change, dict[str, Any]]:
    """Train with a change to `new` after 3 batches; also return the optimizer and state before it."""
    before: dict[str, Any] = {}

    def note(fitted: Trainer) -> None:
        optimizer = fitted.optimizers[0]
        before.update(optimizer=optimizer, state={p: dict(optimizer.state[p]) for p in module.parameters()})

    change = Change(OptimizerType(), new, after=3)
    return run(module, change, at={2: note}, **options), change, before


@pytest.mark.parametrize(
    ("old", "new", "carried"),
    [
        ("adam", "adamw", {"step", "exp_avg", "exp_avg_sq"}),
        ("nadam", "adam", {"step", "exp_avg", "exp_avg_sq"}),
        ("adadelta", "rmsprop", {"step", "square_avg"}),
        ("adam", "nadam", set()),
        ("adam", "rmsprop", set()),
        ("adam", "adamax", set()),
        ("adagrad", "sgd", set()),
    ],
)
def test_a_state_goes_over_when_it_is_complete(old: str, new: str, carried: set[str]) -> None:
    module = Regression(scheduled(old))
    fitted, change, before = swap(module, new, limit_train_batches=3)
    assert change.error is None
    shared = [
        {key for key, value in fitted.optimizers[0].state.get(p, {}).items() if value is state.get(key)}
        for p, state in before["state"].items()
    ]
    assert shared == [carried, carried]


def test_an_amsgrad_is_not_given_half_a_state() -> None:
    class Amsgrad(torch.optim.Adam):
        def __init__(self, params: Any, lr: float = 0.01) -> None:
            super().__init__(params, lr=lr, amsgrad=True)

    module = Regression(lambda m: Amsgrad(m.parameters()))
    steer = OptimizerType()
    to_adam, back = Change(steer, "adam", after=2), Change(steer, "amsgrad", after=4)
    fitted = run(module, to_adam, back, max_epochs=2, at={0: steer.get})
    assert to_adam.error is back.error is None
    assert isinstance(fitted.optimizers[0], Amsgrad)
    assert {state["step"].item() for state in fitted.optimizers[0].state.values()} == {4.0}


def two_groups(module: LightningModule) -> Any:
    """Configure two groups with rates, decays and betas of their own, under a OneCycleLR."""
    first, second = module.parameters()
    groups: list[dict[str, Any]] = [
        {"params": [first], "weight_decay": 0.1},
        {"params": [second], "betas": (0.8, 0.95)},
    ]
    optimizer = torch.optim.Adam(groups, lr=0.01)
    schedule = lr_scheduler.OneCycleLR(optimizer, [0.01, 0.02], total_steps=100)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def test_groups_keep_their_rates_decays_betas_and_what_the_scheduler_noted() -> None:
    module = Regression(two_groups)
    fitted, change, before = swap(module, "adamw", limit_train_batches=3)
    assert change.error is None
    for old, new in zip(before["optimizer"].param_groups, fitted.optimizers[0].param_groups, strict=True):
        kept = (
            "lr",
            "weight_decay",
            "betas",
            "initial_lr",
            "max_lr",
            "min_lr",
            "max_momentum",
            "base_momentum",
        )
        assert {key: new[key] for key in kept} == {key: old[key] for key in kept}
        assert new["decoupled_weight_decay"] is True


def test_a_schedule_that_cycles_momentum_drives_that_of_the_new_optimizer() -> None:
    module = Regression(two_groups)
    fitted, change, _ = swap(module, "sgd", max_epochs=2)
    momenta = [group["momentum"] for group in fitted.optimizers[0].param_groups]
    assert all(0.85 < momentum < 0.95 for momentum in momenta)
    assert change.undo is not None
    change.undo()
    schedule: Any = fitted.lr_scheduler_configs[0].scheduler
    assert schedule.use_beta1 is True


def test_named_parameters_keep_their_names() -> None:
    module = Regression(lambda m: torch.optim.SGD(m.named_parameters(), lr=0.01))
    fitted, change, _ = swap(module, "adam")
    assert change.error is None
    assert fitted.optimizers[0].param_groups[0]["param_names"] == ["first.weight", "second.weight"]


@pytest.mark.parametrize("accumulate", [2, 3])
def test_it_waits_for_the_accumulation_window_to_close(accumulate: int) -> None:
    change = Change(OptimizerType(), "adam", after=accumulate + 1)
    run(Regression(), change, data=loader(batch_size=4), accumulate_grad_batches=accumulate)
    assert change.applied == (2 * accumulate, Place.BATCH_END)


def test_in_manual_optimization_it_waits_for_the_step() -> None:
    module = Manual(window=3)
    change = Change(OptimizerType(), "adam", after=4)
    fitted = run(module, change, data=loader(batch_size=4), max_epochs=2)
    assert change.applied == (6, Place.BATCH_END)
    assert isinstance(fitted.optimizers[0], torch.optim.Adam)
    assert module.losses[15] < module.losses[7]


def test_manual_optimization_steps_the_scheduler_of_the_new_optimizer() -> None:
    module = Manual(scheduled("sgd"))
    fitted, change, _ = swap(module, "adam", max_epochs=2)
    assert change.error is None
    assert fitted.lr_scheduler_configs[0].scheduler.optimizer is fitted.optimizers[0]
    assert module.rates == pytest.approx([0.01 * 0.9**step for step in range(8)], rel=1e-12)


def test_a_schedule_that_has_not_stepped_yet_does_not_warn_of_a_replaced_step() -> None:
    module = Regression(scheduled("sgd"))
    change = Change(OptimizerType(), "adam", after=0)
    run(module, change)
    assert change.applied == (0, Place.BATCH_START)
    assert module.rates == pytest.approx([0.01 * 0.9**step for step in range(4)], rel=1e-12)


def test_at_an_epochs_end_it_can_change_together_with_the_batch_size() -> None:
    class StepsAtTheEnd(Manual):
        def __init__(self) -> None:
            super().__init__()
            self.schedule: Any = None

        def lr_schedulers(self) -> Any:
            return None

        def on_train_epoch_end(self) -> None:
            self.schedule.step()

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
            self.schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)
            return [optimizer], [self.schedule]

    class AtTheEnd(OptimizerType):
        def ready(self, position: Position, value: Any) -> bool:
            return position.place is Place.EPOCH_END and super().ready(position, value)

    module = StepsAtTheEnd()
    change, size = Change(AtTheEnd(), "adam", after=1), Change(BatchSize(), 16, after=1)
    run(module, change, size, max_epochs=2)
    assert change.applied == size.applied == (4, Place.EPOCH_END)
    assert module.rates == [0.01] * 4 + [0.005] * 2


def test_the_same_type_again_changes_nothing() -> None:
    module = Regression()
    fitted, change, before = swap(module, "sgd")
    assert change.error is None
    assert fitted.optimizers == [before["optimizer"]]


def test_the_learning_rate_monitor_follows(tmp_path: Path) -> None:
    _, change, _ = swap(
        Regression(scheduled("adam")),
        "sgd",
        logger=CSVLogger(tmp_path),
        callbacks=[LearningRateMonitor(logging_interval="step", log_momentum=True)],
        log_every_n_steps=1,
    )
    assert change.error is None


class Swapped(Callback):
    """Repeats the change of a checkpoint before Lightning restores the optimizer, as a resume must."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        OptimizerType().apply(trainer, "adam")


def test_a_run_resumed_from_a_checkpoint_equals_one_that_was_not_interrupted(tmp_path: Path) -> None:
    whole, first, second = (Regression(scheduled("sgd")) for _ in range(3))
    swap(whole, "adam", max_epochs=3)
    fitted, _, _ = swap(first, "adam", max_epochs=2)
    fitted.save_checkpoint(tmp_path / "at-2.ckpt")
    trainer(Swapped(), max_epochs=3).fit(second, loader(), ckpt_path=tmp_path / "at-2.ckpt")
    assert first.losses + second.losses == pytest.approx(whole.losses, rel=1e-12)
    assert first.rates + second.rates == pytest.approx(whole.rates, rel=1e-12)


def test_a_model_checkpoint_of_the_very_batch_can_be_resumed(tmp_path: Path) -> None:
    module = Regression(scheduled("sgd"))
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    swap(module, "adam", callbacks=[saver], enable_checkpointing=True, limit_train_batches=3)
    resumed = Regression(scheduled("sgd"))
    again = trainer(saver, Swapped(), enable_checkpointing=True, max_epochs=3)
    again.fit(resumed, loader(), ckpt_path=tmp_path / "step=3.ckpt")
    assert resumed.rates == pytest.approx([0.01 * 0.9**step for step in range(3, 3 + len(resumed.rates))])
    assert isinstance(again.optimizers[0], torch.optim.Adam)


def refused(configure: Any, new: str, *, module: Any = Regression, **options: Any) -> str:
    """Return the reason why the change was refused in a training that then went on."""
    model = module(configure)
    fitted, change, before = swap(model, new, **options)
    assert isinstance(change.error, CannotSteer)
    assert fitted.optimizers[0] is before["optimizer"]
    return str(change.error)


class TwoOptimizers(Manual):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD([p], lr=0.01) for p in self.parameters()]

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:  # type: ignore[override]
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = self.loss(batch)
        self.note(batch, loss)
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()


def test_several_optimizers_are_refused() -> None:
    assert "2 optimizers (SGD, SGD)" in refused(None, "adam", module=TwoOptimizers)


def test_no_optimizer_is_refused() -> None:
    class Untrained(Manual):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> None:  # type: ignore[override]
            pass

    module = Untrained(lambda _: None)
    change = Change(OptimizerType(), "adam")
    with pytest.warns(UserWarning, match="no optimizer"):
        run(module, change)
    assert "has no optimizer" in str(change.error)


@pytest.mark.parametrize(
    "rival", [StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=50), BackboneFinetuning(50)], ids=type
)
def test_a_callback_that_changes_optimizers_is_refused(rival: Callback) -> None:
    class WithBackbone(Regression):
        def __init__(self, configure: Any) -> None:
            super().__init__(configure)
            self.backbone = nn.Linear(1, 1)

    configure = lambda m: torch.optim.SGD([*m.first.parameters(), *m.second.parameters()], lr=0.01)  # noqa: E731
    reason = refused(configure, "adam", module=WithBackbone, callbacks=[rival], max_epochs=100, max_steps=4)
    assert type(rival).__name__ in reason


def test_deepspeed_is_refused_by_its_class_name() -> None:
    class DeepSpeedStrategy:
        """Stands for Lightning's, which cannot be constructed without DeepSpeed."""

    fitted = run(Regression())
    fitted._accelerator_connector.strategy = DeepSpeedStrategy()
    assert "DeepSpeed owns the optimizer" in str(OptimizerType().unsupported(fitted))


def test_sparse_adam_is_refused_for_dense_parameters() -> None:
    assert "does not support dense gradients" in refused(scheduled("sgd"), "sparseadam")


def test_muon_is_refused_where_a_parameter_has_not_two_dimensions() -> None:
    class WithBias(Regression):
        def __init__(self, configure: Any) -> None:
            super().__init__(configure)
            self.second = nn.Linear(8, 1, dtype=torch.float64)

    assert "only supports 2D parameters" in refused(scheduled("sgd"), "muon", module=WithBias)


def test_lbfgs_is_refused_with_groups_with_accumulation_and_without_closure() -> None:
    assert "parameter groups" in refused(two_groups, "lbfgs")
    assert "accumulate_grad_batches to 1" in refused(scheduled("sgd"), "lbfgs", accumulate_grad_batches=2)
    assert "needs a closure" in refused(scheduled("sgd"), "lbfgs", module=Manual)


def test_lbfgs_is_refused_with_a_scaler() -> None:
    scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    assert "gradient scaler" in refused(scheduled("sgd"), "lbfgs", plugins=[scaled])


def test_a_swap_under_a_scaler_keeps_the_scaler() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    fitted, change, _ = swap(
        Regression(scheduled("sgd")),
        "adam",
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        max_epochs=2,
    )
    assert change.error is None
    assert fitted.precision_plugin.scaler is scaler  # type: ignore[attr-defined]


def test_an_optimizer_that_unscales_by_itself_is_refused_while_clipping_under_a_scaler() -> None:
    class Fused(torch.optim.Adam):
        def __init__(self, params: Any, lr: float = 0.01) -> None:
            super().__init__(params, lr=lr, fused=True)

    def both(module: LightningModule) -> Any:
        return Fused(module.parameters())

    steer = OptimizerType()
    plain, fused = Change(steer, "sgd", after=1), Change(steer, "fused", after=3)
    clip = {1: lambda t: setattr(t, "gradient_clip_val", 1.0)}
    scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    fitted = run(Regression(both), plain, fused, plugins=[scaled], at={0: steer.get, **clip})
    assert "gradient_clip_val to null" in str(fused.error)
    assert isinstance(fitted.optimizers[0], torch.optim.SGD)


def test_maximize_is_kept_or_refused() -> None:
    class Maximize(Regression):
        def loss(self, batch: list[Tensor]) -> Tensor:
            return -super().loss(batch)

    def configure(module: LightningModule) -> Any:
        return torch.optim.SGD(module.parameters(), lr=0.01, maximize=True)

    fitted, change, _ = swap(Maximize(configure), "adam")
    assert change.error is None
    assert fitted.optimizers[0].param_groups[0]["maximize"] is True
    assert "maximize=True" in refused(configure, "muon", module=Maximize)


class Embedded(Regression):
    """Only an embedding with sparse gradients."""

    def __init__(self, configure: Any) -> None:
        super().__init__(configure)
        self.first, self.second = nn.Identity(), nn.Identity()  # type: ignore[assignment]
        self.table = nn.Embedding(32, 1, sparse=True)

    def loss(self, batch: list[Tensor]) -> Tensor:
        rows = (batch[0][:, 0] * 32).round().long()
        return nn.functional.mse_loss(self.table(rows), batch[1].float())


def test_sparse_gradients_go_only_to_what_takes_them() -> None:
    data: DataLoader[Any] = loader(batch_size=32)
    module = Embedded(scheduled("sgd", lr=0.1))
    fitted, change, _ = swap(module, "sparseadam", data=data, max_epochs=6)
    assert change.error is None
    assert isinstance(fitted.optimizers[0], torch.optim.SparseAdam)
    assert module.losses[-1] < module.losses[3]
    assert "sparse" in refused(scheduled("sgd"), "adam", module=Embedded, data=data, max_epochs=6)


def test_the_type_lists_torchs_optimizers_and_the_users_own() -> None:
    class Lion(torch.optim.SGD):
        pass

    steer = OptimizerType()
    types: list[Any] = []
    run(
        Regression(lambda m: Lion(m.parameters(), lr=0.1)),
        at={0: lambda t: types.append(steer.declared_type(t))},
    )
    assert set(types[0].__args__) == {*torch_optimizers(), "lion"}
    assert {"sgd", "adam", "adamw", "rmsprop", "lbfgs"} <= torch_optimizers().keys()


def test_an_unknown_name_is_refused() -> None:
    assert "'adem' is none of" in refused(scheduled("sgd"), "adem")
