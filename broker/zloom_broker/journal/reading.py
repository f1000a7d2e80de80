"""Reading a database that may be damaged, without changing a byte of it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from zloom.errors import JournalError
from zloom_broker.journal.chain import GENESIS, ChainBroken, Link, verified
from zloom_broker.journal.schema import DATABASE_ERRORS

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
    except DATABASE_ERRORS as error:
        # The low byte is the kind of error, the rest a detail.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_DAMAGE:
            raise JournalError(f"the journal could not be read: {error}") from error
        found = error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else error
        text = f"the database is damaged: {found}"
        if text not in problems:
            problems.append(text)


def read_base(connection: sqlite3.Connection) -> Link:
    """Return the link before the first row of the journal.

    Raises:
        ChainBroken: It is missing or damaged, or the first row is another one.
    """
    seq, chain = connection.execute("SELECT seq, chain FROM base").fetchone() or (None, None)
    if not isinstance(seq, int) or seq < 0 or not isinstance(chain, bytes):
        raise ChainBroken("the journal no longer says with which row it begins")
    (first,) = connection.execute("SELECT min(seq) FROM rows").fetchone()
    if first is not None and first != seq + 1:
        raise ChainBroken(f"the journal says that it begins with row {seq + 1}, but its first is row {first}")
    base = Link(seq, chain)
    if seq == GENESIS.seq and base != GENESIS:
        raise ChainBroken("what the journal says of the row before its first one is damaged")
    return base


def read_rows(connection: sqlite3.Connection, start: Link) -> Iterator[tuple[Link, bytes]]:
    """Yield the rows after `start` for as long as they continue the chain; see `chain.verified`."""
    rows = connection.execute("SELECT seq, payload, chain FROM rows WHERE seq > ? ORDER BY seq", (start.seq,))
    return verified(rows, start)


def read_chain(connection: sqlite3.Connection, seq: int) -> bytes | None:
    """Return the hash that the journal holds for row `seq`, or for its base; not verified.

    Raises:
        ChainBroken: It is no hash.
    """
    query = "SELECT chain FROM rows WHERE seq = ?1 UNION ALL SELECT chain FROM base WHERE seq = ?1"
    for (chain,) in connection.execute(query, (seq,)):
        if not isinstance(chain, bytes):
            raise ChainBroken(f"row {seq} is damaged: its hash is no longer bytes")
        return chain
    return None
