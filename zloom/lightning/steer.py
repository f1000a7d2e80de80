"""A key of a Lightning Trainer, and where its loop stands."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from lightning.pytorch import Trainer

from zloom.torch.base import Steer as AnySteer


class Place(Enum):
    """Where the training loop stands."""

    BATCH_START = "on_train_batch_start"
    BATCH_END = "on_train_batch_end"
    EPOCH_END = "on_train_epoch_end"
    """Or `on_train_start`: no epoch is under way."""


@dataclass
class Position:
    """Where the training loop stands; the callback keeps it, on the training thread.

    Attributes:
        trainer: The Trainer that runs the loop.
        place: The hook that runs now.
        gradients_pending: A backward ran and no optimizer step has used it yet. Followed by the hooks, since
            a gradient that is not None says nothing: many modules zero them only before the next backward.
    """

    trainer: Trainer
    place: Place = Place.BATCH_START
    gradients_pending: bool = False

    @property
    def window_closed(self) -> bool:
        """True between two accumulation windows: every gradient was used."""
        return not self.gradients_pending

    @property
    def batches_done(self) -> int:
        """Batches of this epoch that were trained, 0 at an epoch's end, where the next one is due."""
        if self.place is Place.EPOCH_END:
            return 0
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return int(progress.processed)


class Steer(AnySteer[Trainer, Position]):
    """One key of a Trainer. Everything is called inside a hook, after `on_fit_start`."""
