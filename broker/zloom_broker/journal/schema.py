"""The journal's tables, and how a connection to them is set up."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from zloom.errors import JournalError
from zloom_broker.journal.chain import ChainBroken

FIRST_SCHEMA = 5
"""That of the first release, which the first migration leads to. Those before it nobody reads any more."""

_SNAPSHOT = (
    "(seq INTEGER PRIMARY KEY, chain BLOB NOT NULL, payload BLOB NOT NULL, parts BLOB NOT NULL, "
    "digest BLOB NOT NULL)"
)
_PART = "(digest BLOB NOT NULL PRIMARY KEY, content BLOB NOT NULL)"

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE base (seq INTEGER PRIMARY KEY, chain BLOB NOT NULL)",
        "CREATE TABLE rows (seq INTEGER PRIMARY KEY, payload BLOB NOT NULL, chain BLOB NOT NULL)",
        f"CREATE TABLE snapshots {_SNAPSHOT}",
        f"CREATE TABLE parts {_PART}",
        f"CREATE TABLE snapshot_copies {_SNAPSHOT}",
        f"CREATE TABLE part_copies {_PART}",
    ),
)
"""Statements that lead from each schema to the next, and from none to the first; its number is the database's
`user_version`, and its mark the `application_id`. One that was released never changes. A journal is verified
before it is migrated, so a migration may add to these tables, but `survey` must be able to read them before
and after it."""

_NUMBERS = range(FIRST_SCHEMA, FIRST_SCHEMA + 1000)
"""Schemas whose marks are known, also those that are still to come."""

DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What Python raises for an error of SQLite: the latter, where that quotes a name that is damaged."""

# Seconds that a write waits for another process. Only opening and closing a database locks writers out, and
# only `journal verify` or a curious user does that here.
_BUSY_TIMEOUT = 5.0


def connect(database: Path) -> sqlite3.Connection:
    """Open a database for writing: write-ahead log, and each commit synced to the medium.

    Raises:
        sqlite3.Error: It cannot be opened.
        JournalError: The file system does not do write-ahead logs.
    """
    connection = sqlite3.connect(
        database, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise JournalError(
                f"{database.parent} is on a file system without shared memory; use a local one"
            )
        for pragma in ("synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what the body does, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # after some errors SQLite has rolled back by itself
            connection.execute("ROLLBACK")
        raise


def check_version(connection: sqlite3.Connection) -> None:
    """See whether this zloom can read a database, before anything else is read.

    Raises:
        JournalError: A newer version of zloom wrote it, or one from before the first release.
        ChainBroken: It has no schema, or one whose number or mark is damaged. None is ever left so: a
            database gets its name when it is complete.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    newest = FIRST_SCHEMA + len(MIGRATIONS) - 1
    if version == 0:
        raise ChainBroken("the database is damaged: it has no schema")
    if mark == 0 and 0 < version < FIRST_SCHEMA:
        raise JournalError(
            f"the journal has schema {version}, of a zloom from before the first release, which this one "
            "cannot read; start with another data folder"
        )
    marked = next((number for number in _NUMBERS if mark_of(number) == mark), version)
    if marked == version and mark != mark_of(version):
        raise ChainBroken("the database is damaged: the mark of its schema is none")
    if marked > newest:
        raise JournalError(
            f"the journal has schema {marked}, this zloom knows up to {newest}; use a newer zloom"
        )
    if marked != version:
        raise ChainBroken(f"the database is damaged: its schema is {marked}, and it says {version}")


def mark_of(version: int) -> int:
    """Return what marks a database of a schema, so that damage to its number is not taken for another one."""
    return int.from_bytes(blake2b(b"zloom journal %d" % version, digest_size=4).digest(), "big") >> 1


def migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Bring a database to the newest schema; each step is one transaction."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    done = version - FIRST_SCHEMA + 1 if version else 0
    for number, statements in enumerate(migrations[done:], start=FIRST_SCHEMA + done):
        with transaction(connection):
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute(f"PRAGMA application_id = {mark_of(number)}")
