"""One guarded revision at one replica: what was reported before it, and what since. Pure."""

import math
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from statistics import median

from zloom.model import MAX_METRICS
from zloom.series import Series
from zloom_broker.guard_conditions import Guard, metrics, why

BASELINE_POINTS = 50
"""Points of a metric whose median is its baseline: enough that one bad batch does not count, few enough that
they tell of the present where a loss falls."""

EARLY_POINTS = 10_000
"""Points of a metric kept until it is known at which step a guarded revision was applied: of a second at
the pace of the fastest loops, and of the time until its outcome is on disk."""


class RecentPoints:
    """The newest finite points of each metric of one replica, 16 bytes each."""

    def __init__(self) -> None:
        self._columns: dict[str, tuple[array[int], array[float]]] = {}
        """Steps and values."""

    def take(self, metrics: Mapping[str, Series]) -> None:
        """Take in what a status tells."""
        for name, series in metrics.items():
            if name not in self._columns and len(self._columns) >= MAX_METRICS:
                continue
            steps, values = self._columns.setdefault(name, (array("q"), array("d")))
            newest_steps, newest_values = _newest_finite(series)
            steps.extend(newest_steps)
            values.extend(newest_values)
            del steps[:-BASELINE_POINTS], values[:-BASELINE_POINTS]

    def of(self, name: str) -> list[tuple[int, float]]:
        """Return the newest points of a metric, oldest first, each with its step."""
        steps, values = self._columns.get(name, ((), ()))
        return list(zip(steps, values, strict=True))


def _newest_finite(series: Series) -> tuple["array[int]", "array[float]"]:
    """Return steps and values of the newest points for a baseline, oldest first."""
    steps, values = series.steps, series.values
    if all(map(math.isfinite, values[-BASELINE_POINTS:])):
        return steps[-BASELINE_POINTS:], values[-BASELINE_POINTS:]
    finite = [at for at, value in enumerate(values) if math.isfinite(value)][-BASELINE_POINTS:]
    return array("q", [steps[at] for at in finite]), array("d", [values[at] for at in finite])


def baseline(points: Iterable[tuple[int, float]], step: int | None = None) -> float | None:
    """Return the median of the last points before a step; of those that are numbers; None if none is."""
    before = [value for at, value in points if (step is None or at < step) and math.isfinite(value)]
    return median(before[-BASELINE_POINTS:]) if before else None


class Watch:
    """Holds one replica's metrics against the guard of a revision."""

    def __init__(self, guard: Guard, recent: RecentPoints) -> None:
        """Begin before it is known when the replica applies the revision.

        Args:
            guard: Of the revision.
            recent: What the replica reported so far.
        """
        self._guard = guard
        self._start: int | None = None
        self._points = {name: deque(recent.of(name)) for name in metrics(guard.condition)}
        """Of the guard's metrics: those that were not held against it yet."""
        self.unseen = set(self._points)
        """The metrics of the guard of which no point was held against it."""
        self._dropped: int | None = None
        self._newest: dict[str, float] = {}
        self.past = False
        """Its steps passed here."""

    @property
    def begun(self) -> bool:
        """Whether it is known when the replica applied the revision."""
        return self._start is not None

    @property
    def dropped(self) -> int | None:
        """The last step whose points were dropped unjudged, because too many came before it was known that
        the guard was to judge them; None where none were."""
        start, last = self._start, self._dropped
        return last if start is not None and last is not None and last >= start else None

    def take(self, metrics: Mapping[str, Series]) -> None:
        """Take in what a status tells."""
        for name, points in self._points.items():
            if name in metrics:
                while len(points) > EARLY_POINTS:  # none, once `look` takes them
                    step, _ = points.popleft()
                    self._dropped = step if self._dropped is None else max(self._dropped, step)
                points.extend(zip(metrics[name].steps, metrics[name].values, strict=True))

    def baselines(self, step: int) -> dict[str, float]:
        """Return what each metric was before a step, of those that were reported."""
        found = {name: baseline(points, step) for name, points in self._points.items()}
        return {name: value for name, value in found.items() if value is not None}

    def begin(self, step: int) -> None:
        """The revision was applied before this step."""
        self._start = step

    def look(self, awaited: int, baselines: Mapping[str, float]) -> str:
        """Return why the guard fires, in words; empty if it does not, or has not begun.

        Args:
            awaited: The oldest step of which points may still come after what was taken last.
            baselines: Of the replica.
        """
        if self._start is None:
            return ""
        end = self._start + self._guard.within
        late = False
        for step, values in self._by_step():
            late = late or step < end
            if self._start <= step < end:
                self.unseen.difference_update(values)
                self._newest.update(values)
                found = why(self._guard.condition, self._newest, baselines)
                if found:
                    return f"{found} at step {step}"
        # Where one came still, more may, of a replica that does not tell what is awaited.
        self.past = self.past or (awaited >= end and not late)
        return ""

    def _by_step(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield what was not held against the guard yet: of each step the first points, then the second, …"""
        points: list[tuple[int, int, str, float]] = []
        for name, each in self._points.items():
            last, nth = None, 0
            for step, value in each:
                last, nth = step, nth + 1 if step == last else 0
                points.append((step, nth, name, value))
            each.clear()
        points.sort(key=itemgetter(0, 1))
        for (step, _), group in groupby(points, key=itemgetter(0, 1)):
            yield step, {name: value for _, _, name, value in group}
