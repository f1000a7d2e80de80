"""Rows on their way into the database, in few statements."""

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain

from zloom_broker.journal.chain import Link

_AT_ONCE = (256, 32, 4, 1)
"""Rows of one statement: the largest first, with no more than 999 values, as many as any SQLite takes."""

_BATCH_BYTES = 256 * 1024
"""Bytes of payloads after which a batch ends: a statement keeps what it was given until its next use."""

_STATEMENTS = {size: f"INSERT INTO rows VALUES {', '.join(['(?, ?, ?)'] * size)}" for size in _AT_ONCE}


def insert_rows(connection: sqlite3.Connection, rows: Iterable[tuple[Link, bytes]]) -> None:
    """Insert rows, each with the link that it makes.

    `executemany` lets go of the interpreter at each row, and beside a loop that is busy waits up to
    `sys.getswitchinterval()`, 5 ms, to have it back: half a second for a hundred rows.

    Raises:
        sqlite3.Error: The disk does not let us, or a row is there already.
    """
    for batch in _batches(rows):
        begin = 0
        for size in _AT_ONCE:
            while len(batch) - begin >= size:
                values = chain.from_iterable(batch[begin : begin + size])
                connection.execute(_STATEMENTS[size], tuple(values))
                begin += size


def _batches(rows: Iterable[tuple[Link, bytes]]) -> Iterator[list[tuple[int, bytes, bytes]]]:
    batch: list[tuple[int, bytes, bytes]] = []
    size = 0
    for link, payload in rows:
        if len(batch) == _AT_ONCE[0] or (batch and size + len(payload) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((link.seq, payload, link.chain))
        size += len(payload)
    if batch:
        yield batch
