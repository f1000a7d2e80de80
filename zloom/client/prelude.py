"""What came of a run while a recording waited for it, and belongs to the recording. Pure."""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from msgspec import structs

from zloom.messages import Answered, Happened, Reported, Revised
from zloom.model import ReplicaStatus
from zloom.series import points_in

KEPT = 10_000
"""Reports and events that are kept …"""

KEPT_POINTS = 4_000_000
"""… and points in them, 16 bytes each; beyond either the oldest are dropped and counted."""


@dataclass(frozen=True, slots=True)
class Losses:
    """What a feed has lost since it began.

    Attributes:
        messages: Those that never came, or that its reader was too slow for.
        restarts: Of the broker.
    """

    messages: int = 0
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class _Kept:
    seen: Reported | Happened
    at: float
    before: Losses


class Prelude:
    """The points and events of each attempt that may yet be the one that is recorded, with their moments.

    Nothing but this would have them: revisions and outcomes are in the broker's history, and where the
    replicas are it tells when the recording begins.
    """

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque()
        self._points = 0
        """In what is kept."""
        self._dropped: Counter[str] = Counter()
        """By attempt."""
        self._losses = Losses()

    def see(
        self, observations: Sequence[Reported | Answered | Happened | Revised], losses: Losses, at: float
    ) -> None:
        """Take note of what was watched.

        Args:
            observations: In their order.
            losses: Of the feed until now.
            at: Seconds since the Unix epoch.
        """
        for seen in observations:
            if isinstance(seen, Happened) or (isinstance(seen, Reported) and seen.metrics):
                self._kept.append(_Kept(seen, at, self._losses))
                self._points += _points(seen)
        self._losses = losses
        while len(self._kept) > KEPT or self._points > KEPT_POINTS:
            oldest = self._kept.popleft().seen
            self._points -= _points(oldest)
            self._dropped[_attempt(oldest)] += 1

    def of(self, attempt: str) -> Iterator[tuple[Reported | Happened, float]]:
        """Yield what is kept of an attempt, and when it came."""
        return ((kept.seen, kept.at) for kept in self._kept if _attempt(kept.seen) == attempt)

    def losses_before(self, attempt: str) -> Losses:
        """Return what the feed had lost before all that is kept of an attempt: that is missing nowhere."""
        first = next((kept.before for kept in self._kept if _attempt(kept.seen) == attempt), self._losses)
        return replace(first, messages=first.messages - self._dropped[attempt])

    def first_of(self, attempt: str, statuses: Sequence[ReplicaStatus]) -> list[ReplicaStatus]:
        """Return statuses with the `step` up to which no points are kept, and what was `dropped` by then."""
        known: dict[str, tuple[int, int]] = {}
        for seen, _ in self.of(attempt):
            if isinstance(seen, Reported):
                first = min((step for series in seen.metrics.values() for step in series.steps), default=1)
                known.setdefault(seen.status.replica, (max(0, first - 1), seen.status.dropped))
            elif seen.event.kind == "joined":
                for replica in seen.event.replicas:
                    known.setdefault(replica, (0, 0))
        return [
            structs.replace(each, step=known[each.replica][0], dropped=known[each.replica][1])
            if each.replica in known
            else each
            for each in statuses
        ]


def _attempt(seen: Reported | Happened) -> str:
    return seen.status.attempt if isinstance(seen, Reported) else seen.event.attempt


def _points(seen: Reported | Happened) -> int:
    return points_in(seen.metrics) if isinstance(seen, Reported) else 0
