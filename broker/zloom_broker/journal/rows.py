"""Rows on their way into the database, in few statements."""

import sqlite3
from collections.abc import Iterable
from itertools import chain, islice

from zloom_broker.journal.chain import Link

_AT_ONCE = (256, 32, 4, 1)
"""Rows of one statement: the largest first, with no more than 999 values, as many as any SQLite takes."""

_STATEMENTS = {size: f"INSERT INTO rows VALUES {', '.join(['(?, ?, ?)'] * size)}" for size in _AT_ONCE}


def insert_rows(connection: sqlite3.Connection, rows: Iterable[tuple[Link, bytes]]) -> None:
    """Insert rows, each with the link that it makes.

    `executemany` lets go of the interpreter at each row, and beside a loop that is busy waits up to
    `sys.getswitchinterval()`, 5 ms, to have it back: half a second for a hundred rows.

    Raises:
        sqlite3.Error: The disk does not let us, or a row is there already.
    """
    left = iter(rows)
    while batch := [(link.seq, payload, link.chain) for link, payload in islice(left, _AT_ONCE[0])]:
        begin = 0
        for size in _AT_ONCE:
            while len(batch) - begin >= size:
                values = chain.from_iterable(batch[begin : begin + size])
                connection.execute(_STATEMENTS[size], tuple(values))
                begin += size
