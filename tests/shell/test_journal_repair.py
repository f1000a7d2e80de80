import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.shell.journal_driver import child, flip_bit, line, parts, payload, start, state, write_rows
from zloom.errors import JournalError
from zloom_broker.journal import open_journal, repair, verify
from zloom_broker.journal.folder import JournalFolder


def execute(data_dir: Path, statement: str) -> None:
    with closing(sqlite3.connect(JournalFolder(data_dir).database)) as connection, connection:
        connection.execute(statement)


def rows(first: int, last: int) -> list[tuple[int, bytes]]:
    return [(seq, payload(seq)) for seq in range(first, last + 1)]


def files(data_dir: Path) -> dict[str, bytes]:
    return {
        file.name: file.read_bytes() for file in data_dir.iterdir() if file.is_file() and file.name != "lock"
    }


def test_verify_tells_what_is_there(tmp_path: Path) -> None:
    write_rows(tmp_path, 20, snapshots=(5, 15))
    report = verify(tmp_path)
    assert report.ok
    assert (report.first_seq, report.rows, report.last_seq, report.head_seq) == (1, 20, 20, 20)
    assert report.snapshots == (15, 5)


def test_verify_finds_damage_that_a_start_does_not_look_at(tmp_path: Path) -> None:
    write_rows(tmp_path, 20, snapshots=(15,))
    execute(tmp_path, "UPDATE rows SET payload = x'00' WHERE seq = 3")
    with open_journal(tmp_path) as journal:
        assert journal.read_only_reason is None
    report = verify(tmp_path)
    assert "row 3 is damaged: its hash does not match its content" in report.problems
    assert (report.rows, report.last_seq) == (2, 2)


def test_verify_counts_a_damaged_snapshot(tmp_path: Path) -> None:
    write_rows(tmp_path, 20, snapshots=(5, 15))
    execute(tmp_path, "UPDATE snapshots SET payload = x'00' WHERE seq = 15")
    report = verify(tmp_path)
    assert report.problems == ["the snapshot of row 15 is damaged: its hash does not match its content"]
    assert report.snapshots == (5,)


def test_verify_while_a_broker_writes(tmp_path: Path) -> None:
    with child("burst", tmp_path, "fsync") as process:
        for _ in range(10):
            confirmed = int(line(process))
            report = verify(tmp_path)
            assert report.problems == []
            assert report.last_seq >= confirmed


