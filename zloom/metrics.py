"""The points that a trainer reports, on their way from the training thread to the weavelet's loop."""

import contextlib
import warnings
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any

from zloom.codec import is_sendable
from zloom.cuda_copies import Copy, CopyPool
from zloom.model import MAX_METRIC_NAME, MAX_METRICS
from zloom.readings import Reading, read, read_in_place
from zloom.series import Series

POINTS_TAKEN = 5_000
"""Points that are taken at once: to take, encode and send them keeps the training thread waiting for the
interpreter for a millisecond or two."""

POINTS_KEPT = 100_000
"""Points kept while nobody takes them: 20 metrics at 10 steps a second for 8 minutes."""

UNREAD_POINTS = 100
"""Points that are read together. One that is read between two steps of a millisecond takes 5 µs, as what
reads it has left the caches; of 100 in a row each takes one or two."""

SURPLUS_SHOWN = 40
"""Characters that a warning shows of a name that is one too many."""


_Row = tuple[int, Mapping[str, Any]]


class MetricBuffer:
    """Keeps the newest points, and drops and counts the oldest beyond its limit.

    `append` belongs to the training thread, `drain` to one other. They share a deque, whose `append` and
    `popleft` each happen as a whole, with or without the GIL: a row goes to `drain`, or to the `append`
    that makes room, never to both. Each counter has one writer; a reader may see it late, which shifts
    the limit by the rows of that moment. A row is not changed once it is in the deque, but that a tensor in
    it may become the number that it is.

    Attributes:
        ripe: Called on the thread of `append` when there is a batch of points and `drain` has not been called
            since; it must neither wait nor raise.
    """

    def __init__(
        self,
        limit: int = POINTS_KEPT,
        batch: int = POINTS_TAKEN,
        warn: Callable[[str], object] = warnings.warn,
    ) -> None:
        """Create an empty buffer.

        Args:
            limit: Points to keep.
            batch: Points after which it is ripe.
            warn: Takes the text of a warning, once for each metric that cannot be kept.
        """
        self.refused = 0
        """Values that were no numbers."""
        self.ripe: Callable[[], object] = nobody
        self._limit = limit
        self._batch = batch
        self._notice = min(batch, limit)
        """Points beyond which `append` has more to do than to append."""
        self._warn = warn
        self._warned: set[str] = set()
        self.surplus = ""
        """The first name that is beyond the bounds of `zloom.model` or no Unicode, shortened; its points are
        dropped."""
        self._rows: deque[_Row] = deque()
        self._unread: list[dict[str, Any]] = []
        """Of the newest rows, those that still have tensors."""
        self._appended = 0
        self._overflowed = 0
        self._taken = 0
        self._unreadable = 0
        self._unnamed = 0
        self._names: set[str] = set()
        self._copies = CopyPool()
        # Taken from the rows, but not there yet or beyond what was asked for. Known to `drain` alone.
        self._later: dict[str, deque[tuple[int, Reading]]] = {}
        self._later_points = 0

    @property
    def dropped(self) -> int:
        """Points that were kept and lost: not taken in time, of a GPU that failed, of a surplus metric."""
        return self._overflowed + self._unreadable + self._unnamed

    def __len__(self) -> int:
        """Points waiting to be taken."""
        # Two threads that report at once may lose a count, and no length may be below 0.
        return max(0, self._appended - self._overflowed - self._taken + self._later_points)

    @property
    def oldest(self) -> int | None:
        """The oldest step of which points wait to be taken, None where none do; for the thread of `drain`."""
        steps = [points[0][0] for points in self._later.values()]
        with contextlib.suppress(IndexError):  # there are none, or `append` makes room
            steps.append(self._rows[0][0])
        return min(steps, default=None)

    def append(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Keep what the metrics are at this step. Never raises, and never waits for a CUDA device.

        A tensor of one element is copied now: on the CPU its number is read; on CUDA the copy is queued on
        the current stream, and read by `drain`. What is no number is refused, with one warning a metric.

        Args:
            step: Not below that of the call before.
            metrics: Number or tensor by name. The mapping belongs to the buffer from now on.
        """
        for value in metrics.values():
            kind = type(value)
            if kind is not float and kind is not int:
                metrics = self._read(metrics)
                break
        if metrics:
            self._rows.append((step, metrics))
            self._appended += len(metrics)
            if self._appended - self._taken - self._overflowed > self._notice:
                self._swell()

    def append_unread(self, step: int, metrics: dict[str, Any]) -> None:
        """Keep numbers, and tensors of one element on the CPU that nobody changes any more.

        They are read here, some rows together, or by `drain`, and where both do so at once the same comes of
        it. Better here: torch lets go of the GIL for each that it reads and for each that it frees, and
        beside a training `drain` waits to have it back.
        """
        self._rows.append((step, metrics))
        self._appended += len(metrics)
        self._unread.append(metrics)
        if len(self._unread) * len(metrics) >= UNREAD_POINTS:
            self._read_unread()
        if self._appended - self._taken - self._overflowed > self._notice:
            self._swell()

    def _read_unread(self) -> None:
        for metrics in self._unread:
            read_in_place(metrics)
        self._unread.clear()

    def _swell(self) -> None:
        self._make_room()
        if self._notice < self._limit:
            self._notice = self._limit
            self.ripe()

    def _make_room(self) -> None:
        while self._appended - self._taken - self._overflowed > self._limit:
            try:
                _, row = self._rows.popleft()
            except IndexError:  # `drain` has it, and has not counted it yet.
                return
            self._overflowed += len(row)

    def _read(self, metrics: Mapping[str, Any]) -> dict[str, Reading]:
        row: dict[str, Reading] = {}
        for name, value in metrics.items():
            try:
                row[name] = read(value, self._copies)
            except Exception as error:  # noqa: BLE001 - a value of any library may raise anything
                self._refuse(name, error)
        return row

    def _refuse(self, name: str, error: Exception) -> None:
        self.refused += 1
        if name not in self._warned and len(self._warned) < MAX_METRICS:
            self._warned.add(name)
            self._warn(f"metric {name} is not reported: {error}")

    def drain(self, max_points: int) -> dict[str, Series]:
        """Take up to this many points, each metric's in the order of `append`.

        A metric whose copy from CUDA is not done waits, and the others do not wait for it.
        """
        batch = _Batch(max_points)
        self._take_later(batch)
        for names, rows in groupby(self._take_rows(batch.room), key=_names):
            for step, row in self._take_whole(names, list(rows), batch):
                self._take_row(step, row, batch)
        self._unreadable += batch.unreadable
        self._notice = min(self._batch, self._limit)
        return batch.series

    def _take_rows(self, room: int) -> Iterator[_Row]:
        """Yield the oldest rows, until they have as many points as there is room for, or some more."""
        while room > 0 and self._later_points < self._limit:
            try:
                row = self._rows.popleft()
            except IndexError:
                return
            count = len(row[1])
            self._taken += count
            room -= count
            yield row

    def _take_whole(self, names: tuple[str, ...], rows: list[_Row], batch: "_Batch") -> list[_Row]:
        """Take rows of the same metrics column by column, which is ten times as fast; return those left."""
        if not all(name not in self._later and self._is_known(name) for name in names):
            return rows
        count = min(len(rows), batch.room // len(names))
        return rows[count:] if batch.take_columns(names, rows[:count]) else rows

    def _take_row(self, step: int, row: Mapping[str, Any], batch: "_Batch") -> None:
        for name, reading in row.items():
            if not self._is_known(name):
                self._unnamed += 1
            elif name in self._later or not batch.take(name, step, reading):
                self._later.setdefault(name, deque()).append((step, reading))
                self._later_points += 1

    def _is_known(self, name: str) -> bool:
        # Looked at here and not at each `append`, which the training thread pays for.
        if name in self._names:
            return True
        if len(name) <= MAX_METRIC_NAME and len(self._names) < MAX_METRICS and is_sendable(name):
            self._names.add(name)
            return True
        self.surplus = self.surplus or repr(name[:SURPLUS_SHOWN])
        return False

    def _take_later(self, batch: "_Batch") -> None:
        for name, points in list(self._later.items()):
            while points and batch.take(name, *points[0]):
                points.popleft()
                self._later_points -= 1
            if not points:
                del self._later[name]


def _names(row: _Row) -> tuple[str, ...]:
    return tuple(row[1])


def nobody() -> None:
    """Tell nobody."""


_UNREADABLE = (RuntimeError, TypeError, ValueError, OverflowError)
"""The GPU failed, more numbers than one, or 10**400."""

_Columns = tuple["array[int]", "array[float]"]
"""Steps and values."""


class _Batch:
    """What one `drain` takes, in columns."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.unreadable = 0
        self._columns: dict[str, _Columns] = {}

    @property
    def series(self) -> dict[str, Series]:
        return {name: Series.of(*columns) for name, columns in self._columns.items()}

    def take(self, name: str, step: int, reading: Reading) -> bool:
        """Take a point; False when there is no room or it is not there yet."""
        if self.room <= 0:
            return False
        try:
            number = reading.take() if isinstance(reading, Copy) else reading
            if number is None:
                return False
            value = float(number)
        except _UNREADABLE:
            self.unreadable += 1
            return True
        steps, values = self._of(name)
        steps.append(step)
        values.append(value)
        self.room -= 1
        return True

    def take_columns(self, names: tuple[str, ...], rows: list[_Row]) -> bool:
        """Take rows of these metrics, for which there is room; False, and nothing taken, where one waits."""
        try:
            columns = [array("d", column) for column in zip(*(row.values() for _, row in rows), strict=True)]
        except _UNREADABLE:  # told from the others one by one
            return False
        whole = array("q", [step for step, _ in rows])
        for name, column in zip(names, columns, strict=False):  # without rows there are no columns
            steps, values = self._of(name)
            steps.extend(whole)
            values.extend(column)
        self.room -= len(rows) * len(names)
        return True

    def _of(self, name: str) -> _Columns:
        columns = self._columns.get(name)
        if columns is None:
            columns = self._columns[name] = (array("q"), array("d"))
        return columns
