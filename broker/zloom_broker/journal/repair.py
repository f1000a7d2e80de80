"""`zloom journal verify` and `zloom journal repair`."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from zloom.errors import JournalError
from zloom_broker.journal.chain import GENESIS, ChainBroken, Link
from zloom_broker.journal.folder import JournalFolder
from zloom_broker.journal.head import HeadFile, read_head
from zloom_broker.journal.reading import read_base, read_chain, read_rows, reading, recording
from zloom_broker.journal.schema import DATABASE_ERRORS, check_version, connect
from zloom_broker.journal.snapshots import (
    Snapshot,
    check_snapshot,
    copies_kept,
    read_snapshot,
    snapshot_numbers,
    worn_copies,
)
from zloom_broker.journal.store import create_database
from zloom_broker.journal.survey import NO_STATE, compare_with_head, missing_database, survey_newest


@dataclass
class VerifyReport:
    """What the whole of a journal came to.

    Attributes:
        first_seq: The row that the journal begins with: 1, except after a repair that lost older ones.
        rows: Rows that were verified, from the first on.
        last_seq: The last of them; 0 where there is none.
        head_seq: The last row that was confirmed, or None where the head file does not say.
        snapshots: The rows of which there is an intact snapshot, the newest first.
        problems: What is wrong, one line each.
        notes: Copies that are not intact where another one is, a line each; a broker writes them anew.
    """

    first_seq: int = 1
    rows: int = 0
    last_seq: int = 0
    head_seq: int | None = None
    snapshots: tuple[int, ...] = ()
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


@dataclass(frozen=True)
class RepairReport:
    """What a repair did, or would do.

    Attributes:
        found: What was wrong.
        repaired: Whether the journal was rebuilt.
        first_seq: The first row that is kept as a row; those before it live on in the snapshot only.
        last_seq: The last row that is kept; the broker goes on after it.
        lost: Confirmed rows after `last_seq` that are lost, as far as is known.
        quarantine: Where the old files are, if anything was done.
    """

    found: VerifyReport
    repaired: bool
    first_seq: int
    last_seq: int
    lost: int
    quarantine: Path | None = None


@dataclass(frozen=True)
class _Plan:
    base: Link
    last_seq: int
    snapshots: tuple[int, ...]


def verify(data_dir: Path) -> VerifyReport:
    """Check every row and snapshot of a journal, and its head; changes nothing, also while a broker uses it.

    Raises:
        JournalError: There is no journal, or it cannot be read.
    """
    folder = JournalFolder(data_dir)
    if not folder.has_database() and not folder.head.exists():
        raise JournalError(f"there is no journal in {data_dir}")
    return _verify(folder)


def repair(data_dir: Path, accept_loss: bool) -> RepairReport:
    """Rebuild a damaged journal from what is intact; the old files are copied aside first, and kept.

    Kept is what reaches furthest: all rows up to the first damaged one, or the newest intact snapshot and the
    rows after it. The latter loses the rows before it, which the snapshot's state stands for.

    Args:
        data_dir: The broker's data folder.
        accept_loss: Whether to do it. If not, the report says what would be done.

    Raises:
        JournalError: There is no journal, a broker uses it, or it cannot be read or written.
    """
    folder = JournalFolder(data_dir)
    if not folder.has_database() and not folder.head.exists():
        raise JournalError(f"there is no journal in {data_dir}")
    lock = folder.lock()
    try:
        return _repair(folder, accept_loss)
    except (OSError, *DATABASE_ERRORS) as error:
        raise JournalError(f"the journal in {data_dir} cannot be repaired: {error}") from error
    finally:
        lock.release()


def _verify(folder: JournalFolder) -> VerifyReport:
    head = read_head(folder.head)  # before the rows: a running broker writes it after them
    report = VerifyReport(head_seq=None if head is None else head.seq)
    if not folder.database.exists():
        report.problems += missing_database(folder, head)
        return report
    with reading(folder.database) as connection:
        with recording(report.problems):
            check_version(connection)
        end = _verify_rows(connection, report)
        _verify_snapshots(connection, report)
        with recording(report.problems):
            report.problems += compare_with_head(folder, head, end, lambda seq: read_chain(connection, seq))
    return report


def _verify_rows(connection: sqlite3.Connection, report: VerifyReport) -> Link:
    end = GENESIS
    with recording(report.problems):
        end = read_base(connection)
    report.first_seq, report.last_seq = end.seq + 1, end.seq
    with recording(report.problems):
        for link, _ in read_rows(connection, end):
            end = link
            report.rows += 1
            report.last_seq = end.seq
    return end


def _verify_snapshots(connection: sqlite3.Connection, report: VerifyReport) -> None:
    copies = copies_kept(report.first_seq - 1)
    for seq in snapshot_numbers(connection, report.problems):
        with recording(report.problems):
            snapshot = read_snapshot(connection, seq, copies, report.problems)
            check_snapshot(snapshot, read_chain(connection, seq))
            report.snapshots += (seq,)
            report.notes += worn_copies(snapshot)
    if report.first_seq > 1 and not report.snapshots:
        report.problems.append(NO_STATE)


def _repair(folder: JournalFolder, accept_loss: bool) -> RepairReport:
    found = _verify(folder)
    plan = _plan(folder, found)
    lost = max(0, (found.head_seq or 0) - plan.last_seq)
    if found.ok or not accept_loss:
        return RepairReport(found, False, plan.base.seq + 1, plan.last_seq, lost)
    quarantine = folder.quarantine()
    end = _rebuild(folder, plan)
    HeadFile(folder.head, end).close()
    return RepairReport(found, True, plan.base.seq + 1, end.seq, lost, quarantine)


def _plan(folder: JournalFolder, found: VerifyReport) -> _Plan:
    """Choose between the rows from the first on and those from the newest intact snapshot on."""
    newest = survey_newest(folder)
    if newest.end.seq > found.last_seq and newest.snapshot is not None:
        return _Plan(newest.snapshot.link, newest.end.seq, (newest.snapshot.link.seq,))
    if newest.snapshot is None and newest.base != GENESIS:
        return _Plan(GENESIS, 0, ())  # rows with nothing to apply them to
    usable = tuple(seq for seq in found.snapshots if seq <= found.last_seq)
    return _Plan(newest.base, found.last_seq, usable)


def _rebuild(folder: JournalFolder, plan: _Plan) -> Link:
    ends = [plan.base]
    if folder.database.exists():
        with reading(folder.database) as connection:
            create_database(folder, plan.base, _kept(connection, plan, ends), _snapshots(connection, plan))
        _fold(folder)
    else:
        create_database(folder)
    for stale in (folder.wal, folder.shared_memory):
        stale.unlink(missing_ok=True)
    folder.adopt_database()
    return ends[-1]


def _kept(connection: sqlite3.Connection, plan: _Plan, ends: list[Link]) -> Iterator[tuple[Link, bytes]]:
    with suppress(ChainBroken, *DATABASE_ERRORS):
        for link, payload in read_rows(connection, plan.base):
            ends[:] = [link]
            yield link, payload


def _snapshots(connection: sqlite3.Connection, plan: _Plan) -> Iterator[Snapshot]:
    return (read_snapshot(connection, seq, copies_kept(plan.base.seq), []) for seq in plan.snapshots)


def _fold(folder: JournalFolder) -> None:
    """Move the old log's rows into the old database: a crash before the new one is there then loses none."""
    with suppress(JournalError, *DATABASE_ERRORS), closing(connect(folder.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
