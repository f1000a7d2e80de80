"""What a journal that may be damaged comes to, from its newest intact snapshot on and against its head."""

import sqlite3
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field

from zloom_broker.journal.chain import GENESIS, ChainBroken, Link
from zloom_broker.journal.folder import JournalFolder
from zloom_broker.journal.head import read_head
from zloom_broker.journal.reading import read_base, read_chain, read_rows, reading, recording
from zloom_broker.journal.schema import check_version
from zloom_broker.journal.snapshots import (
    Snapshot,
    check_snapshot,
    copies_kept,
    read_snapshot,
    snapshot_numbers,
    worn_copies,
)

NO_STATE = "no snapshot is intact, and the rows that could stand in for one were lost in a repair"


@dataclass
class Survey:
    """What the newest snapshot and the rows after it came to.

    Attributes:
        base: The link before the first row of the journal.
        snapshot: The newest intact snapshot, if any.
        damaged: The rows of newer snapshots, which are not intact.
        rows: Number and payload of the rows after the snapshot that continue the chain.
        end: The link of the last row that can be trusted.
        head: What the head file says was confirmed, if it is there and intact.
        problems: Why the journal must not be continued.
        notes: What is wrong and costs nothing: a damaged snapshot that an older one or the rows replace, or a
            copy that another one stands in for.
    """

    base: Link = GENESIS
    snapshot: Snapshot | None = None
    damaged: set[int] = field(default_factory=set)
    rows: list[tuple[int, bytes]] = field(default_factory=list)
    end: Link = GENESIS
    head: Link | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def survey_newest(folder: JournalFolder, rejected: Container[int] = ()) -> Survey:
    """Verify a journal from its newest intact snapshot on, and against its head.

    Args:
        folder: Where it is.
        rejected: The rows of snapshots that count as damaged, whatever their hashes say.

    Raises:
        JournalError: It could not be read, which does not mean that it is damaged; or a newer zloom wrote it.
    """
    survey = Survey(head=read_head(folder.head))
    if not folder.database.exists():
        survey.problems += missing_database(folder, survey.head)
        return survey
    with reading(folder.database) as connection:
        with recording(survey.problems):
            check_version(connection)
        with recording(survey.problems):
            survey.base = survey.end = read_base(connection)
        _read_snapshot(connection, survey, rejected)
        with recording(survey.problems):
            _read_tail(connection, survey)
        with recording(survey.problems):
            survey.problems += compare_with_head(
                folder, survey.head, survey.end, lambda seq: read_chain(connection, seq)
            )
    return survey


def compare_with_head(
    folder: JournalFolder, head: Link | None, end: Link, chain_of: Callable[[int], bytes | None]
) -> Iterable[str]:
    """Yield what the head file says against a journal that is in order up to `end`.

    A journal that is longer than its head is in order: a commit was not confirmed when its broker ended.
    """
    if head is None:
        if end.seq > 0:
            state = "damaged" if folder.head.exists() else "missing"
            yield f"the head file is {state}, so nobody knows whether rows after row {end.seq} are missing"
    elif end.seq < head.seq:
        yield f"the journal is in order up to row {end.seq} only, but row {head.seq} was confirmed"
    elif chain_of(head.seq) != head.chain:
        yield f"row {head.seq} is not the one that was confirmed"


def missing_database(folder: JournalFolder, head: Link | None) -> list[str]:
    """Return what to say where there is no database, though there should be."""
    confirmed = "" if head is None else f", but row {head.seq} was confirmed"
    return [f"{folder.database.name} is missing{confirmed}"]


def _read_snapshot(connection: sqlite3.Connection, survey: Survey, rejected: Container[int]) -> None:
    copies = copies_kept(survey.base.seq)
    numbers = snapshot_numbers(connection, survey.problems)
    for seq in numbers:
        if seq in rejected:
            continue
        with recording(survey.problems, survey.notes):
            survey.snapshot = read_snapshot(connection, seq, copies, survey.problems)
            survey.end = survey.snapshot.link
            survey.notes += worn_copies(survey.snapshot)
            break
    survey.damaged.update(seq for seq in numbers if seq > survey.end.seq)
    if survey.snapshot is not None:
        with recording(survey.problems):
            check_snapshot(survey.snapshot, read_chain(connection, survey.end.seq))


def _read_tail(connection: sqlite3.Connection, survey: Survey) -> None:
    if survey.snapshot is None and survey.base != GENESIS:
        survey.end = GENESIS
        raise ChainBroken(NO_STATE)
    for link, payload in read_rows(connection, survey.end):
        survey.rows.append((link.seq, payload))
        survey.end = link
