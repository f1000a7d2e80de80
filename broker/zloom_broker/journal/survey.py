"""Reading a journal that may be damaged, without changing a byte of it."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from zloom.errors import JournalError
from zloom_broker.journal.chain import GENESIS, ChainBroken, Link, snapshot_digest, verified
from zloom_broker.journal.folder import JournalFolder
from zloom_broker.journal.head import read_head
from zloom_broker.journal.schema import check_version
from zloom_broker.parts import DIGEST_SIZE, Parts, digest_of_part

_PART = "SELECT content FROM parts WHERE digest = ? ORDER BY copy"

NO_STATE = "no snapshot is intact, and the rows that could stand in for one were lost in a repair"

# What SQLite answers when the journal may be in order and something around it is not.
_NOT_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
    }
)


@dataclass(frozen=True)
class Snapshot:
    """The owner's state as of `link`, with the parts that it shares with other snapshots."""

    link: Link
    payload: bytes
    parts: Parts = field(default_factory=dict)
    worn: frozenset[bytes] = field(default=frozenset(), compare=False)
    """Digests of those of which a copy is missing or damaged, and another one intact."""

    @property
    def digests(self) -> bytes:
        """The digests of its parts, one after the other, as the database has them."""
        return b"".join(self.parts)


@dataclass
class Survey:
    """What the newest snapshot and the rows after it came to.

    Attributes:
        base: The link before the first row of the journal.
        snapshot: The newest intact snapshot, if any.
        rows: Number and payload of the rows after the snapshot that continue the chain.
        end: The link of the last row that can be trusted.
        head: What the head file says was confirmed, if it is there and intact.
        problems: Why the journal must not be continued.
        notes: What is wrong and costs nothing: a damaged snapshot that an older one or the rows replace.
    """

    base: Link = GENESIS
    snapshot: Snapshot | None = None
    rows: list[tuple[int, bytes]] = field(default_factory=list)
    end: Link = GENESIS
    head: Link | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@contextmanager
def reading(database: Path) -> Iterator[sqlite3.Connection]:
    """One consistent view of a database, also while a broker writes to it.

    Opened read-only: the last connection that is not would, on leaving, fold the write-ahead log into the
    database as far as it is intact and delete it, and with it the evidence.
    """
    uri = f"{database.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.text_factory = bytes  # damaged text is for the hash to find, not for the decoder
        connection.execute("BEGIN")
        yield connection


@contextmanager
def recording(problems: list[str], notes: list[str] | None = None) -> Iterator[None]:
    """Turn damage that shows in the body into a line of `problems`.

    Args:
        problems: Takes what SQLite finds, and the rest too, unless there are
        notes: Takes what only our own hashes find.

    Raises:
        JournalError: The database could not be read for a reason that says nothing about its content.
    """
    try:
        yield
    except ChainBroken as error:
        (problems if notes is None else notes).append(str(error))
    except sqlite3.Error as error:
        # The low byte is the kind of error, the rest a detail.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_DAMAGE:
            raise JournalError(f"the journal could not be read: {error}") from error
        text = f"the database is damaged: {error}"
        if text not in problems:
            problems.append(text)


