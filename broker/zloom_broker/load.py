"""How busy the broker is: how late its loop is, how long commits take, how many messages come. Pure."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

WINDOW = 10.0
"""Seconds over which rates are taken: a flood shows soon, and one message a beat does too."""

KEPT = 100
"""Commits and timers of which the times are kept: at one timer a beat, more than a minute."""

RECEIVED = "received_"
"""What the counters of messages begin with; the message's type follows."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The broker's numbers at one moment.

    Attributes:
        counters: Since it began, by name.
        gauges: As of then, by name.
        at: Seconds of `now`, on the system's monotonic clock.
    """

    counters: Mapping[str, int]
    gauges: Mapping[str, float]
    at: float


class Load:
    """Measures of one broker. Times are those of `now`, in seconds."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque(maxlen=KEPT)
        self._commits: deque[float] = deque(maxlen=KEPT)
        self._open: deque[tuple[int, float]] = deque()
        self._samples: deque[tuple[float, dict[str, int]]] = deque()

    def rang(self, due: float, now: float) -> None:
        """A timer rang that was due then: what comes later than that, the loop was busy with other things."""
        self._lags.append(max(0.0, now - due))

    def submitted(self, seq: int, now: float) -> None:
        """Rows up to `seq` went to the journal."""
        self._open.append((seq, now))

    def committed(self, seq: int, now: float) -> None:
        """Rows up to `seq` are on disk."""
        while self._open and self._open[0][0] <= seq:
            self._commits.append(now - self._open.popleft()[1])

    def commit_failed(self) -> None:
        """What was on its way was not written."""
        self._open.clear()

    def count(self, counters: Mapping[str, int], now: float) -> None:
        """Take note of the counters of messages; once in a while will do."""
        received = {name: count for name, count in counters.items() if name.startswith(RECEIVED)}
        self._samples.append((now, received))
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW:
            self._samples.popleft()

    def gauges(self, now: float) -> dict[str, float]:
        """Return the measures as of now, in seconds and in messages a second, by name."""
        oldest = now - self._open[0][1] if self._open else 0.0
        return {
            "loop_lag_seconds_median": median(self._lags) if self._lags else 0.0,
            "loop_lag_seconds_max": max(self._lags, default=0.0),
            "commit_seconds_median": median(self._commits) if self._commits else 0.0,
            "commit_seconds_max": max([oldest, *self._commits]),
            "journal_queue": float(len(self._open)),
            **self._rates(),
        }

    def _rates(self) -> dict[str, float]:
        if len(self._samples) < 2:
            return {}
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        seconds = last - first
        if seconds <= 0.0:
            return {}
        return {f"rate_{name}": (count - before.get(name, 0)) / seconds for name, count in after.items()}
