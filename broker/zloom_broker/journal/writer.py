"""The thread that commits: whatever waits when it looks goes to the disk in one transaction."""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from time import sleep

from zloom.errors import JournalError, LocalProtocolError
from zloom_broker.journal.schema import DATABASE_ERRORS
from zloom_broker.journal.store import Store
from zloom_broker.parts import Parts

OnCommitted = Callable[[int], None]
OnFailed = Callable[[int, str], None]

GATHER = 0.001
"""Seconds for which a commit waits for more rows while many come: each costs the loop's thread, which shares
the interpreter, two changes of threads. PostgreSQL has `commit_delay` for that."""

MANY = 2.0
"""Times that rows were submitted for each of the last commits, on the average, from which on they wait. That
of whoever makes one change after another is 1."""

MEMORY = 8
"""Commits, about, that this is the average of."""

LULL = 0.02
"""Seconds without rows after which a crowd is over, however many there were."""


@dataclass
class JournalCounters:
    """What a journal has done since it was opened.

    Attributes:
        commits: Transactions with rows.
        rows: Rows in them.
        failures: Batches that could not be committed.
        dropped: Rows that were discarded with, or after, a failed batch.
        snapshots: Snapshots written.
        snapshot_failures: Snapshots that could not be; rows are not affected.
        snapshot_error: Why the last of these could not.
    """

    commits: int = 0
    rows: int = 0
    failures: int = 0
    dropped: int = 0
    snapshots: int = 0
    snapshot_failures: int = 0
    snapshot_error: str | None = None


@dataclass(frozen=True)
class _Rows:
    payloads: tuple[bytes, ...]
    durable: bool


@dataclass(frozen=True)
class _Snapshot:
    seq: int
    payload: bytes
    parts: Parts


