import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.shell.journal_driver import write_rows
from zloom.errors import JournalError
from zloom_broker.journal import open_journal, repair, verify
from zloom_broker.journal.folder import JournalFolder
from zloom_broker.journal.schema import FIRST_SCHEMA, MIGRATIONS, connect, mark_of, migrate, transaction

NEWEST = FIRST_SCHEMA + len(MIGRATIONS) - 1


def tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def version(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    return int(number)


def test_a_connection_syncs_each_commit_to_a_write_ahead_log(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "a.sqlite3")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_each_migration_runs_once(tmp_path: Path) -> None:
    later = (*MIGRATIONS, ("CREATE TABLE extra (a)", "INSERT INTO extra VALUES (1)"))
    with closing(connect(tmp_path / "a.sqlite3")) as connection:
        migrate(connection)
        assert version(connection) == NEWEST
        migrate(connection, later)
        migrate(connection, later)
        assert version(connection) == NEWEST + 1
        assert connection.execute("SELECT a FROM extra").fetchall() == [(1,)]


def test_a_migration_that_fails_leaves_the_version_before(tmp_path: Path) -> None:
    broken = (*MIGRATIONS, ("CREATE TABLE extra (a)", "no SQL"))
    with closing(connect(tmp_path / "a.sqlite3")) as connection:
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection, broken)
        assert version(connection) == NEWEST
        assert tables(connection) == {
            *("base", "rows", "snapshots", "parts", "snapshot_copies", "part_copies")
        }


def test_a_transaction_commits_all_or_nothing(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "a.sqlite3")) as connection:
        migrate(connection)
        twice = "INSERT INTO base VALUES (1, x'00')"
        with pytest.raises(sqlite3.IntegrityError), transaction(connection):
            [connection.execute(statement) for statement in (twice, twice)]
        assert connection.execute("SELECT * FROM base").fetchall() == []


def mark(folder: Path, *, number: int, mark: int | None = None) -> None:
    with closing(sqlite3.connect(JournalFolder(folder).database)) as connection:
        connection.execute(f"PRAGMA user_version = {number}")
        if mark is not None:
            connection.execute(f"PRAGMA application_id = {mark}")


@pytest.mark.parametrize("use", [open_journal, verify])
@pytest.mark.parametrize(
    ("number", "marked", "text"),
    [
        (99, mark_of(99), "schema 99.*use a newer zloom"),
        (NEWEST, mark_of(99), "schema 99.*use a newer zloom"),
        (1, 0, "schema 1.*start with another data folder"),
    ],
)
def test_the_journal_of_another_zloom_is_refused_and_left_alone(
    tmp_path: Path, use: Callable[[Path], object], number: int, marked: int, text: str
) -> None:
    write_rows(tmp_path, 3)
    mark(tmp_path, number=number, mark=marked)
    with pytest.raises(JournalError, match=text):
        use(tmp_path)
    assert not list(tmp_path.glob("quarantine*"))


@pytest.mark.parametrize("number", [99, 1, -7, NEWEST ^ 1 << 30])
def test_a_damaged_number_is_not_another_zloom_s_and_a_repair_keeps_all(tmp_path: Path, number: int) -> None:
    write_rows(tmp_path, 3)
    mark(tmp_path, number=number)
    with open_journal(tmp_path) as journal:
        assert f"its schema is {NEWEST}, and it says {number}; " in (journal.read_only_reason or "")
        assert "zloom journal repair" in (journal.read_only_reason or "")
        assert journal.recovered.last_seq == 3
    assert (repair(tmp_path, accept_loss=True).lost, verify(tmp_path).problems) == (0, [])
    write_rows(tmp_path, 4)
    assert verify(tmp_path).rows == 4


def test_a_damaged_mark_is_damage_too(tmp_path: Path) -> None:
    write_rows(tmp_path, 3)
    mark(tmp_path, number=NEWEST, mark=mark_of(NEWEST) ^ 1)
    assert verify(tmp_path).problems == ["the database is damaged: the mark of its schema is none"]
    assert (repair(tmp_path, accept_loss=True).lost, verify(tmp_path).problems) == (0, [])


def test_a_database_without_a_schema_is_damaged(tmp_path: Path) -> None:
    write_rows(tmp_path, 3)
    JournalFolder(tmp_path).database.write_bytes(b"")
    with open_journal(tmp_path) as journal:
        assert "it has no schema" in (journal.read_only_reason or "")