@pytest.mark.parametrize("use", [verify, lambda path: repair(path, accept_loss=True)])
def test_where_there_is_no_journal(tmp_path: Path, use: Callable[[Path], object]) -> None:
    with pytest.raises(JournalError, match="there is no journal in"):
        use(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_in_order_is_left_alone(tmp_path: Path) -> None:
    write_rows(tmp_path, 5)
    before = files(tmp_path)
    report = repair(tmp_path, accept_loss=True)
    assert (report.repaired, report.lost, report.quarantine) == (False, 0, None)
    assert {name: files(tmp_path)[name] for name in before} == before


def test_repair_waits_for_no_broker(tmp_path: Path) -> None:
    write_rows(tmp_path, 5)
    JournalFolder(tmp_path).head.unlink()
    with open_journal(tmp_path), pytest.raises(JournalError, match="in use by another broker"):
        repair(tmp_path, accept_loss=True)


def test_without_consent_repair_only_tells_what_would_be_lost(tmp_path: Path) -> None:
    write_rows(tmp_path, 20)
    execute(tmp_path, "UPDATE rows SET payload = x'00' WHERE seq = 13")
    before = files(tmp_path)
    report = repair(tmp_path, accept_loss=False)
    assert (report.repaired, report.first_seq, report.last_seq, report.lost) == (False, 1, 12, 8)
    assert report.found.problems[0].startswith("row 13 is damaged")
    assert {name: files(tmp_path)[name] for name in before} == before
    assert not list(tmp_path.glob("quarantine*"))


def test_repair_keeps_the_rows_before_the_damage_and_the_old_files(tmp_path: Path) -> None:
    write_rows(tmp_path, 20, snapshots=(5, 15))
    execute(tmp_path, "UPDATE rows SET payload = x'00' WHERE seq = 13")
    execute(tmp_path, "DELETE FROM snapshots WHERE seq = 15")
    damaged = JournalFolder(tmp_path).database.read_bytes()
    report = repair(tmp_path, accept_loss=True)
    assert (report.repaired, report.last_seq, report.lost) == (True, 12, 8)
    assert report.quarantine is not None
    assert (report.quarantine / "journal.sqlite3").read_bytes() == damaged
    assert verify(tmp_path).ok
    with open_journal(tmp_path) as journal:
        assert journal.read_only_reason is None
        assert (journal.recovered.snapshot, journal.recovered.rows) == (state(5), rows(6, 12))
        listener = start(journal)
        journal.submit(13, [b"another row 13"])
        listener.wait_committed(13)
    assert verify(tmp_path).last_seq == 13
    assert repair(tmp_path, accept_loss=True).repaired is False


def test_damage_before_an_intact_snapshot_costs_old_rows_and_no_state(tmp_path: Path) -> None:
    write_rows(tmp_path, 20, snapshots=(5, 15))
    execute(tmp_path, "UPDATE rows SET payload = x'00' WHERE seq = 13")
    report = repair(tmp_path, accept_loss=True)
    assert (report.first_seq, report.last_seq, report.lost) == (16, 20, 0)
    found = verify(tmp_path)
    assert found.ok
    assert (found.first_seq, found.rows, found.last_seq, found.snapshots) == (16, 5, 20, (15,))
    write_rows(tmp_path, 25)
    with open_journal(tmp_path) as journal:
        assert (journal.recovered.snapshot, journal.recovered.rows) == (state(15), rows(16, 25))
        assert journal.recovered.parts == parts(15)


def test_after_such_a_repair_the_snapshot_cannot_be_done_without(tmp_path: Path) -> None:
    test_damage_before_an_intact_snapshot_costs_old_rows_and_no_state(tmp_path)
    for table in ("snapshots", "snapshot_copies"):
        execute(tmp_path, f"UPDATE {table} SET payload = x'00'")
    with open_journal(tmp_path) as journal:
        assert "no snapshot is intact" in (journal.read_only_reason or "")
        assert journal.recovered.last_seq == 0
    assert any("no snapshot is intact" in problem for problem in verify(tmp_path).problems)
    assert repair(tmp_path, accept_loss=True).last_seq == 0
    with open_journal(tmp_path) as journal:
        assert journal.read_only_reason is None


def test_rows_in_the_log_of_a_killed_broker_are_kept(tmp_path: Path) -> None:
    with child("write", tmp_path, 60, 0) as process:
        assert line(process) == "written"
    folder = JournalFolder(tmp_path)
    flip_bit(folder.wal, folder.wal.stat().st_size // 2)
    with open_journal(tmp_path) as journal:
        served = journal.recovered.rows
    report = repair(tmp_path, accept_loss=True)
    assert report.last_seq == len(served) > 10
    assert report.lost == 60 - len(served)
    assert not folder.wal.exists()
    with open_journal(tmp_path) as journal:
        assert journal.read_only_reason is None
        assert journal.recovered.rows == served


@pytest.mark.parametrize("content", [None, b"", b"garbage " * 1000])
def test_a_database_of_which_nothing_is_left_is_begun_anew(tmp_path: Path, content: bytes | None) -> None:
    write_rows(tmp_path, 5)
    folder = JournalFolder(tmp_path)
    folder.database.unlink()
    if content is not None:
        folder.database.write_bytes(content)
    report = repair(tmp_path, accept_loss=True)
    assert (report.repaired, report.last_seq, report.lost) == (True, 0, 5)
    write_rows(tmp_path, 3)
    assert verify(tmp_path).ok


def test_the_log_of_a_database_that_is_gone_is_not_applied_to_the_new_one(tmp_path: Path) -> None:
    with child("write", tmp_path, 30, 0) as process:
        assert line(process) == "written"
    folder = JournalFolder(tmp_path)
    folder.database.unlink()
    report = repair(tmp_path, accept_loss=True)
    assert (report.last_seq, report.lost) == (0, 30)
    with open_journal(tmp_path) as journal:
        assert journal.read_only_reason is None
        assert journal.recovered.last_seq == 0


def test_a_repair_that_is_interrupted_before_the_new_database_is_there_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with child("write", tmp_path, 60, 0) as process:
        assert line(process) == "written"
    folder = JournalFolder(tmp_path)
    flip_bit(folder.wal, folder.wal.stat().st_size // 2)
    planned = repair(tmp_path, accept_loss=False).last_seq
    assert planned > 10

    def interrupted(*_: object) -> None:
        raise OSError(4, "Interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(JournalError, match=r"cannot be repaired: .*Interrupted"):
            repair(tmp_path, accept_loss=True)
    assert not folder.wal.exists()
    assert repair(tmp_path, accept_loss=True).last_seq == planned
    assert verify(tmp_path).rows == planned


@pytest.mark.parametrize("lose_head", [True, False])
def test_a_head_alone_is_made_again(tmp_path: Path, lose_head: bool) -> None:
    write_rows(tmp_path, 5, snapshots=(3,))
    head = JournalFolder(tmp_path).head
    if lose_head:
        head.unlink()
    else:
        head.write_bytes(b"")
    report = repair(tmp_path, accept_loss=True)
    assert (report.repaired, report.last_seq, report.lost, report.found.head_seq) == (True, 5, 0, None)
    with open_journal(tmp_path) as journal:
        assert (journal.recovered.snapshot_seq, journal.recovered.rows) == (3, rows(4, 5))


def test_a_repair_that_cannot_write_leaves_the_journal_as_it_is(tmp_path: Path) -> None:
    write_rows(tmp_path, 5)
    JournalFolder(tmp_path).head.unlink()
    before = JournalFolder(tmp_path).database.read_bytes()
    (tmp_path / "journal.sqlite3.new").mkdir()
    with pytest.raises(JournalError, match="cannot be repaired"):
        repair(tmp_path, accept_loss=True)
    assert JournalFolder(tmp_path).database.read_bytes() == before
