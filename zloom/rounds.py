"""What a rank's two threads share of one round of a consistent revision, and where ranks decide. Pure.

`docs/consistency.md` states the protocol.
"""

from dataclasses import dataclass
from typing import Protocol

from zloom.model import Revision


@dataclass(frozen=True, slots=True)
class End:
    """How an update ends that was carried out: all ranks keep it, or all undo it and `reason` says why."""

    keep: bool
    reason: str = ""


class Register(Protocol):
    """Where the ranks of a job decide between themselves: for each round the first writer wins.

    Each call returns at once. None means that nobody can tell yet, or that the register cannot be reached.
    """

    @property
    def reachable(self) -> bool:
        """Whether the last call was answered."""

    def decide(self, round: str, commit: bool) -> bool | None:
        """Write a decision unless one stands there, and return the one that does."""

    def conclude(self, round: str, step: int, end: End | None) -> End | None:
        """Write an end unless one stands there, and return the one that does.

        Without an `end` this rank notes that it has carried the update out at `step`; when all ranks have
        noted the same step, the end is that they keep it.
        """

    def part(self, meeting: str, reason: str | None) -> str | None:
        """Return why ranks that met are to end, empty where they go on.

        Args:
            meeting: The safe point that all of them stand at.
            reason: Written unless something stands there; None only looks, and finds None where nothing does.
        """

    def leave(self, meeting: str) -> None:
        """Note that this rank has left a meeting, and asks nothing any more that it was about."""

    def is_needed(self, meeting: str) -> bool:
        """Whether this rank may serve the register, and another has not left a meeting."""


@dataclass(slots=True, eq=False)
class Round:
    """One round: the loop writes what the broker says, the training thread reads it at its safe points."""

    epoch: str
    number: int
    revision: Revision
    step: int
    """The step that this rank does not begin before it knows the decision."""
    void: bool = False
    """Nothing was promised after all."""
    commit: bool | None = None
    """What the broker said of the round; None until it did."""
    reason: str = ""
    forgotten: bool = False
    """Its revision is of a history that was replaced: no rank is to keep it, and nobody asks for it."""
    carried_out: bool = False
    """This rank has carried the update out, and waits for its end."""
    end: End | None = None
    """What the broker said of the update's end."""

    @property
    def name(self) -> str:
        """Unique among all rounds of an attempt."""
        return f"{self.epoch}/{self.revision.revision}/{self.number}"
