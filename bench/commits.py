"""Commits to SQLite as the journal makes them, of rows that nobody reads, without its head file."""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from zloom_broker.journal.chain import GENESIS, extend
from zloom_broker.journal.schema import connect, migrate, transaction
from zloom_broker.settings import Durability


@contextlib.contextmanager
def database(folder: Path, durability: Durability) -> Iterator[Callable[[Sequence[bytes]], None]]:
    """Open a new database in a folder; yields what commits rows in one transaction, on any one thread."""
    link = GENESIS
    with closing(connect(folder / f"{secrets.token_hex(4)}.db")) as connection:
        migrate(connection)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'fsync' else 'NORMAL'}")

        def commit(payloads: Sequence[bytes]) -> None:
            nonlocal link
            rows = []
            for payload in payloads:
                link = extend(link, payload)
                rows.append((link.seq, payload, link.chain))
            with transaction(connection):
                connection.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)

        yield commit
