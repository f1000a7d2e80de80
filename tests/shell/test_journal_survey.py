import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.shell.journal_driver import payload, state, write_rows
from zloom.errors import JournalError
from zloom_broker.journal.chain import ChainBroken
from zloom_broker.journal.folder import JournalFolder
from zloom_broker.journal.reading import recording
from zloom_broker.journal.survey import survey_newest


@pytest.fixture
def folder(tmp_path: Path) -> JournalFolder:
    write_rows(tmp_path, 12, snapshots=(4, 8))
    return JournalFolder(tmp_path)


def execute(folder: JournalFolder, statement: str) -> None:
    with closing(sqlite3.connect(folder.database)) as connection, connection:
        connection.execute(statement)


def numbers(rows: list[tuple[int, bytes]]) -> list[int]:
    return [seq for seq, _ in rows]


def test_only_the_rows_after_the_newest_snapshot_are_read(folder: JournalFolder) -> None:
    survey = survey_newest(folder)
    assert survey.snapshot is not None
    assert (survey.snapshot.link.seq, survey.snapshot.payload) == (8, state(8))
    assert survey.rows == [(seq, payload(seq)) for seq in range(9, 13)]
    assert survey.problems == survey.notes == []
    assert survey.end == survey.head


@pytest.mark.parametrize(
    ("damaged", "start"), [("seq = 8", 4), ("seq IN (4, 8)", 0)], ids=["the older one", "all rows"]
)
@pytest.mark.parametrize("column", ["payload = x'00'", "chain = x'00'", "digest = x'00'", "payload = 7"])
def test_a_damaged_snapshot_is_replaced_by(
    folder: JournalFolder, damaged: str, start: int, column: str
) -> None:
    execute(folder, f"UPDATE snapshots SET {column} WHERE {damaged}")
    survey = survey_newest(folder)
    assert (survey.snapshot.link.seq if survey.snapshot else 0) == start
    assert numbers(survey.rows) == list(range(start + 1, 13))
    assert survey.problems == []
    assert "the snapshot of row 8 is damaged" in survey.notes[0]


@pytest.mark.parametrize(
    ("statement", "problem", "kept"),
    [
        ("UPDATE rows SET payload = x'00' WHERE seq = 10", "row 10 is damaged", [9]),
        ("UPDATE rows SET chain = x'00' WHERE seq = 10", "row 10 is damaged", [9]),
        ("DELETE FROM rows WHERE seq = 10", "row 10 is missing; the next one that is there is row 11", [9]),
        ("DELETE FROM rows WHERE seq > 10", "up to row 10 only, but row 12 was confirmed", [9, 10]),
        ("DELETE FROM rows WHERE seq = 8", "row 8 is missing, but there is a snapshot", [9, 10, 11, 12]),
        ("UPDATE rows SET chain = x'00' WHERE seq = 8", "row 8 is not the one of which", [9, 10, 11, 12]),
        ("DELETE FROM base", "no longer says with which row it begins", [9, 10, 11, 12]),
        ("DROP TABLE rows", "the database is damaged: no such table: rows", []),
        ("DROP TABLE snapshots", "the database is damaged: no such table: snapshots", [*range(1, 13)]),
    ],
)
def test_damage_is_named_and_what_is_intact_before_it_is_kept(
    folder: JournalFolder, statement: str, problem: str, kept: list[int]
) -> None:
    execute(folder, statement)
    survey = survey_newest(folder)
    assert problem in "; ".join(survey.problems)
    assert numbers(survey.rows) == kept


def test_a_longer_journal_of_another_history_is_not_the_one_that_was_confirmed(
    folder: JournalFolder, tmp_path: Path
) -> None:
    write_rows(tmp_path / "other", 3)
    folder.head.write_bytes((tmp_path / "other" / "head").read_bytes())
    assert survey_newest(folder).problems == []
    execute(folder, "UPDATE rows SET chain = x'00' WHERE seq = 3")
    assert survey_newest(folder).problems == ["row 3 is not the one that was confirmed"]


def test_without_a_base_and_a_snapshot_there_is_nothing_to_apply_rows_to(folder: JournalFolder) -> None:
    execute(folder, "UPDATE base SET seq = 5")
    execute(folder, "DELETE FROM rows WHERE seq <= 5")
    execute(folder, "DELETE FROM snapshots")
    survey = survey_newest(folder)
    assert survey.problems[0].startswith("no snapshot is intact")
    assert survey.rows == []


def test_looking_changes_nothing(folder: JournalFolder) -> None:
    before = {file: file.read_bytes() for file in (folder.database, folder.head)}
    survey_newest(folder)
    assert {file: file.read_bytes() for file in before} == before


def test_a_database_that_is_in_use_is_not_damaged(
    folder: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect
    with closing(connect(folder.database, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, timeout=0))
        with pytest.raises(JournalError, match="could not be read: database is locked"):
            survey_newest(folder)


def test_damage_is_reported_once_and_by_what_found_it() -> None:
    problems: list[str] = []
    notes: list[str] = []
    for error in (sqlite3.DatabaseError("malformed"), sqlite3.DatabaseError("malformed"), ChainBroken("gap")):
        with recording(problems, notes):
            raise error
    assert problems == ["the database is damaged: malformed"]
    assert notes == ["gap"]