def survey_newest(folder: JournalFolder) -> Survey:
    """Verify a journal from its newest intact snapshot on, and against its head.

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
        _read_snapshot(connection, survey)
        with recording(survey.problems):
            _read_tail(connection, survey)
        with recording(survey.problems):
            survey.problems += compare_with_head(
                folder, survey.head, survey.end, lambda seq: read_chain(connection, seq)
            )
    return survey


def survey_rows(folder: JournalFolder) -> Survey:
    """Verify all rows of a journal that is in order, without its snapshots.

    Raises:
        JournalError: It could not be read.
    """
    survey = Survey()
    with reading(folder.database) as connection, recording(survey.problems):
        survey.base = read_base(connection)
        _read_tail(connection, survey)
    return survey


def read_base(connection: sqlite3.Connection) -> Link:
    """Return the link before the first row of the journal."""
    row = connection.execute("SELECT seq, chain FROM base").fetchone()
    if row is None:
        raise ChainBroken("the journal no longer says with which row it begins")
    return Link(*row)


def read_rows(connection: sqlite3.Connection, start: Link) -> Iterator[tuple[Link, bytes]]:
    """Yield the rows after `start` for as long as they continue the chain; see `chain.verified`."""
    rows = connection.execute("SELECT seq, payload, chain FROM rows WHERE seq > ? ORDER BY seq", (start.seq,))
    return verified(rows, start)


def read_chain(connection: sqlite3.Connection, seq: int) -> bytes | None:
    """Return the hash that the journal holds for row `seq`, or for its base; not verified."""
    query = "SELECT chain FROM rows WHERE seq = ?1 UNION ALL SELECT chain FROM base WHERE seq = ?1"
    row = connection.execute(query, (seq,)).fetchone()
    return None if row is None else row[0]


def snapshot_numbers(connection: sqlite3.Connection) -> list[int]:
    """Return the row numbers of all snapshots, the newest first."""
    return [seq for (seq,) in connection.execute("SELECT seq FROM snapshots ORDER BY seq DESC")]


def read_snapshot(connection: sqlite3.Connection, seq: int, base_seq: int) -> Snapshot:
    """Return the snapshot of row `seq` with its parts.

    Args:
        connection: To the database.
        seq: Number of a row of which there is a snapshot.
        base_seq: After which row the journal begins.

    Raises:
        ChainBroken: It is damaged, or a part is.
    """
    link, payload, digests = read_without_parts(connection, seq)
    parts: dict[bytes, bytes] = {}
    worn: set[bytes] = set()
    for digest in digests:
        found = [row for (row,) in connection.execute(_PART, (digest,))]
        intact = [each for each in found if isinstance(each, bytes) and digest_of_part(each) == digest]
        if not intact:
            state = "damaged" if found else "missing"
            raise ChainBroken(
                f"the snapshot of row {seq} is damaged: its part {digest.hex()[:16]} is {state}"
            )
        parts[digest] = intact[0]
        if len(intact) < copies_of_parts(base_seq):
            worn.add(digest)
    return Snapshot(link, payload, parts, frozenset(worn))


def copies_of_parts(base_seq: int) -> int:
    """Return how many copies of each part a journal has that begins after some row.

    Two, where rows were lost that could stand in for one that is damaged.
    """
    return 2 if base_seq else 1


def read_without_parts(connection: sqlite3.Connection, seq: int) -> tuple[Link, bytes, list[bytes]]:
    """Return the link and the payload of the snapshot of row `seq`, and the digests of its parts.

    Raises:
        ChainBroken: It is damaged. Of the parts that is not known.
    """
    query = "SELECT chain, payload, parts, digest FROM snapshots WHERE seq = ?"
    chain, payload, parts, digest = connection.execute(query, (seq,)).fetchone()
    are_bytes = all(isinstance(each, bytes) for each in (chain, payload, parts))
    if not are_bytes or snapshot_digest(Link(seq, chain), payload, parts) != digest:
        raise ChainBroken(f"the snapshot of row {seq} is damaged: its hash does not match its content")
    digests = [parts[start : start + DIGEST_SIZE] for start in range(0, len(parts), DIGEST_SIZE)]
    return Link(seq, chain), payload, digests


def check_snapshot(snapshot: Snapshot, chain: bytes | None) -> None:
    """Compare a snapshot with the hash that the journal holds for its row.

    Raises:
        ChainBroken: One of the two is not of this journal, or the row is missing.
    """
    seq = snapshot.link.seq
    if chain is None:
        raise ChainBroken(f"row {seq} is missing, but there is a snapshot of it")
    if chain != snapshot.link.chain:
        raise ChainBroken(f"row {seq} is not the one of which the snapshot was taken")


def worn_parts(snapshot: Snapshot) -> list[str]:
    """Return what to say of the parts of a snapshot of which a copy is not intact."""
    names = sorted(digest.hex()[:16] for digest in snapshot.worn)
    where = f"of the snapshot of row {snapshot.link.seq} is missing or damaged; another one stands in for it"
    return [f"a copy of part {name} {where}" for name in names]


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


def _read_snapshot(connection: sqlite3.Connection, survey: Survey) -> None:
    numbers: list[int] = []
    with recording(survey.problems):
        numbers = snapshot_numbers(connection)
    for seq in numbers:
        with recording(survey.problems, survey.notes):
            survey.snapshot = read_snapshot(connection, seq, survey.base.seq)
            survey.end = survey.snapshot.link
            survey.notes += worn_parts(survey.snapshot)
            break
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
