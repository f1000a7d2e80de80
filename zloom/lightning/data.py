"""`batch_size` of the training DataLoader."""

import math
from typing import Annotated, Any

from lightning.pytorch import Trainer
from msgspec import Meta
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from zloom.lightning.schedules import outrun
from zloom.lightning.steer import Place, Position, Steer
from zloom.torch.base import Undo, set_attributes, undo_all


class BatchSize(Steer):
    """Samples per batch and process.

    With a map-style dataset, or any loader that has a length, it applies between two epochs: inside one the
    lengths that Lightning took at its start would end it early or late. A stream without a length changes at
    once, save for batches that DataLoader workers have fetched already.
    """

    name = "batch_size"
    annotation = Annotated[int, Meta(ge=1)]
    description = "Samples per batch; applies at the end of the epoch, at once for a stream without length"

    def get(self, trainer: Trainer) -> int | None:
        sampler = _sampler(trainer)
        return None if sampler is None else sampler.batch_size

    def unsupported(self, trainer: Any) -> str | None:
        loaders = _loaders(trainer)
        if len(loaders) != 1:
            return (
                f"this training has {len(loaders)} train dataloaders and one value cannot say which is meant"
            )
        if trainer.reload_dataloaders_every_n_epochs:
            return (
                "reload_dataloaders_every_n_epochs has the module make new loaders; "
                'let train_dataloader() use a size that a method marked @zloom.on_config("batch_size") sets'
            )
        if _sampler(trainer) is None:
            return (
                "the train dataloader has no BatchSampler; give DataLoader a batch_size, not its own batches"
            )
        return None

    def refusal(self, trainer: Trainer, value: int) -> str | None:
        if not _has_length(trainer):
            return None
        batches = _batches(trainer, value)
        if batches == 0:
            return f"{value} leaves no batch in an epoch; choose less, or drop_last=False"
        interval = trainer.val_check_interval
        if isinstance(interval, int) and trainer.check_val_every_n_epoch is not None and interval > batches:
            return (
                f"{value} leaves {batches} batches in an epoch, and val_check_interval={interval} would "
                "never be reached; choose less, or train with a fraction as val_check_interval"
            )
        return outrun(trainer, batches=batches)

    def ready(self, position: Position, value: Any) -> bool:
        if position.place is Place.EPOCH_END:
            return True
        sampler = _sampler(position.trainer)
        # With drop_last the sampler reads the size once, where it begins.
        return sampler is not None and not sampler.drop_last and not _has_length(position.trainer)

    def change(self, trainer: Trainer, value: int) -> Undo:
        (loader,) = _loaders(trainer)
        undos = [set_attributes(loader.batch_sampler, batch_size=value), _note_size(loader, value)]
        if _has_length(trainer):
            undos.append(_adjust_lengths(trainer, _batches(trainer, value)))
        return undo_all(undos)


def begin_iteration_again(trainer: Trainer) -> None:
    """Make the loop's iterator anew, before the first batch: it was made with the old size and lengths."""
    fetcher = trainer.fit_loop._data_fetcher
    if fetcher is not None:
        iter(fetcher)


def _loaders(trainer: Trainer) -> list[Any]:
    combined = trainer.fit_loop._combined_loader
    return [] if combined is None else combined.flattened


def _sampler(trainer: Trainer) -> BatchSampler | None:
    loaders = _loaders(trainer)
    sampler = loaders[0].batch_sampler if len(loaders) == 1 and isinstance(loaders[0], DataLoader) else None
    return sampler if isinstance(sampler, BatchSampler) else None


def _has_length(trainer: Trainer) -> bool:
    (limit,) = trainer.fit_loop._combined_loader.limits  # type: ignore[union-attr,misc]
    (loader,) = _loaders(trainer)
    streams = isinstance(loader.dataset, IterableDataset) and not hasattr(loader.dataset, "__len__")
    return not streams and limit != math.inf


def _batches(trainer: Trainer, batch_size: int) -> int:
    """Return the batches per epoch that `batch_size` gives under `limit_train_batches`."""
    (loader,) = _loaders(trainer)
    undo = set_attributes(loader.batch_sampler, batch_size=batch_size)
    undo_size = _note_size(loader, batch_size)
    length = len(loader)
    undo_size()
    undo()
    limit = trainer.limit_train_batches
    # As Lightning: a whole number is a number of batches, a fraction one of the epoch.
    return min(length, limit) if isinstance(limit, int) else int(length * limit)


def _note_size(loader: Any, batch_size: int) -> Undo:
    # DataLoader forbids to set it after construction, since alone it would change nothing but its length.
    before = loader.batch_size
    vars(loader)["batch_size"] = batch_size
    return lambda: vars(loader).update(batch_size=before)


def _adjust_lengths(trainer: Trainer, batches: int) -> Undo:
    loop = trainer.fit_loop
    undos = [
        set_attributes(loop, max_batches=batches),
        set_attributes(loop._combined_loader, limits=[batches]),
    ]
    interval = trainer.val_check_interval
    if isinstance(interval, float) and trainer.val_check_batch is not None:
        undos.append(set_attributes(trainer, val_check_batch=max(1, int(batches * interval))))
    return undo_all(undos)
