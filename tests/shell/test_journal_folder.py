import os
import shutil
from pathlib import Path

import pytest

from tests.shell.journal_driver import child, line
from zloom.errors import JournalError
from zloom_broker.journal import open_journal
from zloom_broker.journal.folder import JournalFolder


def test_the_folder_is_private(tmp_path: Path) -> None:
    open_journal(tmp_path / "a" / "b").close()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=r"file/data cannot be created: Not a directory"):
        open_journal(tmp_path / "file" / "data")


def test_a_lock_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(JournalError, match="cannot be locked: Is a directory"):
        open_journal(tmp_path)


def test_a_second_broker_is_refused_and_told_the_pid_of_the_first(tmp_path: Path) -> None:
    with child("write", tmp_path, 1, 0) as process:
        assert line(process) == "written"
        with pytest.raises(JournalError) as caught:
            open_journal(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert f"(pid {process.pid})" in str(caught.value)
    assert "\n" not in str(caught.value)
    open_journal(tmp_path).close()


def test_the_lock_is_given_back_when_opening_fails(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite3.new").mkdir()
    for _ in range(2):
        with pytest.raises(JournalError, match="cannot be opened"):
            open_journal(tmp_path)


def test_quarantine_copies_what_is_there_once_for_each_damage(tmp_path: Path) -> None:
    folder = JournalFolder(tmp_path)
    folder.database.write_bytes(b"one")
    folder.head.write_bytes(b"head")
    first = folder.quarantine()
    assert first.name.startswith("quarantine-")
    assert {file.name: file.read_bytes() for file in first.iterdir()} == {
        "journal.sqlite3": b"one",
        "head": b"head",
    }
    assert folder.quarantine() == first
    modified = folder.database.stat().st_mtime_ns
    folder.database.write_bytes(b"two")
    os.utime(folder.database, ns=(modified, modified))  # as when the medium forgets
    second = folder.quarantine()
    assert second != first
    assert (second / "journal.sqlite3").read_bytes() == b"two"
    assert (first / "journal.sqlite3").read_bytes() == b"one"


def test_a_copy_that_fails_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = JournalFolder(tmp_path)
    folder.database.write_bytes(b"one")

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(OSError, match="No space"):
        folder.quarantine()
    assert [file.name for file in tmp_path.iterdir()] == ["journal.sqlite3"]
