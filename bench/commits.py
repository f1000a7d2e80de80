"""Commits to SQLite as the journal makes them, of rows that nobody reads."""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from zloom_broker.journal.chain import GENESIS, extend
from zloom_broker.journal.head import HeadFile
from zloom_broker.journal.rows import commit_rows
from zloom_broker.journal.schema import connect, migrate
from zloom_broker.settings import Durability


@contextlib.contextmanager
def database(
    folder: Path, durability: Durability, *, head: bool = False
) -> Iterator[Callable[[Sequence[bytes]], None]]:
    """Open a new database in a folder; yields what commits rows in one transaction, on any one thread.

    Args:
        folder: Where.
        durability: `fsync` or `buffered`, as of a broker.
        head: Under `fsync`, have a head file name the last row after each commit, as the journal's does:
            SQLite takes what is damaged in its log for the end of it, so nothing else shows that rows are
            missing.
    """
    link, name = GENESIS, secrets.token_hex(4)
    with closing(connect(folder / f"{name}.db")) as connection, contextlib.ExitStack() as stack:
        migrate(connection)
        confirmed = HeadFile(folder / f"{name}.head", link) if head and durability == "fsync" else None
        if confirmed is not None:
            stack.callback(confirmed.close)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'fsync' else 'NORMAL'}")

        def commit(payloads: Sequence[bytes]) -> None:
            nonlocal link
            rows = []
            for payload in payloads:
                link = extend(link, payload)
                rows.append((link, payload))
            commit_rows(connection, rows)
            if confirmed is not None:
                confirmed.write(link)

        yield commit
