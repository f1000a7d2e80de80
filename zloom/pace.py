"""How long a step takes, from looks at the step counter now and then. Pure."""

from collections import deque
from statistics import median

SAMPLES = 32
"""Looks that count, half a minute of them: a change of batch size shows, one slow step does not."""


class Pace:
    """Measures without any work at a step itself, which would cost more than everything else in it."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._since: tuple[int, float] | None = None

    @property
    def step_time(self) -> float | None:
        """Median seconds a step, None before one was seen to pass."""
        return median(self._samples) if self._samples else None

    def look(self, step: int, trained: float, *, waits: bool) -> None:
        """Take note of the step that is under way.

        Args:
            step: Its number.
            trained: Seconds from any moment on, less those in which something else than training went on.
            waits: It is held up, for nobody knows how long: what is between two such looks does not count.
        """
        if waits:
            self._since = None
        elif self._since is None:
            self._since = step, trained
        elif step > self._since[0] and trained > self._since[1]:
            self._samples.append((trained - self._since[1]) / (step - self._since[0]))
            self._since = step, trained
