"""`batch_size`: every sample of every epoch is trained once, in batches of the new size."""

from itertools import chain
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from tests.e2e.lightning_models import (
    QUIET,
    Change,
    Driver,
    Regression,
    Stream,
    loader,
    run,
    samples,
    trainer,
)
from zloom.lightning.data import BatchSize
from zloom.lightning.steer import Place

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]

EVERY_SAMPLE = [index / 32 for index in range(32)]


def epochs(module: Regression, count: int) -> list[list[list[float]]]:
    """Split the batches of `count` epochs by the samples seen: 32 each."""
    rest, found = list(module.batches), []
    for _ in range(count):
        epoch: list[list[float]] = []
        while rest and sum(map(len, epoch)) < 32:
            epoch.append(rest.pop(0))
        found.append(epoch)
    assert rest == []
    return found


@pytest.mark.parametrize(
    ("size", "workers", "persistent"),
    [(size, 0, False) for size in (3, 4, 16, 32, 50)]
    # Workers are slow to start: two sizes are enough.
    + [(size, 2, persistent) for size in (4, 50) for persistent in (False, True)],
)
def test_it_applies_at_the_end_of_the_epoch_and_loses_no_sample(
    size: int, workers: int, persistent: bool
) -> None:
    module, change = Regression(), Change(BatchSize(), size, after=2)
    data = loader(num_workers=workers, persistent_workers=persistent, shuffle=True)
    fitted = run(module, change, data=data, max_epochs=3)
    assert change.applied == (4, Place.EPOCH_END)
    sizes = [[len(batch) for batch in epoch] for epoch in epochs(module, 3)]
    whole, rest = divmod(32, size)
    assert sizes == [[8] * 4] + [[size] * whole + [rest] * bool(rest)] * 2
    for epoch in epochs(module, 3):
        assert sorted(chain(*epoch)) == pytest.approx(EVERY_SAMPLE)
    assert fitted.num_training_batches == whole + bool(rest)
    assert fitted.train_dataloader.batch_size == size  # type: ignore[union-attr]


def test_undo_brings_the_old_batches_back() -> None:
    module = Regression()
    run(module, Change(BatchSize(), 4, after=2), Change(BatchSize(), 8, after=10), max_epochs=4)
    assert [len(batch) for batch in module.batches] == [8] * 4 + [4] * 8 + [8] * 8

    fitted: Any = run(Regression(), limit_train_batches=2)
    before = vars(fitted.fit_loop).copy(), fitted.val_check_batch, fitted.train_dataloader.batch_size
    BatchSize().apply(fitted, 2)()
    assert (vars(fitted.fit_loop), fitted.val_check_batch, fitted.train_dataloader.batch_size) == before


class Validated(Regression):
    """Notes before which batch each validation ran."""

    def __init__(self) -> None:
        super().__init__()
        self.validations: list[int] = []

    def on_validation_start(self) -> None:
        self.validations.append(len(self.batches))


@pytest.mark.parametrize(
    ("interval", "expected"),
    [(1.0, [4, 12, 20]), (0.5, [2, 4, 8, 12, 16, 20]), (2, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20])],
)
def test_validation_keeps_its_rhythm(interval: Any, expected: list[int]) -> None:
    module, change = Validated(), Change(BatchSize(), 4, after=2)
    fitted = trainer(Driver([change]), max_epochs=3, val_check_interval=interval)
    fitted.fit(module, loader(), loader())
    assert change.error is None
    assert module.validations == expected


@pytest.mark.parametrize(("limit", "expected"), [(3, [3, 3, 3]), (0.5, [2, 4, 4])])
def test_limit_train_batches_is_kept(limit: Any, expected: list[int]) -> None:
    module, change = Regression(), Change(BatchSize(), 4, after=1)
    run(module, change, max_epochs=3, limit_train_batches=limit)
    sizes = [len(batch) for batch in module.batches]
    assert sizes == [8] * expected[0] + [4] * (expected[1] + expected[2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_changes_at_once_and_loses_nothing(workers: int) -> None:
    module, change = Regression(), Change(BatchSize(), 2, after=2)
    options: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": "fork"} if workers else {}
    data: DataLoader[Any] = DataLoader(Stream(), batch_size=4, **options)
    run(module, change, data=data, max_epochs=2)
    assert change.applied == (2, Place.BATCH_END)
    seen = sorted(chain(*module.batches))
    assert seen == pytest.approx(sorted(EVERY_SAMPLE * 2 * max(1, workers)))
    # Lightning fetches one batch ahead, and each worker two.
    assert 2 in [len(batch) for batch in module.batches[: 4 + 2 * workers]]


def test_a_stream_that_drops_its_last_batch_waits_for_the_end_of_the_epoch() -> None:
    module, change = Regression(), Change(BatchSize(), 2, after=2)
    run(module, change, data=DataLoader(Stream(), batch_size=4, drop_last=True), max_epochs=2)
    assert change.applied == (8, Place.EPOCH_END)
    assert [len(batch) for batch in module.batches] == [4] * 8 + [2] * 16


def refused(value: int, data: Any = None, **options: Any) -> str:
    module = options.pop("module", None) or Regression()
    change = Change(BatchSize(), value, after=1)
    run(module, change, data=data, max_epochs=2, **options)
    return str(change.error)


def test_loaders_without_a_batch_sampler_are_refused_and_have_no_size() -> None:
    alone: DataLoader[Any] = DataLoader(samples(), batch_size=None)
    assert "no BatchSampler" in refused(4, alone, limit_train_batches=0.1, module=Unbatched())
    fitted = run(Unbatched(), data=alone)
    assert BatchSize().get(fitted) is None
    assert type(None) in BatchSize().declared_type(fitted).__args__


class Unbatched(Regression):
    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return super().training_step([part[None] for part in batch], batch_idx)


def test_several_loaders_are_refused() -> None:
    class Two(Regression):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return super().training_step(batch[0], batch_idx)

    assert "2 train dataloaders" in refused(4, [loader(), loader()], module=Two())


def test_loaders_that_the_module_makes_again_are_refused() -> None:
    class Makes(Regression):
        def train_dataloader(self) -> Any:
            return loader()

    change = Change(BatchSize(), 4, after=1)
    trainer(Driver([change]), reload_dataloaders_every_n_epochs=1).fit(Makes())
    assert "reload_dataloaders_every_n_epochs" in str(change.error)


def test_sizes_that_leave_no_batch_or_no_validation_are_refused() -> None:
    assert "leaves no batch" in refused(50, loader(drop_last=True))
    assert "would never be reached" in refused(32, val_check_interval=3, limit_val_batches=0)


def test_a_size_that_outruns_a_one_cycle_is_refused() -> None:
    def configure(module: LightningModule) -> Any:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
        schedule = lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=8)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    assert "total_steps=8" in refused(4, module=Regression(configure))
    assert refused(16, module=Regression(configure)) == "None"
