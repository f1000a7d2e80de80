"""What came of one replica while a declaration of it is being written: in its order, and bounded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from zloom.messages import Status
from zloom.series import points_in

MAX_STATUSES = 16
"""Statuses that are held. They come once a beat, so a disk that takes longer than so many hangs; of all that
came meanwhile the newest says most."""

MAX_POINTS = 5_000
"""Points of metrics in those before the newest: as many as a weavelet puts into one."""

Action = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Item:
    """Something to be done."""

    kind: Literal["status", "declare", "goodbye", "hello"]
    action: Action
    points: int = 0


class Held:
    """Keeps what is to be done once the declaration is written; not thread-safe.

    A disk may hang for minutes, and what a peer sends meanwhile only the peer bounds.

    Args:
        items: To begin with, oldest first.
    """

    def __init__(self, items: Sequence[Item] = ()) -> None:
        self._items = list(items)

    @property
    def items(self) -> tuple[Item, ...]:
        """What is held, oldest first."""
        return tuple(self._items)

    @property
    def comes_back(self) -> bool:
        """Whether a hello is held: what its replica declares from then on, that says."""
        return any(item.kind == "hello" for item in self._items)

    def status(self, status: Status, action: Action) -> int:
        """Hold a status; return how many older ones had to go for it."""
        points = points_in(status.metrics)
        before = len(self._items)
        count = older = 0
        kept: list[Item] = []
        for item in reversed(self._items):
            if item.kind == "status":
                count, older = count + 1, older + item.points
            if item.kind != "status" or (count < MAX_STATUSES and older <= MAX_POINTS):
                kept.append(item)
        self._items = [*reversed(kept), Item("status", action, points)]
        return before - len(kept)

    def declare(self, action: Action) -> None:
        """Hold a declaration, in the place of one before: what came behind that may need this one's keys."""
        item = Item("declare", action)
        if any(each.kind == "declare" for each in self._items):
            self._items = [item if each.kind == "declare" else each for each in self._items]
        else:
            self._items.append(item)

    def goodbye(self, action: Action) -> None:
        """Hold a goodbye, unless one is held that nobody came after."""
        for item in reversed(self._items):
            if item.kind == "goodbye":
                return
            if item.kind == "hello":
                break
        self._items.append(Item("goodbye", action))

    def hello(self, action: Action) -> None:
        """Hold a hello, in place of one before, which nobody waits for any more."""
        kept: list[Item] = []
        for item in self._items:
            again = item.kind == "goodbye" and any(each.kind == "goodbye" for each in kept)
            if item.kind != "hello" and not again:
                kept.append(item)
        self._items = [*kept, Item("hello", action)]

    def drop_hello(self) -> None:
        """Hold no hello any more: nobody comes back."""
        self._items = [item for item in self._items if item.kind != "hello"]
