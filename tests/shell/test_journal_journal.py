import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.shell.journal_driver import child, flip_bit, head_of, line, payload, start, state, write_rows
from zloom.errors import JournalError
from zloom_broker.journal import open_journal, repair, verify
from zloom_broker.journal.chain import GENESIS
from zloom_broker.journal.folder import JournalFolder
from zloom_broker.journal.head import SLOT_SPACING, read_head

FILES = ("journal.sqlite3", "journal.sqlite3-wal", "head")


def rows(first: int, last: int) -> list[tuple[int, bytes]]:
    return [(seq, payload(seq)) for seq in range(first, last + 1)]


def killed(folder: Path, last: int, snapshot: int = 0) -> JournalFolder:
    """A folder whose broker was killed after it had confirmed `last` rows: most are in the log only."""
    with child("write", folder, last, snapshot) as process:
        assert line(process) == "written"
    return JournalFolder(folder)


def copied(folder: Path, into: Path) -> JournalFolder:
    into.mkdir()
    for name in FILES:
        if (folder / name).exists():
            shutil.copy2(folder / name, into / name)
    return JournalFolder(into)


@pytest.fixture(scope="module")
def crashed() -> Iterator[Path]:
    """200 rows and a snapshot of row 120, left behind by kill -9; not to be written to."""
    with tempfile.TemporaryDirectory() as name:
        write_rows(Path(name), 60)
        yield killed(Path(name), 200, 120).path


