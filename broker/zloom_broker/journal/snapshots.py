"""Snapshots and their parts in the database: once each, or twice where no rows stand in for them.

Second copies stand in tables of their own, hence on other pages: SQLite may read nothing of a table of which
one page is damaged.
"""

import sqlite3
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zloom.errors import JournalError
from zloom.words import counted
from zloom_broker.journal.chain import ChainBroken, Link, snapshot_digest
from zloom_broker.journal.reading import recording
from zloom_broker.parts import DIGEST_SIZE, Parts, digest_of_part

SNAPSHOTS_KEPT = 2
"""One to start from, and one more for when that is damaged. They share the parts that both have: where one of
these is damaged, the rows stand in for it, or its other copy where rows were lost."""

_SNAPSHOTS = ("snapshots", "snapshot_copies")
_PARTS = ("parts", "part_copies")


@dataclass(frozen=True)
class Snapshot:
    """The owner's state as of `link`, with the parts that it shares with other snapshots."""

    link: Link
    payload: bytes
    parts: Parts = field(default_factory=dict)
    is_worn: bool = field(default=False, compare=False)
    """Whether a copy of it is missing or damaged, and another one intact; its parts aside."""
    worn: frozenset[bytes] = field(default=frozenset(), compare=False)
    """Digests of those parts of which that is so."""

    @property
    def digests(self) -> bytes:
        """The digests of its parts, one after the other, as the database has them."""
        return b"".join(self.parts)


class Outline(NamedTuple):
    """A snapshot as the database has it: with the digests of its parts, and in how many intact copies."""

    link: Link
    payload: bytes
    digests: list[bytes]
    copies: int


# --- reading -------------------------------------------------------------------------------------


def copies_kept(base_seq: int) -> int:
    """Return how many copies of snapshots and parts a journal has that begins after some row.

    Two, where rows were lost that could stand in for one that is damaged.
    """
    return 2 if base_seq else 1


def snapshot_numbers(connection: sqlite3.Connection, problems: list[str]) -> list[int]:
    """Return the row numbers of all snapshots, the newest first.

    Args:
        connection: To the database.
        problems: Takes what SQLite cannot read.
    """
    numbers: set[int] = set()
    for table in _SNAPSHOTS:
        with recording(problems):
            for (seq,) in connection.execute(f"SELECT seq FROM {table} ORDER BY seq DESC"):
                if not isinstance(seq, int) or seq < 1:
                    raise ChainBroken("a snapshot no longer says of which row it is")
                numbers.add(seq)
    return sorted(numbers, reverse=True)


def read_snapshot(connection: sqlite3.Connection, seq: int, copies: int, problems: list[str]) -> Snapshot:
    """Return the snapshot of row `seq` with its parts, from whichever copies are intact.

    Args:
        connection: To the database.
        seq: Number of a row of which there is a snapshot.
        copies: How many there should be.
        problems: Takes what SQLite cannot read, also where another copy stands in.

    Raises:
        ChainBroken: All copies of it are damaged, or of a part.
    """
    outline = read_outline(connection, seq, problems)
    parts: dict[bytes, bytes] = {}
    worn: set[bytes] = set()
    for digest in outline.digests:
        found = _copies(connection, "SELECT content FROM {} WHERE digest = ?", _PARTS, digest, problems)
        intact = [each for (each,) in found if isinstance(each, bytes) and digest_of_part(each) == digest]
        if not intact:
            state = "damaged" if found else "missing"
            raise ChainBroken(
                f"the snapshot of row {seq} is damaged: its part {digest.hex()[:16]} is {state}"
            )
        parts[digest] = intact[0]
        if len(intact) < copies:
            worn.add(digest)
    return Snapshot(outline.link, outline.payload, parts, outline.copies < copies, frozenset(worn))


