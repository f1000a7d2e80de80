import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.shell.journal_driver import head_of, payload, state
from zloom.errors import JournalError
from zloom_broker.journal import folder as journal_folder
from zloom_broker.journal import verify
from zloom_broker.journal.chain import GENESIS, Link, extend
from zloom_broker.journal.folder import Custody, JournalFolder
from zloom_broker.journal.head import read_head
from zloom_broker.journal.snapshots import Snapshot
from zloom_broker.journal.store import Store, create_database
from zloom_broker.journal.survey import survey_newest
from zloom_broker.parts import digest_of_part


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[JournalFolder]:
    folder = JournalFolder(tmp_path / "data")
    folder.create()
    lock = folder.lock()
    create_database(folder)
    folder.adopt_database()
    yield folder
    lock.release()


@pytest.fixture
def store(folder: JournalFolder) -> Iterator[Store]:
    with closing(Store(folder, GENESIS)) as store:
        yield store


def append(store: Store, count: int, *, sync: bool = True) -> None:
    first = store.end.seq + 1
    store.append([payload(seq) for seq in range(first, first + count)], sync=sync)


def snapshots(folder: JournalFolder) -> tuple[int, ...]:
    return verify(folder.path).snapshots


def test_rows_are_chained_and_the_head_names_the_last(folder: JournalFolder, store: Store) -> None:
    append(store, 2)
    append(store, 1)
    expected = extend(extend(extend(GENESIS, payload(1)), payload(2)), payload(3))
    assert store.end == read_head(folder.head) == expected
    assert verify(folder.path).ok


def test_rows_that_need_no_sync_do_not_move_the_head(folder: JournalFolder, store: Store) -> None:
    append(store, 2)
    append(store, 3, sync=False)
    assert store.end.seq == verify(folder.path).last_seq == 5
    assert head_of(folder).seq == 2
    append(store, 1)
    assert head_of(folder).seq == 6


@pytest.mark.parametrize(("sync", "level"), [(False, 1), (True, 2)])
def test_sqlite_is_told_whether_to_sync(store: Store, sync: bool, level: int) -> None:
    append(store, 1, sync=not sync)
    append(store, 1, sync=sync)
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (level,)


def test_closing_syncs_what_was_not(folder: JournalFolder) -> None:
    store = Store(folder, GENESIS)
    append(store, 3, sync=False)
    store.close()
    assert read_head(folder.head) == store.end
    assert not folder.wal.exists()


