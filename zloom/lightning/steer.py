"""What a key of a Lightning Trainer can do: tell its value, say why not, wait, change, undo."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from lightning.pytorch import Trainer

from zloom.errors import CannotSteer

Undo = Callable[[], None]
"""Puts everything back that the change touched; to be called before another batch trains."""


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


class Steer(ABC):
    """One key. Everything is called on the training thread, inside a hook, after `on_fit_start`."""

    name: ClassVar[str]
    annotation: ClassVar[Any]
    description: ClassVar[str]
    nullable: ClassVar[bool] = False
    """None is a value, and not only the baseline of a training that has none."""

    @abstractmethod
    def get(self, trainer: Trainer) -> Any:
        """Return the value now, a plain type; None where this training has none."""

    def declared_type(self, trainer: Trainer) -> Any:
        """Return the key's type, with None in it where this training has no value to declare."""
        return self.annotation if self.nullable or self.get(trainer) is not None else self.annotation | None

    def unsupported(self, trainer: Trainer) -> str | None:
        """Return why this training can never change the key and what to do instead, or None."""
        return None

    def refusal(self, trainer: Trainer, value: Any) -> str | None:
        """Return why this value cannot be taken now, or None. Changes nothing."""
        return None

    def ready(self, position: Position, value: Any) -> bool:
        """Return True where the change may happen; else it waits for a later safe point.

        Args:
            position: Where the loop stands.
            value: What it is to change to; not yet found possible.
        """
        return True

    def apply(self, trainer: Trainer, value: Any) -> Undo:
        """Change the value and return how to undo it.

        Raises:
            CannotSteer: The strategy, the module, a callback or the value forbids it; nothing was changed.
        """
        reason = self.unsupported(trainer)
        if reason is None and value is None and not self.nullable:
            reason = "null cannot be set; it only tells that this training has no value"
        if reason is None:
            reason = self.refusal(trainer, value)
        if reason is not None:
            raise CannotSteer(reason)
        return self.change(trainer, value)

    @abstractmethod
    def change(self, trainer: Trainer, value: Any) -> Undo:
        """Change the value, which was found possible, and return how to undo it."""


def set_attributes(owner: object, **values: Any) -> Undo:
    """Set attributes of `owner` and return how to put the old ones back."""
    before = {name: getattr(owner, name) for name in values}

    def write(to_write: dict[str, Any]) -> None:
        for name, value in to_write.items():
            setattr(owner, name, value)

    write(values)
    return lambda: write(before)
