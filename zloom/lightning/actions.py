"""The commands of a training: stop, checkpoint, validate."""

import math
import os
from pathlib import PurePath
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from zloom.errors import CannotSteer
from zloom.lightning.steer import Place, Position
from zloom.torch.base import Undo, set_attributes


class Stop:
    """End the training after this batch, as early stopping does: a full validation runs first."""

    name = "stop"
    description = "End the training after this batch and a last validation; force: also before min_epochs"

    def ready(self, position: Position) -> bool:
        """Return True: Lightning looks for the wish after each batch."""
        return True

    def run(self, trainer: Trainer, *, force: bool = False) -> str:
        """Ask Lightning to stop.

        Args:
            trainer: The Trainer, inside `fit`.
            force: Lower `min_epochs` and `min_steps`, before which Lightning ignores the wish.

        Raises:
            CannotSteer: The minimum is not reached and `force` is False.
        """
        if not trainer.fit_loop._can_stop_early:
            if not force:
                raise CannotSteer(
                    f"{_minimum(trainer)}; wait for it, or stop with --force (in Python force=True)"
                )
            trainer.fit_loop.min_epochs = 0
            trainer.fit_loop.epoch_loop.min_steps = None
        trainer.should_stop = True
        validates = trainer.enable_validation and trainer.fit_loop.epoch_loop._should_check_val_epoch()
        return "stops after this batch and a validation" if validates else "stops after this batch"


class SaveCheckpoint:
    """Save a checkpoint from which `fit(ckpt_path=...)` goes on with the next batch."""

    name = "checkpoint"
    description = "Save a checkpoint beside those of ModelCheckpoint, and answer with its path"

    def ready(self, position: Position) -> bool:
        """Return True at a batch's end where no gradient is pending.

        Inside an accumulation window the checkpoint would lose its gradients, and at a batch's start it would
        count a batch that was not trained.
        """
        return position.place is Place.BATCH_END and position.window_closed

    def run(self, trainer: Trainer, *, filename: str = "") -> str:
        """Save and return the path.

        Args:
            trainer: The Trainer, at a batch's end.
            filename: A name without a folder, by default made of epoch and step.

        Raises:
            CannotSteer: `filename` names a folder: an operator may not write anywhere else.
        """
        name = filename or f"zloom-epoch={trainer.current_epoch}-step={trainer.global_step}.ckpt"
        if PurePath(name).name != name or name == "..":
            raise CannotSteer(f"expected a file name without a folder, got {filename!r}")
        path = os.path.join(_folder(trainer), name)
        trainer.save_checkpoint(path)
        # An operator need not know the trainer's working directory; a URL has none.
        return path if "://" in path else os.path.abspath(path)


class Validate:
    """Run a validation after this batch, though none is due."""

    name = "validate"
    description = "Run a validation after this batch"

    def __init__(self) -> None:
        self._put_back: Undo | None = None

    def ready(self, position: Position) -> bool:
        """Return True inside an epoch: only there a batch follows."""
        return position.place is not Place.EPOCH_END

    def run(self, trainer: Trainer) -> str:
        """Make a validation due; `validation_ended` must be called after it.

        Raises:
            CannotSteer: There is nothing to validate.
        """
        if not trainer.enable_validation:
            raise CannotSteer(
                "this training has no validation; it needs a validation_step, a dataloader and "
                "limit_val_batches above 0"
            )
        if self._put_back is None:
            self._put_back = _make_validation_due(trainer)
        return "validates after this batch"

    def validation_ended(self) -> None:
        """Put the Trainer's own rhythm back; safe to call at any time."""
        if self._put_back is not None:
            self._put_back()
            self._put_back = None


def _minimum(trainer: Trainer) -> str:
    loop: Any = trainer.fit_loop
    limits = {"min_epochs": loop.min_epochs, "min_steps": loop.min_steps}
    given = " or ".join(f"{name}={limit}" for name, limit in limits.items() if limit)
    return (
        f"epoch {loop.epoch_progress.current.processed} and step {trainer.global_step} are before {given}, "
        "until which Lightning trains on"
    )


def _folder(trainer: Trainer) -> str:
    callback = trainer.checkpoint_callback
    if isinstance(callback, ModelCheckpoint) and callback.dirpath:
        return str(callback.dirpath)
    return os.path.join(trainer.default_root_dir, "checkpoints")


def _make_validation_due(trainer: Any) -> Undo:
    loop = trainer.fit_loop.epoch_loop
    if getattr(trainer, "_val_check_time_interval", None) is not None:
        # Validation by the clock: Lightning notes the time by itself when it ends.
        trainer._last_val_time = -math.inf
        return lambda: None
    if trainer.check_val_every_n_epoch is None:
        return set_attributes(trainer, val_check_batch=loop.total_batch_idx + 1)
    return set_attributes(trainer, val_check_batch=loop.batch_idx + 1, check_val_every_n_epoch=1)
