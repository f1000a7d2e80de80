"""Rows on their way into the database, in few statements."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain

from zloom_broker.journal.chain import Link
from zloom_broker.journal.schema import transaction

_FEW = 16
"""Rows up to which there is a statement for each number."""

_AT_ONCE = (256, 32, *range(_FEW, 0, -1))
"""Rows of one statement: the largest first, with no more than 999 values, as many as any SQLite takes."""

_BATCH_BYTES = 256 * 1024
"""Bytes of payloads after which a batch ends: a statement keeps what it was given until its next use."""

_STATEMENTS = {size: f"INSERT INTO rows VALUES {', '.join(['(?, ?, ?)'] * size)}" for size in _AT_ONCE}


def commit_rows(connection: sqlite3.Connection, rows: Sequence[tuple[Link, bytes]]) -> None:
    """Insert rows, all or none, in a transaction that this begins and ends.

    A few are one statement, which is a transaction by itself: each statement lets go of the interpreter
    twice.

    Raises:
        sqlite3.Error: The disk does not let us, or a row is there already.
    """
    batches = list(_batches(rows))
    one_statement = len(batches) == 1 and len(batches[0]) <= _FEW
    with nullcontext() if one_statement else transaction(connection):
        for batch in batches:
            _insert(connection, batch)


def insert_rows(connection: sqlite3.Connection, rows: Iterable[tuple[Link, bytes]]) -> None:
    """Insert rows, each with the link that it makes.

    `executemany` lets go of the interpreter at each row, and beside a loop that is busy waits up to
    `sys.getswitchinterval()`, 5 ms, to have it back: half a second for a hundred rows.

    Raises:
        sqlite3.Error: The disk does not let us, or a row is there already.
    """
    for batch in _batches(rows):
        _insert(connection, batch)


def _insert(connection: sqlite3.Connection, batch: list[tuple[int, bytes, bytes]]) -> None:
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
