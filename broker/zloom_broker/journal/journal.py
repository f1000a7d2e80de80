"""Opening a journal, and what its owner does with it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Literal, Self

from zloom.errors import JournalError
from zloom_broker.journal.chain import GENESIS
from zloom_broker.journal.folder import FolderLock, JournalFolder
from zloom_broker.journal.head import read_head
from zloom_broker.journal.schema import DATABASE_ERRORS
from zloom_broker.journal.store import Store, create_database
from zloom_broker.journal.survey import NO_STATE, Survey, survey_newest
from zloom_broker.journal.writer import JournalCounters, JournalWriter, OnCommitted, OnFailed
from zloom_broker.parts import Parts

Durability = Literal["fsync", "buffered"]

# Seconds: half of what a broker has to leave in.
_CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True)
class Recovered:
    """What a journal held when it was opened, as far as it could be verified.

    Attributes:
        snapshot: The newest intact snapshot, or None where the rows tell everything.
        snapshot_seq: The row as of which it was taken; 0 without one.
        rows: Number and payload of each row after the snapshot, in order.
        notes: Damage that costs nothing, for the log: a snapshot that an older one or the rows stand in for,
            a copy that another one stands in for.
        parts: Those of the snapshot, by their digests.
    """

    snapshot: bytes | None
    snapshot_seq: int
    rows: list[tuple[int, bytes]]
    notes: tuple[str, ...] = ()
    parts: Parts = field(default_factory=dict)

    @property
    def last_seq(self) -> int:
        """The last row that could be verified; 0 where there is none."""
        return self.rows[-1][0] if self.rows else self.snapshot_seq


class Journal:
    """A journal that this process holds the lock of. Made by `open_journal`.

    Attributes:
        data_dir: The folder that it is in.
        durability: ``fsync``, or ``buffered``: see `submit`.
        recovered: What it held when it was opened.
        read_only_reason: Why nothing can be written to it, or None where it can.
    """

    def __init__(
        self,
        lock: FolderLock,
        data_dir: Path,
        durability: Durability,
        recovered: Recovered,
        opened: Store | str,
    ) -> None:
        self.data_dir = data_dir
        self.durability = durability
        self.recovered = recovered
        self.read_only_reason = opened if isinstance(opened, str) else None
        self._lock: FolderLock | None = lock
        self._rejected: set[int] = set()
        """Rows of snapshots that the owner could not use."""
        self._writer = (
            None if isinstance(opened, str) else JournalWriter(opened, sync_all=durability == "fsync")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def counters(self) -> JournalCounters:
        """What was written since the journal was opened, as of now. Thread-safe."""
        return JournalCounters() if self._writer is None else self._writer.counters

    @property
    def snapshot_seq(self) -> int:
        """The row of the newest snapshot that was written since the journal was opened. Thread-safe."""
        return 0 if self._writer is None else self._writer.snapshot_seq

    def reject_snapshot(self) -> None:
        """Take the snapshot that was recovered for damaged; `recovered` is what there is without it.

        For an owner that cannot use it, before `start`.

        Raises:
            JournalError: There is nothing: no other snapshot is intact, and a repair has lost rows. Or what
                would be read instead is damaged, or cannot be read.
        """
        self._rejected.add(self.recovered.snapshot_seq)
        survey = survey_newest(JournalFolder(self.data_dir), self._rejected)
        # What was confirmed must not be cut off there: `recovered` reached further.
        if NO_STATE in survey.problems or (survey.problems and self._writer is not None):
            raise JournalError(f"the journal in {self.data_dir}: {'; '.join(survey.problems)}")
        self.recovered = _recovered(survey)
        if self._writer is not None:
            self._writer.reject_snapshots(survey.damaged)

    def listening(self, endpoints: Sequence[str]) -> None:
        """Have others who want the folder be told where its owner listens; that it cannot be is no matter."""
        if self._lock is not None:
            with suppress(OSError):
                self._lock.tell(endpoints)

    def start(self, on_committed: OnCommitted, on_failed: OnFailed) -> None:
        """Start the thread that writes. A read-only journal has none, and this does nothing.

        Args:
            on_committed: Called on that thread with the number of the last row of each commit; this row and
                all before it are as safe as `submit` was asked to make them.
            on_failed: Called on that thread with the number of a row and the reason, when that row and all
                that were submitted after it are discarded. Submissions are dropped until `resume`. Should the
                process die before the next commit, a row whose sync failed may nevertheless be there.

        Raises:
            LocalProtocolError: It was started or closed before.
        """
        if self._writer is not None:
            self._writer.start(on_committed, on_failed)

    def submit(self, seq: int, payloads: Sequence[bytes], durable: bool = True) -> None:
        """Queue rows to be committed; returns at once. Thread-safe.

        Args:
            seq: The number of the first of them: one more than that of the last row submitted.
            payloads: One for each row.
            durable: Whether they must be on the medium before they are confirmed. If not, and if the
                journal is ``buffered``, they are confirmed when the system has them: they survive the end of
                the process and not of the system. Under ``fsync`` all rows are durable.

        Raises:
            JournalError: The journal is read-only.
            LocalProtocolError: `seq` is not the next, or the journal is not started or closed.
        """
        self._writable().submit(seq, payloads, durable)

    def write_snapshot(self, seq: int, payload: bytes, parts: Parts = MappingProxyType({})) -> None:
        """Queue a snapshot; returns at once. Thread-safe.

        A snapshot that cannot be written is counted and harms nothing.

        Args:
            seq: A row that was submitted.
            payload: The owner's state after exactly the rows up to `seq`.
            parts: What of it is in parts, by `digest_of_part`: those of the snapshot before are not written
                again, so that a state that grows costs each time what has changed of it.

        Raises:
            JournalError: The journal is read-only.
            LocalProtocolError: No such row was submitted, or the journal is not started or closed.
        """
        self._writable().write_snapshot(seq, payload, parts)

    def resume(self, next_seq: int) -> None:
        """Say that the discarded rows are forgotten; the next one submitted is `next_seq`. Thread-safe.

        Raises:
            JournalError: The journal is read-only.
            LocalProtocolError: Nothing has failed, or another row is next.
        """
        self._writable().resume(next_seq)

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> bool:
        """Commit what is queued, end the thread, and give up the lock. Again does nothing.

        Args:
            timeout: Seconds to wait for the disk.

        Returns:
            Whether all was written. If not, the thread goes on and the lock is held as long as the process
            lives; the next call waits again.
        """
        done = self._writer is None or self._writer.close(timeout)
        if done and self._lock is not None:
            self._lock.release()
            self._lock = None
        return done

    def _writable(self) -> JournalWriter:
        if self._writer is None:
            raise JournalError(f"the journal is read-only: {self.read_only_reason}")
        return self._writer


def open_journal(data_dir: Path, *, durability: Durability = "fsync") -> Journal:
    """Open the journal in a folder, which is made where it is missing, and verify it.

    One that is damaged, or shorter than what was confirmed, is copied aside and opened read-only: see
    `Journal.read_only_reason`. One that is longer is in order: its last commit had not been confirmed yet.

    Args:
        data_dir: The broker's data folder.
        durability: See `Journal.submit`.

    Raises:
        JournalError: Another broker uses the folder, a newer zloom wrote it, or it cannot be accessed.
    """
    folder = JournalFolder(data_dir)
    folder.create()
    lock = folder.lock()
    try:
        survey, opened = _open(folder)
    except BaseException as error:
        lock.release()
        if isinstance(error, (OSError, *DATABASE_ERRORS)):
            raise JournalError(f"the journal in {data_dir} cannot be opened: {error}") from error
        raise
    return Journal(lock, data_dir, durability, _recovered(survey), opened)


def _recovered(survey: Survey) -> Recovered:
    notes, snapshot = tuple(survey.notes), survey.snapshot
    if snapshot is None:
        return Recovered(None, 0, survey.rows, notes)
    return Recovered(snapshot.payload, snapshot.link.seq, survey.rows, notes, snapshot.parts)


def _open(folder: JournalFolder) -> tuple[Survey, Store | str]:
    if not folder.has_database() and (read_head(folder.head) == GENESIS or not folder.head.exists()):
        create_database(folder)
        folder.adopt_database()
    survey = survey_newest(folder)
    if survey.problems:
        return survey, _read_only(folder, survey.problems)
    snapshot = survey.snapshot
    intact = snapshot.parts.keys() - snapshot.worn if snapshot is not None else set()
    return survey, Store(folder, survey.end, intact, survey.damaged)


def _read_only(folder: JournalFolder, problems: Sequence[str]) -> str:
    try:
        where = f"a copy is in {folder.quarantine()}"
    except OSError as error:  # a full disk is no reason not to serve what can be read
        where = f"it could not be copied aside ({error})"
    return (
        f"{'; '.join(problems)}; {where}; stop the broker and run "
        "`zloom journal repair --accept-loss` to go on from what is intact"
    )
