"""The journal's files, cut at every byte of their last pages, and with bits flipped in each kind of page.

What is served is what was written. Less of it is served only where the journal says that it is damaged.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.table import Tally
from tests.shell.journal_driver import child, flip_bit, line, payload, state, write_rows
from zloom.errors import JournalError
from zloom_broker.journal import open_journal
from zloom_broker.journal.head import SLOT_SIZE, SLOT_SPACING

NAMES = ("journal.sqlite3", "journal.sqlite3-wal", "head")
PAGE = 4096
FRAME = PAGE + 24
"""Bytes of a page in the write-ahead log, with its header."""

ROWS = 60


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of 60 rows that a killed broker left behind: 30 in the database, all in the log."""
    folder = tmp_path_factory.mktemp("killed")
    write_rows(folder, ROWS // 2, (ROWS // 4,))
    with child("write", folder, ROWS, ROWS * 3 // 4) as process:
        assert line(process) == "written"
    return folder


def copied(source: Path, copy: Path) -> Path:
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for name in NAMES:
        shutil.copy(source / name, copy / name)
    return copy


def assert_honest(folder: Path) -> None:
    """A start serves what was written, and all of it unless it says what is wrong."""
    try:
        journal = open_journal(folder)
    except JournalError as error:
        assert str(error)  # noqa: PT017 - any other error fails the test
        return
    with journal:
        found = journal.recovered
        assert found.snapshot == (state(found.snapshot_seq) if found.snapshot_seq else None)
        expected = [(seq, payload(seq)) for seq in range(found.snapshot_seq + 1, found.last_seq + 1)]
        assert found.rows == expected
        assert found.last_seq == ROWS or journal.read_only_reason, f"only {found.last_seq} rows, silently"


def sizes(file: Path, pages: int, every: int) -> Iterator[int]:
    """Yield what the file may be cut to: sizes within its last pages."""
    size = file.stat().st_size
    yield from range(max(0, size - pages * FRAME), size, every)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.fault("journal: the database, its log and its head cut at every byte of their last pages")
def test_cut_anywhere(killed: Path, tmp_path: Path, tally: Tally, long_form: bool, name: str) -> None:
    for size in sizes(killed / name, 2, 1 if long_form else 331):
        folder = copied(killed, tmp_path / "copy")
        with (folder / name).open("r+b") as file:
            file.truncate(size)
        assert_honest(folder)
        tally.held("kept")


def places(killed: Path, name: str) -> Iterator[int]:
    """Yield bytes of each kind of page: headers, cells, free room; of the log also the frames' headers."""
    size = (killed / name).stat().st_size
    if name == "head":
        yield from (slot * SLOT_SPACING + byte for slot in (0, 1) for byte in range(0, SLOT_SIZE, 3))
    elif name.endswith("-wal"):
        yield from range(32)
        for frame in range(32, size, FRAME):
            yield from (frame + byte for byte in (0, 3, 4, 8, 16, 23, 24, 27, 32, 100, FRAME // 2, FRAME - 1))
    else:
        for page in range(0, size, PAGE):
            yield from (
                page + byte for byte in (0, 1, 3, 5, 8, 12, 24, 40, 100, PAGE // 2, PAGE - 40, PAGE - 1)
            )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.fault("journal: single bits flipped in each kind of page, also in the middle of the log")
def test_a_flipped_bit(killed: Path, tmp_path: Path, tally: Tally, long_form: bool, name: str) -> None:
    chosen = [place for place in places(killed, name) if place < (killed / name).stat().st_size]
    for number, place in enumerate(chosen if long_form else chosen[:: len(chosen) // 12]):
        for bit in range(8) if long_form else (number % 8,):
            folder = copied(killed, tmp_path / "copy")
            flip_bit(folder / name, place, bit)
            assert_honest(folder)
            tally.held("kept")