class JournalWriter:
    """Owns a `Store` and the thread that uses it. All methods may be called from any thread."""

    def __init__(self, store: Store, *, sync_all: bool) -> None:
        """Take a store over.

        Args:
            store: Closed by this object.
            sync_all: Whether rows are synced even where `submit` says that they need not be.
        """
        self._store = store
        self._sync_all = sync_all
        self._changed = threading.Condition()  # guards all that follows
        self._queue: list[_Rows | _Snapshot] = []
        self._next_seq = store.end.seq + 1
        self._failed = False
        self._closing = False
        self._submitted = 1.0
        """Times that rows were submitted for a commit: an average in which the last ones count most."""
        self._counters = JournalCounters()
        self.snapshot_seq = 0
        """The row of the newest snapshot that was written."""
        self._thread: threading.Thread | None = None

    @property
    def counters(self) -> JournalCounters:
        """A copy of the counters."""
        with self._changed:
            return replace(self._counters)

    def start(self, on_committed: OnCommitted, on_failed: OnFailed) -> None:
        """Start the thread; see `Journal.start`."""
        with self._changed:
            if self._thread is not None or self._closing:
                raise LocalProtocolError("a journal is started once, and before it is closed")
            # A disk that hangs must not keep the broker from leaving, hence a daemon.
            thread = threading.Thread(
                target=self._run, args=(on_committed, on_failed), name="zloom-journal", daemon=True
            )
            thread.start()
            self._thread = thread  # not before: one that could not begin leaves the store to `close`

    def submit(self, seq: int, payloads: Sequence[bytes], durable: bool) -> None:
        """Queue rows; see `Journal.submit`."""
        with self._changed:
            self._require_running()
            if self._failed:
                self._counters.dropped += len(payloads)
                return
            if seq != self._next_seq:
                raise LocalProtocolError(f"row {seq} was submitted where row {self._next_seq} is next")
            if payloads:
                self._next_seq += len(payloads)
                self._queue.append(_Rows(tuple(payloads), durable or self._sync_all))
                self._changed.notify()

    def write_snapshot(self, seq: int, payload: bytes, parts: Parts) -> None:
        """Queue a snapshot; see `Journal.write_snapshot`."""
        with self._changed:
            self._require_running()
            if self._failed:
                self._drop_snapshots(1)
                return
            if not 0 < seq < self._next_seq:
                raise LocalProtocolError(f"a snapshot of row {seq}, but the last row is {self._next_seq - 1}")
            self._queue.append(_Snapshot(seq, payload, parts))
            self._changed.notify()

    def reject_snapshots(self, numbers: Collection[int]) -> None:
        """Take snapshots of these rows for damaged; before `start`."""
        self._store.reject_snapshots(numbers)

    def resume(self, next_seq: int) -> None:
        """Accept rows again after a failure; see `Journal.resume`."""
        with self._changed:
            expected = self._store.end.seq + 1
            if not self._failed or next_seq != expected:
                state = f"row {expected} is next" if self._failed else "nothing has failed"
                raise LocalProtocolError(f"the journal cannot resume at row {next_seq}: {state}")
            self._next_seq = expected
            self._failed = False

    def close(self, timeout: float) -> bool:
        """Commit what is queued, and end the thread; see `Journal.close`."""
        with self._changed:
            already, self._closing = self._closing, True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)
            return not self._thread.is_alive()
        if not already:
            self._store.close()
        return True

    def _require_running(self) -> None:
        if self._closing:
            raise LocalProtocolError("the journal is closed")
        if self._thread is None or not self._thread.is_alive():
            raise LocalProtocolError("the journal's thread is not running; call start() first")

    def _run(self, on_committed: OnCommitted, on_failed: OnFailed) -> None:
        try:
            while batch := self._take():
                rows = [entry for entry in batch if isinstance(entry, _Rows)]
                snapshots = [entry for entry in batch if isinstance(entry, _Snapshot)]
                if self._commit(rows, len(snapshots), on_committed, on_failed):
                    self._snapshot(snapshots)
        finally:
            self._store.close()

    def _take(self) -> list[_Rows | _Snapshot]:
        """Wait for work and return all of it; nothing when the journal was closed."""
        with self._changed:
            if not self._changed.wait_for(self._has_work, LULL):
                self._submitted = 1.0
                self._changed.wait_for(self._has_work)
        if self._submitted > MANY:
            sleep(GATHER)  # not on the condition, which each of those that come would wake
        with self._changed:
            batch, self._queue = self._queue, []
        submitted = sum(isinstance(entry, _Rows) for entry in batch)
        self._submitted += (submitted - self._submitted) / MEMORY
        return batch

    def _has_work(self) -> bool:
        return bool(self._queue) or self._closing

    def _commit(
        self, batch: list[_Rows], snapshots: int, on_committed: OnCommitted, on_failed: OnFailed
    ) -> bool:
        payloads = [payload for entry in batch for payload in entry.payloads]
        if not payloads:
            return True
        try:
            self._store.append(payloads, sync=any(entry.durable for entry in batch))
        except (OSError, JournalError, *DATABASE_ERRORS) as error:
            first = self._fail(len(payloads), snapshots)
            on_failed(first, f"the journal could not be written: {error}")
            return False
        with self._changed:
            self._counters.commits += 1
            self._counters.rows += len(payloads)
        on_committed(self._store.end.seq)
        return True

    def _fail(self, rows: int, snapshots: int) -> int:
        """Discard the queue and refuse more until `resume`; return the first row that is lost."""
        with self._changed:
            queued = sum(len(entry.payloads) for entry in self._queue if isinstance(entry, _Rows))
            self._drop_snapshots(snapshots + sum(isinstance(entry, _Snapshot) for entry in self._queue))
            self._queue.clear()
            self._failed = True
            self._counters.failures += 1
            self._counters.dropped += rows + queued
            return self._store.end.seq + 1

    def _drop_snapshots(self, count: int) -> None:
        if count:
            self._counters.snapshot_failures += count
            self._counters.snapshot_error = "rows before it could not be written"

    def _snapshot(self, batch: list[_Snapshot]) -> None:
        if not batch:
            return
        newest = max(batch, key=lambda entry: entry.seq)
        try:
            self._store.write_snapshot(newest.seq, newest.payload, newest.parts)
        except (OSError, JournalError, *DATABASE_ERRORS) as error:
            with self._changed:
                self._counters.snapshot_failures += 1
                self._counters.snapshot_error = str(error)
        else:
            with self._changed:
                self._counters.snapshots += 1
                self.snapshot_seq = newest.seq
