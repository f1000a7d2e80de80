"""Rows go into the database in few statements: each costs a busy broker a wait for the interpreter."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from zloom_broker.journal.chain import GENESIS, Link, extend
from zloom_broker.journal.rows import commit_rows, insert_rows
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


@pytest.mark.parametrize("count", [0, 1, 7, 16, 17, 60])
def test_committed_rows_are_there_for_others(
    connection: sqlite3.Connection, tmp_path: Path, count: int
) -> None:
    wanted = rows(count)
    commit_rows(connection, wanted)
    assert not connection.in_transaction
    with closing(connect(tmp_path / "rows.db")) as other:
        found = other.execute("SELECT seq, payload, chain FROM rows ORDER BY seq").fetchall()
    assert found == [(link.seq, payload, link.chain) for link, payload in wanted]


@pytest.mark.parametrize("count", [1, 7, 16])
def test_a_few_rows_are_committed_in_one_statement(connection: sqlite3.Connection, count: int) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    commit_rows(connection, rows(count))
    assert len(statements) == 1


@pytest.mark.parametrize("count", [7, 60])
def test_rows_are_committed_all_or_none(connection: sqlite3.Connection, count: int) -> None:
    commit_rows(connection, rows(count)[-1:])  # the last one is there already
    with pytest.raises(sqlite3.IntegrityError):
        commit_rows(connection, rows(count))
    assert not connection.in_transaction
    assert connection.execute("SELECT count(*) FROM rows").fetchone() == (1,)
