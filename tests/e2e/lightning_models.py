"""Tiny models, data and a driving callback for the tests of `zloom.lightning`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from zloom.lightning.steer import Place, Position, Steer
from zloom.torch.base import Undo

# Lightning's advice on machines and loaders, which is right and no concern of these tests.
QUIET = (
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*GPU available but not used:UserWarning",
    "ignore:.*You defined a `validation_step` but have no `val_dataloader`:UserWarning",
    "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning",
    "ignore:.*ckpt.* is not resumable:UserWarning",
    "ignore:.*resuming from a checkpoint that ended before the epoch ended:UserWarning",
    "ignore:.*exists and is not empty:UserWarning",
)

Configure = Callable[[LightningModule], Any]


def sgd(module: LightningModule) -> Any:
    """Configure plain SGD."""
    return torch.optim.SGD(module.parameters(), lr=0.02)


class Regression(LightningModule):
    """Two layers without bias (all parameters have two dimensions), full float precision, fixed start."""

    def __init__(self, configure: Configure = sgd) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.first = nn.Linear(4, 8, bias=False, dtype=torch.float64)
            self.second = nn.Linear(8, 1, bias=False, dtype=torch.float64)
        self.configure = configure
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.batches: list[list[float]] = []

    def loss(self, batch: list[Tensor]) -> Tensor:
        features, target = batch
        return nn.functional.mse_loss(self.second(torch.tanh(self.first(features))), target)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.note(batch, loss)
        return loss

    def on_train_batch_start(self, batch: list[Tensor], batch_idx: int) -> None:
        self.noted = False

    def note(self, batch: list[Tensor], loss: Tensor) -> None:
        # LBFGS runs a batch several times.
        if self.noted:
            return
        self.noted = True
        self.losses.append(loss.item())
        self.batches.append(batch[0][:, 0].tolist())
        self.rates.append(float(self.trainer.optimizers[0].param_groups[0]["lr"]))

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return self.configure(self)


class Manual(Regression):
    """The same in manual optimization, one step every `window` batches."""

    def __init__(self, configure: Configure = sgd, window: int = 1) -> None:
        super().__init__(configure)
        self.automatic_optimization = False
        self.window = window

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        if batch_idx % self.window == 0:
            optimizer.zero_grad()
        loss = self.loss(batch)
        self.note(batch, loss)
        self.manual_backward(loss)
        if batch_idx % self.window == self.window - 1:
            optimizer.step()
            scheduler: Any = self.lr_schedulers()
            if scheduler is not None:
                scheduler.step()


def samples(count: int = 32) -> TensorDataset:
    """Return `count` samples of a fixed task; the first feature of sample i is i / count."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        features = torch.randn(count, 4, dtype=torch.float64)
    features[:, 0] = torch.arange(count, dtype=torch.float64) / count
    return TensorDataset(features, features.sum(1, keepdim=True) * 2 + 3)


def loader(batch_size: int = 8, count: int = 32, **options: Any) -> DataLoader[Any]:
    """Return the samples in order, in batches."""
    return DataLoader(samples(count), batch_size=batch_size, **options)


class Stream(IterableDataset[Any]):
    """The samples without a length."""

    def __init__(self, count: int = 32) -> None:
        self.source: Dataset[Any] = samples(count)
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        return (self.source[index] for index in range(self.count))


def trainer(*callbacks: Callback, **options: Any) -> Trainer:
    """Return a Trainer on the CPU that shows and keeps nothing."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(callbacks=list(callbacks), **(defaults | options))


@dataclass
class Change:
    """A change that is wanted from the `after`-th trained batch on, and what became of it."""

    steer: Steer
    value: Any
    after: int = 0
    applied: tuple[int, Place] | None = None
    error: Exception | None = None
    undo: Undo | None = None


@dataclass
class Driver(Callback):
    """Applies changes at safe points, in order, each as soon as it is ready."""

    changes: list[Change]
    at: dict[int, Callable[[Trainer], object]] = field(default_factory=dict)
    """Called at the start of the batch of that number."""
    batches: int = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.position = Position(trainer)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._safe_point(Place.BATCH_START)
        if self.batches in self.at:
            self.at[self.batches](trainer)
        self.batches += 1

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._safe_point(Place.BATCH_END)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self._safe_point(Place.EPOCH_END)

    def on_after_backward(self, *_: Any) -> None:
        self.position.gradients_pending = True

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.position.gradients_pending = False

    def _safe_point(self, place: Place) -> None:
        self.position.place = place
        for change in self.changes:
            if change.applied is None and change.error is None and change.after <= self.batches:
                self._try(change)

    def _try(self, change: Change) -> None:
        if change.steer.unsupported(self.position.trainer) is None and not change.steer.ready(
            self.position, change.value
        ):
            return
        try:
            change.undo = change.steer.apply(self.position.trainer, change.value)
            change.applied = (self.batches, self.position.place)
        except Exception as error:  # noqa: BLE001 -- what a user's handler raises is the outcome
            change.error = error


def run(
    module: LightningModule,
    *changes: Change,
    data: DataLoader[Any] | None = None,
    at: dict[int, Callable[[Trainer], object]] | None = None,
    callbacks: list[Callback] | None = None,
    **options: Any,
) -> Trainer:
    """Train with the changes and return the Trainer."""
    driver = Driver(list(changes), at or {})
    fitted = trainer(driver, *(callbacks or []), **options)
    fitted.fit(module, loader() if data is None else data)
    return fitted