def read_outline(connection: sqlite3.Connection, seq: int, problems: list[str]) -> Outline:
    """Return the snapshot of row `seq` without the content of its parts, as `read_snapshot` does.

    Raises:
        ChainBroken: All copies of it are damaged. Of the parts that is not known.
    """
    query = "SELECT chain, payload, parts, digest FROM {} WHERE seq = ?"
    found = _copies(connection, query, _SNAPSHOTS, seq, problems)
    intact = [row for row in found if _matches(seq, *row)]
    if not intact:
        why = "its hash does not match its content" if found else "it cannot be read"
        raise ChainBroken(f"the snapshot of row {seq} is damaged: {why}")
    chain, payload, parts, _ = intact[0]
    digests = [parts[start : start + DIGEST_SIZE] for start in range(0, len(parts), DIGEST_SIZE)]
    return Outline(Link(seq, chain), payload, digests, len(intact))


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


def worn_copies(snapshot: Snapshot) -> list[str]:
    """Return what to say of a snapshot of which copies are not intact, its own or those of parts."""
    which = f"the snapshot of row {snapshot.link.seq}"
    notes = []
    if snapshot.is_worn:
        notes.append(f"a copy of {which} is missing or damaged; another one stands in for it")
    if snapshot.worn:
        parts = counted(len(snapshot.worn), "part")
        notes.append(f"copies of {parts} of {which} are missing or damaged; others stand in for them")
    return notes


# --- writing -------------------------------------------------------------------------------------


def insert_parts(connection: sqlite3.Connection, parts: Parts, copies: int) -> None:
    """Write parts anew, so many copies of each."""
    for table in _PARTS[:copies]:
        connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", parts.items())


def insert_snapshot(connection: sqlite3.Connection, snapshot: Snapshot, copies: int) -> None:
    """Write so many copies of a snapshot, without its parts."""
    link, payload, digests = snapshot.link, snapshot.payload, snapshot.digests
    values = (*link, payload, digests, snapshot_digest(link, payload, digests))
    for table in _SNAPSHOTS[:copies]:
        connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?)", values)


def keep_newest(connection: sqlite3.Connection, damaged: Collection[int]) -> set[bytes]:
    """Drop all snapshots but the newest `SNAPSHOTS_KEPT` intact ones, and the parts that none of these has.

    Args:
        connection: To the database.
        damaged: Rows of snapshots that are known not to be intact. Of the others the parts must be there;
            what is in them is not read, as all history takes long.

    Returns:
        The digests of the parts that were dropped.

    Raises:
        JournalError: SQLite cannot read them.
    """
    present = {digest for table in _PARTS for (digest,) in connection.execute(f"SELECT digest FROM {table}")}
    problems: list[str] = []
    numbers = snapshot_numbers(connection, problems)
    kept: dict[int, set[bytes]] = {}
    for seq in numbers:
        if len(kept) < SNAPSHOTS_KEPT and seq not in damaged:
            with suppress(ChainBroken):
                digests = set(read_outline(connection, seq, problems).digests)
                if digests <= present:
                    kept[seq] = digests
    if problems:
        raise JournalError("; ".join(problems))
    stale = present.difference(*kept.values())
    for table in _SNAPSHOTS:
        dropped = ((seq,) for seq in numbers if seq not in kept)
        connection.executemany(f"DELETE FROM {table} WHERE seq = ?", dropped)
    for table in _PARTS:
        connection.executemany(f"DELETE FROM {table} WHERE digest = ?", ((digest,) for digest in stale))
    return stale


# --- inside --------------------------------------------------------------------------------------


def _copies(
    connection: sqlite3.Connection, query: str, tables: tuple[str, ...], key: object, problems: list[str]
) -> list[tuple[Any, ...]]:
    """Return the row that each table has under a key; one that SQLite cannot read is a problem, no row."""
    found = []
    for table in tables:
        with recording(problems):
            row = connection.execute(query.format(table), (key,)).fetchone()
            if row is not None:
                found.append(row)
    return found


def _matches(seq: int, chain: object, payload: object, parts: object, digest: object) -> bool:
    """Whether what the database has as the snapshot of row `seq` is what was written."""
    return (
        isinstance(chain, bytes)
        and isinstance(payload, bytes)
        and isinstance(parts, bytes)
        and snapshot_digest(Link(seq, chain), payload, parts) == digest
    )
