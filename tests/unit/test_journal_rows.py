"""Rows go into the database in few statements: each costs a busy broker a wait for the interpreter."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from zloom_broker.journal.chain import GENESIS, Link, extend
from zloom_broker.journal.rows import insert_rows
from zloom_broker.journal.schema import connect, migrate, transaction


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "rows.db")) as connection:
        migrate(connection)
        yield connection


def rows(count: int) -> list[tuple[Link, bytes]]:
    link, made = GENESIS, []
    for number in range(count):
        link = extend(link, payload := b"%d" % number)
        made.append((link, payload))
    return made


@pytest.mark.parametrize("count", [0, 1, 3, 4, 37, 256, 700])
def test_all_rows_are_there_in_order_whatever_their_number(
    connection: sqlite3.Connection, count: int
) -> None:
    wanted = rows(count)
    with transaction(connection):
        insert_rows(connection, iter(wanted))
    found = connection.execute("SELECT seq, payload, chain FROM rows ORDER BY seq").fetchall()
    assert found == [(link.seq, payload, link.chain) for link, payload in wanted]


def test_a_thousand_rows_take_fewer_than_thirty_statements(connection: sqlite3.Connection) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    with transaction(connection):
        insert_rows(connection, rows(1000))
    assert len(statements) < 30


def test_long_rows_go_in_statements_of_less_than_half_a_megabyte(connection: sqlite3.Connection) -> None:
    link, made = GENESIS, []
    for _ in range(40):
        link = extend(link, payload := bytes(100_000))
        made.append((link, payload))
    statements: list[str] = []
    connection.set_trace_callback(statements.append)  # with the values in hexadecimal
    with transaction(connection):
        insert_rows(connection, made)
    assert max(map(len, statements)) < 2 * 500_000
    assert connection.execute("SELECT count(*), sum(length(payload)) FROM rows").fetchone() == (40, 4_000_000)
