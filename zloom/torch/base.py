"""What a key can do, of whatever it steers: tell its value, say why not, wait, change, undo."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from zloom.errors import CannotSteer

Undo = Callable[[], None]
"""Puts everything back that the change touched; to be called before another batch trains."""


class Window(Protocol):
    """Where a training loop stands."""

    @property
    def window_closed(self) -> bool:
        """True between two accumulation windows: every gradient was used."""


Subject = TypeVar("Subject")
Where = TypeVar("Where", bound=Window)


class Steer(ABC, Generic[Subject, Where]):
    """One key of a subject. Everything is called on the training thread, at a safe point."""

    name: ClassVar[str]
    annotation: ClassVar[Any]
    description: ClassVar[str]
    nullable: ClassVar[bool] = False
    """None is a value, and not only the baseline of a training that has none."""

    @abstractmethod
    def get(self, subject: Subject) -> Any:
        """Return the value now, a plain type; None where this training has none."""

    def declared_type(self, subject: Subject) -> Any:
        """Return the key's type, with None in it where this training has no value to declare."""
        return self.annotation if self.nullable or self.get(subject) is not None else self.annotation | None

    def unsupported(self, subject: Subject) -> str | None:
        """Return why this training can never change the key and what to do instead, or None."""
        return None

    def refusal(self, subject: Subject, value: Any) -> str | None:
        """Return why this value cannot be taken now, or None. Changes nothing."""
        return None

    def note(self, subject: Subject) -> str:
        """Return what operators are to know of a value that was just changed; empty as a rule."""
        return ""

    def ready(self, position: Where, value: Any) -> bool:
        """Return True where the change may happen; else it waits for a later safe point.

        Args:
            position: Where the loop stands.
            value: What it is to change to; not yet found possible.
        """
        return True

    def apply(self, subject: Subject, value: Any) -> Undo:
        """Change the value and return how to undo it.

        Raises:
            CannotSteer: What stands around the training, or the value, forbids it; nothing was changed.
        """
        reason = self.unsupported(subject)
        if reason is None and value is None and not self.nullable:
            reason = "null cannot be set; it only tells that this training has no value"
        if reason is None:
            reason = self.refusal(subject, value)
        if reason is not None:
            raise CannotSteer(reason)
        return self.change(subject, value)

    @abstractmethod
    def change(self, subject: Subject, value: Any) -> Undo:
        """Change the value, which was found possible, and return how to undo it."""


def set_attributes(owner: object, **values: Any) -> Undo:
    """Set attributes of `owner` and return how to put the old ones back."""
    before = {name: getattr(owner, name) for name in values}

    def write(to_write: dict[str, Any]) -> None:
        for name, value in to_write.items():
            setattr(owner, name, value)

    write(values)
    return lambda: write(before)


def undo_all(undos: list[Undo]) -> Undo:
    """Return how to undo all of these, the last first."""

    def undo() -> None:
        for one in reversed(undos):
            one()

    return undo