def test_closing_does_not_wait_for_a_reader(folder: JournalFolder) -> None:
    store = Store(folder, GENESIS)
    append(store, 3)
    with closing(sqlite3.connect(folder.database)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM rows").fetchone()
        append(store, 3, sync=False)
        started = time.monotonic()
        store.close()
        assert (
            time.monotonic() - started < 2
        )  # seconds, which a broker has to leave in; SQLite's own wait is 5
    report = verify(folder.path)
    assert report.ok
    assert (report.head_seq, report.last_seq) == (3, 6)


def test_rows_that_fail_change_nothing(folder: JournalFolder, store: Store) -> None:
    append(store, 2)
    end = store.end
    with closing(sqlite3.connect(folder.database)) as connection:
        connection.execute(
            "CREATE TRIGGER b BEFORE INSERT ON rows WHEN NEW.seq = 4 BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        with pytest.raises(sqlite3.IntegrityError):
            append(store, 3)
        connection.execute("DROP TRIGGER b")
    assert store.end == end
    append(store, 1)
    assert verify(folder.path).ok


def test_rows_are_taken_back_when_the_head_cannot_be_written(
    folder: JournalFolder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(store, 2)

    def fails_once(descriptor: int) -> None:
        monkeypatch.undo()
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(os, "fdatasync", fails_once)
    with pytest.raises(OSError, match="Input/output error"):
        append(store, 3)
    report = verify(folder.path)
    assert (report.last_seq, report.head_seq, report.problems) == (2, 2, [])
    store.append([b"another row 3"], sync=True)
    assert read_head(folder.head) == store.end
    assert verify(folder.path).ok


def test_rows_that_could_not_be_taken_back_are_before_others_follow(
    folder: JournalFolder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(store, 2)

    def fails(descriptor: int) -> None:
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails)
        for _ in range(2):
            with pytest.raises(JournalError, match="rows after 2 could be neither confirmed nor taken back"):
                append(store, 3)
    store.append([b"another row 3"], sync=True)
    assert (store.end.seq, read_head(folder.head)) == (3, store.end)
    assert verify(folder.path).ok


def settle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a folder count as changed long ago, once the file system's clock has gone on."""
    monkeypatch.setattr(journal_folder, "_TICK", 0)
    probe = path.with_name("probe")
    while not probe.exists() or probe.stat().st_ctime_ns <= path.stat().st_ctime_ns:
        probe.touch()


def removed(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    copy = Path(shutil.copy2(path, path.with_suffix(".copy")))
    copy.replace(path)


@pytest.mark.parametrize("name", ["database", "wal", "head", "lock_file"])
@pytest.mark.parametrize("change", [removed, replaced])
@pytest.mark.parametrize("changed_before", ["just now", "long ago"])
def test_g1_nothing_is_confirmed_in_a_file_that_is_no_longer_there(
    folder: JournalFolder,
    store: Store,
    name: str,
    change: Callable[[Path], None],
    changed_before: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if changed_before == "long ago":  # then the folder alone is looked at as long as it is the same
        settle(folder.path, monkeypatch)
    append(store, 2)
    path = getattr(folder, name)
    change(path)
    with pytest.raises(JournalError, match=f"{path} was {change.__name__} while the broker runs"):
        append(store, 1)
    with pytest.raises(JournalError, match=change.__name__):
        store.write_snapshot(2, state(2), {})
    assert store.end.seq == 2


def test_g1_a_file_is_missed_also_where_its_folder_does_not_tell(
    folder: JournalFolder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where something is mounted over it: a second later at most."""
    settle(folder.path, monkeypatch)
    append(store, 2)
    monkeypatch.setattr(Custody, "_look", lambda custody: custody._known)
    replaced(folder.database)
    append(store, 1)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1)
    with pytest.raises(JournalError, match="was replaced"):
        append(store, 1)
    assert store.end.seq == 3


def test_g1_a_restored_backup_is_noticed_though_it_restores_the_time_of_the_folder(
    folder: JournalFolder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `rsync -a` and `tar` do."""
    settle(folder.path, monkeypatch)
    append(store, 2)
    before = folder.path.stat()
    replaced(folder.database)
    os.utime(folder.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(JournalError, match="was replaced"):
        append(store, 1)
    assert store.end.seq == 2


def test_a_folder_that_stays_as_it_was_is_looked_at_alone(
    folder: JournalFolder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(folder.path, monkeypatch)
    append(store, 1)
    looked: list[Path] = []
    stat = Path.stat

    def look(path: Path) -> os.stat_result:
        looked.append(path)
        return stat(path)

    monkeypatch.setattr(Path, "stat", look)
    append(store, 1)
    assert looked == [folder.path, folder.path], "before and after"


def test_g1_a_folder_that_comes_back_is_written_on(folder: JournalFolder, store: Store) -> None:
    append(store, 1)
    elsewhere = folder.path.rename(folder.path.with_name("elsewhere"))
    with pytest.raises(JournalError, match="was removed"):
        append(store, 1)
    elsewhere.rename(folder.path)
    append(store, 1)
    assert verify(folder.path).last_seq == 2


def test_g1_a_file_that_vanishes_during_a_commit_is_noticed_before_it_is_confirmed(
    folder: JournalFolder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(store, 2)
    sync = os.fdatasync

    def removes(descriptor: int) -> None:
        sync(descriptor)
        folder.database.unlink()

    monkeypatch.setattr(os, "fdatasync", removes)
    with pytest.raises(JournalError, match="was removed"):
        append(store, 1)
    monkeypatch.undo()
    with pytest.raises(JournalError, match="rows after 2 may be lost"):
        append(store, 1)
    assert store.end.seq == 2


def test_the_newest_two_snapshots_are_kept(folder: JournalFolder, store: Store) -> None:
    for _ in range(3):
        append(store, 2)
        store.write_snapshot(store.end.seq, state(store.end.seq), {})
    assert snapshots(folder) == (6, 4)


def test_a_damaged_snapshot_is_not_one_of_the_two_that_are_kept(folder: JournalFolder, store: Store) -> None:
    for _ in range(2):
        append(store, 2)
        store.write_snapshot(store.end.seq, state(store.end.seq), {})
    with closing(sqlite3.connect(folder.database)) as connection, connection:
        connection.execute("UPDATE snapshots SET payload = x'00' WHERE seq = 4")
    append(store, 2)
    store.write_snapshot(6, state(6), {})
    assert snapshots(folder) == (6, 2)
    assert verify(folder.path).ok


def parts_of(*contents: bytes) -> dict[bytes, bytes]:
    return {digest_of_part(content): content for content in contents}


def written_parts(folder: JournalFolder) -> dict[bytes, int]:
    """Return each part's content, and where it stands: a part that is written anew gets another number."""
    with closing(sqlite3.connect(folder.database)) as connection:
        return dict(connection.execute("SELECT content, rowid FROM parts"))


def test_a_part_that_snapshots_share_is_written_once_and_dropped_with_the_last(
    folder: JournalFolder, store: Store
) -> None:
    append(store, 3)
    store.write_snapshot(1, state(1), parts_of(b"old", b"shared"))
    store.write_snapshot(2, state(2), parts_of(b"shared", b"new"))
    first = written_parts(folder)
    assert first.keys() == {b"old", b"shared", b"new"}
    store.write_snapshot(3, state(3), parts_of(b"shared", b"newer"))
    second = written_parts(folder)
    assert second.keys() == {b"shared", b"new", b"newer"}
    assert second[b"shared"] == first[b"shared"]
    assert survey_newest(folder).snapshot == Snapshot(store.end, state(3), parts_of(b"shared", b"newer"))


@pytest.mark.parametrize("damage", ["UPDATE parts SET content = x'00'", "DELETE FROM parts"])
def test_rows_stand_in_for_a_damaged_part_until_it_is_written_again(
    folder: JournalFolder, damage: str
) -> None:
    with closing(Store(folder, GENESIS)) as store:
        append(store, 4)
        for seq in (1, 3):
            store.write_snapshot(seq, state(seq), parts_of(b"shared"))
    with closing(sqlite3.connect(folder.database)) as connection, connection:
        connection.execute(damage)
    found = survey_newest(folder)
    assert (found.snapshot, found.problems, len(found.rows)) == (None, [], 4)
    assert len(found.notes) == 2
    assert "its part" in found.notes[0]

    with closing(Store(folder, found.end)) as fresh:
        fresh.write_snapshot(4, state(4), parts_of(b"shared"))

    assert survey_newest(folder).snapshot == Snapshot(found.end, state(4), parts_of(b"shared"))
    assert verify(folder.path).ok


@pytest.mark.parametrize("damage", ["UPDATE parts SET content = x'00'", "DELETE FROM parts"])
def test_a_snapshot_that_was_found_to_lack_a_part_is_not_one_of_the_two_that_are_kept(
    folder: JournalFolder, damage: str
) -> None:
    with closing(Store(folder, GENESIS)) as store:
        append(store, 4)
        store.write_snapshot(1, state(1), parts_of(b"old"))
        store.write_snapshot(3, state(3), parts_of(b"new"))
    with closing(sqlite3.connect(folder.database)) as connection, connection:
        connection.execute(f"{damage} WHERE digest = ?", (digest_of_part(b"new"),))
    found = survey_newest(folder)
    assert (found.snapshot and found.snapshot.link.seq, found.damaged) == (1, {3})

    with closing(Store(folder, found.end, parts_of(b"old"), found.damaged)) as fresh:
        fresh.write_snapshot(4, state(4), parts_of(b"newer"))

    assert snapshots(folder) == (4, 1)
    assert verify(folder.path).ok


def test_a_snapshot_that_lacks_a_part_by_now_is_not_one_of_the_two_that_are_kept(
    folder: JournalFolder, store: Store
) -> None:
    append(store, 4)
    store.write_snapshot(1, state(1), parts_of(b"old"))
    store.write_snapshot(3, state(3), parts_of(b"new"))
    with closing(sqlite3.connect(folder.database)) as connection, connection:
        connection.execute("DELETE FROM parts WHERE digest = ?", (digest_of_part(b"new"),))
    store.write_snapshot(4, state(4), parts_of(b"newer"))
    assert snapshots(folder) == (4, 1)


def test_a_snapshot_of_a_row_that_is_not_there_is_refused(folder: JournalFolder, store: Store) -> None:
    append(store, 1)
    with pytest.raises(JournalError, match="row 2 is not in the journal"):
        store.write_snapshot(2, b"", {})
    assert snapshots(folder) == ()


def test_a_database_is_made_over_the_remains_of_one(folder: JournalFolder) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{folder.fresh_database}{suffix}").write_bytes(b"remains")
    base = Link(7, bytes(32))
    create_database(folder, base, [(extend(base, b"8"), b"8")])
    folder.adopt_database()
    assert verify(folder.path).first_seq == 8
    assert verify(folder.path).rows == 1
