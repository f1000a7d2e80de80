"""When the changes of an open loop should be sent, and how long each took from then on."""

from collections.abc import Sequence
from dataclasses import dataclass

SECOND = 1_000_000_000
"""In nanoseconds, as all times here; they count from the first change's."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Changes at equal distances.

    Attributes:
        rate: Changes a second.
        count: How many.
    """

    rate: int
    count: int

    def intended(self) -> list[int]:
        """Return when each should be sent, whatever became of those before it."""
        return [number * SECOND // self.rate for number in range(self.count)]

    @property
    def length(self) -> int:
        """When one more than `count` would be sent."""
        return self.count * SECOND // self.rate


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of changes.

    Attributes:
        pace: At which they should have been sent.
        answered: When each was answered; None where it was not until the end.
        end: When nobody waited any longer.
    """

    pace: Pace
    answered: Sequence[int | None]
    end: int

    def latencies(self) -> list[int]:
        """Return how long each took, from when it should have been sent: a sender who is late hides nothing.

        One without an answer counts with what it had waited at the end. Left out, a contender would look the
        better the more it leaves unanswered.
        """
        pairs = zip(self.pace.intended(), self.answered, strict=True)
        return [(self.end if answered is None else answered) - intended for intended, answered in pairs]

    @property
    def unanswered(self) -> int:
        """Changes that had no answer at the end."""
        return sum(each is None for each in self.answered)

    def answered_a_second(self) -> float:
        """Return the rate that was reached: the pace's own where the last answer came within its length."""
        times = [each for each in self.answered if each is not None]
        return len(times) * SECOND / max([self.pace.length, *times])