def test_a_new_journal_is_empty_and_in_order(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        assert journal.read_only_reason is None
        assert journal.recovered.rows == []
        assert (journal.recovered.snapshot, journal.recovered.last_seq) == (None, 0)
        assert verify(tmp_path).ok
    assert read_head(JournalFolder(tmp_path).head) == GENESIS


def test_what_was_written_is_recovered(tmp_path: Path) -> None:
    write_rows(tmp_path, 3)
    write_rows(tmp_path, 7)
    with open_journal(tmp_path) as journal:
        assert journal.recovered.rows == rows(1, 7)
        assert journal.recovered.last_seq == 7


def test_a_start_replays_only_the_rows_after_the_snapshot(tmp_path: Path) -> None:
    write_rows(tmp_path, 50, snapshots=(10, 20, 45))
    with open_journal(tmp_path) as journal:
        assert (journal.recovered.snapshot, journal.recovered.snapshot_seq) == (state(45), 45)
        assert journal.recovered.rows == rows(46, 50)
        assert journal.recovered.last_seq == 50


def test_a_damaged_snapshot_costs_nothing_but_time(tmp_path: Path) -> None:
    write_rows(tmp_path, 50, snapshots=(20, 45))
    database = JournalFolder(tmp_path).database
    flip_bit(database, database.read_bytes().index(state(45)[:200]))
    with open_journal(tmp_path) as journal:
        assert journal.read_only_reason is None
        assert journal.recovered.notes == (
            "the snapshot of row 45 is damaged: its hash does not match its content",
        )
        assert (journal.recovered.snapshot_seq, journal.recovered.rows) == (20, rows(21, 50))


def test_rows_that_the_head_does_not_know_yet_are_valid(tmp_path: Path) -> None:
    write_rows(tmp_path, 5)
    folder = JournalFolder(tmp_path)
    old_head = folder.head.read_bytes()
    write_rows(tmp_path, 9)
    folder.head.write_bytes(old_head)
    with open_journal(tmp_path) as journal:
        assert journal.read_only_reason is None
        assert journal.recovered.rows == rows(1, 9)
        assert head_of(folder).seq == 9


@pytest.mark.parametrize("durability", ["fsync", "buffered"])
@pytest.mark.fault("journal: its process killed in bursts", "kept")
def test_kill_in_the_middle_of_bursts_loses_nothing_that_was_confirmed(
    tmp_path: Path, durability: str
) -> None:
    for cycle in range(4):
        with child("burst", tmp_path, durability) as process:
            confirmed = [int(line(process)) for _ in range(15 + 40 * cycle)]
        assert process.stdout is not None
        with open_journal(tmp_path) as journal:
            assert journal.read_only_reason is None
            recovered = journal.recovered
            assert recovered.last_seq >= confirmed[-1]
            assert recovered.rows == rows(recovered.snapshot_seq + 1, recovered.last_seq)
            assert recovered.snapshot in (None, state(recovered.snapshot_seq))
    report = verify(tmp_path)
    assert report.ok
    assert report.rows == recovered.last_seq


@pytest.mark.fault("journal: a bit flipped that only the head file shows", "kept")
def test_a_bit_flipped_in_the_log_is_caught_by_the_head_alone(tmp_path: Path) -> None:
    folder = killed(tmp_path, 200)
    flip_bit(folder.wal, folder.wal.stat().st_size // 2)
    folder_without_head = copied(tmp_path, tmp_path / "without")
    with open_journal(tmp_path) as journal:
        reason = journal.read_only_reason
        last = journal.recovered.last_seq
        assert 50 < last < 150
        assert journal.recovered.rows == rows(1, last)
    assert reason is not None
    assert f"in order up to row {last} only, but row 200 was confirmed" in reason
    assert "repair --accept-loss" in reason
    # Everything else would have gone on: with a head of before, the journal looks whole.
    write_rows(tmp_path / "short", 1)
    shutil.copy(tmp_path / "short" / "head", folder_without_head.head)
    with open_journal(folder_without_head.path) as journal:
        assert journal.read_only_reason is None
        assert journal.recovered.last_seq == last


def test_a_read_only_journal_serves_and_keeps_what_is_there(tmp_path: Path) -> None:
    folder = killed(tmp_path, 40)
    flip_bit(folder.wal, folder.wal.stat().st_size // 2)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    for _ in range(2):
        with open_journal(tmp_path) as journal:
            assert journal.read_only_reason is not None
            start(journal)
            uses: list[Callable[[], None]] = [
                lambda: journal.submit(1, [b""]),
                lambda: journal.write_snapshot(1, b""),
                lambda: journal.resume(1),
            ]
            for use in uses:
                with pytest.raises(JournalError, match="the journal is read-only: the journal is in order"):
                    use()
            assert journal.counters.rows == 0
            with pytest.raises(JournalError, match="in use by another broker"):
                open_journal(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == before
    (quarantine,) = tmp_path.glob("quarantine-*")
    assert {file.name: file.read_bytes() for file in quarantine.iterdir()} == before
    assert str(quarantine) in (journal.read_only_reason or "")


def test_whoever_wants_a_folder_that_is_in_use_learns_where_its_owner_listens(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        for endpoints, where in (
            ((), ""),
            (("ipc:///run/a b", "tcp://[::1]:5555"), ", at ipc:///run/a b and tcp"),
        ):
            journal.listening(endpoints)
            with pytest.raises(JournalError, match=re.escape(f"(pid {os.getpid()}{where}")):
                open_journal(tmp_path)


def truncate(folder: JournalFolder) -> None:
    folder.database.write_bytes(folder.database.read_bytes()[:9000])


def garbage(folder: JournalFolder) -> None:
    folder.database.write_bytes(b"garbage " * 1000)


def empty(folder: JournalFolder) -> None:
    folder.database.write_bytes(b"")


def database_gone(folder: JournalFolder) -> None:
    folder.database.unlink()


def head_gone(folder: JournalFolder) -> None:
    folder.head.unlink()


def head_damaged(folder: JournalFolder) -> None:
    flip_bit(folder.head, 10)
    flip_bit(folder.head, SLOT_SPACING + 10)


def database_gone_and_head_damaged(folder: JournalFolder) -> None:
    database_gone(folder)
    head_damaged(folder)


def all_but_the_log_gone(folder: JournalFolder) -> None:
    folder.wal.write_bytes(folder.database.read_bytes())
    database_gone(folder)
    head_gone(folder)


@pytest.mark.parametrize(
    ("damage", "reason", "served"),
    [
        (truncate, "the database is damaged: database disk image is malformed", None),
        (garbage, "the database is damaged: file is not a database", 0),
        (empty, "the database is damaged: it has no schema", 0),
        (database_gone, "journal.sqlite3 is missing, but row 200 was confirmed", 0),
        (head_gone, "the head file is missing", 200),
        (head_damaged, "the head file is damaged", 200),
        (database_gone_and_head_damaged, "journal.sqlite3 is missing", 0),
        (all_but_the_log_gone, "journal.sqlite3 is missing", 0),
    ],
)
@pytest.mark.fault("journal: files cut, garbage, empty or gone", "told")
def test_damage_makes_the_journal_read_only(
    tmp_path: Path, damage: Callable[[JournalFolder], None], reason: str, served: int | None
) -> None:
    write_rows(tmp_path, 200)
    damage(JournalFolder(tmp_path))
    with open_journal(tmp_path) as journal:
        assert reason in (journal.read_only_reason or "")
        last = journal.recovered.last_seq
        assert journal.recovered.rows == rows(1, last)
        assert served in (None, last)
    assert not verify(tmp_path).ok


def test_a_torn_head_write_is_survived(tmp_path: Path) -> None:
    write_rows(tmp_path, 3)
    folder = JournalFolder(tmp_path)
    slots = [
        offset
        for offset in (0, SLOT_SPACING)
        if (3).to_bytes(8, "big") in folder.head.read_bytes()[offset:][:16]
    ]
    flip_bit(folder.head, slots[0] + 50)
    with open_journal(tmp_path) as journal:
        assert journal.read_only_reason is None
        assert journal.recovered.rows == rows(1, 3)


def test_a_disk_without_room_for_a_copy_is_no_reason_not_to_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path, 3)
    head_gone(JournalFolder(tmp_path))

    def full(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(shutil, "copy2", full)
    with open_journal(tmp_path) as journal:
        assert "it could not be copied aside (no room)" in (journal.read_only_reason or "")
        assert journal.recovered.rows == rows(1, 3)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed_or_harmless(crashed: Path, name: str, place: float, bit: int) -> None:
    """What is served is what was written, and never silently less; a repair keeps a part that is in order."""
    with tempfile.TemporaryDirectory() as parent:
        folder = copied(crashed, Path(parent) / "copy")
        file = folder.path / name
        flip_bit(file, int(place * file.stat().st_size), bit)
        try:
            journal = open_journal(folder.path)
        except JournalError:
            return
        with journal:
            assert_served(journal.recovered.snapshot, journal.recovered.snapshot_seq, journal.recovered.rows)
            complete = journal.recovered.last_seq == 200
            assert complete or journal.read_only_reason is not None
        report = repair(folder.path, accept_loss=True)
        assert report.repaired is not report.found.ok
        with open_journal(folder.path) as journal:
            assert journal.read_only_reason is None
            assert_served(journal.recovered.snapshot, journal.recovered.snapshot_seq, journal.recovered.rows)
            assert journal.recovered.last_seq == report.last_seq
            assert report.last_seq == 200 or not complete


def assert_served(snapshot: bytes | None, seq: int, tail: list[tuple[int, bytes]]) -> None:
    assert snapshot == (state(seq) if seq else None)
    assert tail == rows(seq + 1, seq + len(tail))
