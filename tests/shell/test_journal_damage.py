"""Damage to the pages that all else hangs on, and to any page where rows were lost in a repair."""

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.shell.journal_driver import flip_bit, parts, payload, start, state, write_rows
from zloom_broker.journal import Recovered, open_journal, repair, verify
from zloom_broker.journal.folder import JournalFolder
from zloom_broker.parts import Parts, digest_of_part

PAGE = 4096


def execute(data_dir: Path, statement: str) -> None:
    with closing(sqlite3.connect(JournalFolder(data_dir).database)) as connection, connection:
        connection.execute(statement)


def page_of(data_dir: Path, table: str) -> int:
    """Return where the page begins that a table begins with."""
    with closing(sqlite3.connect(JournalFolder(data_dir).database)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (number,) = connection.execute(query, (table,)).fetchone()
    return (int(number) - 1) * PAGE


def heart_of(page: bytes, header: int, most: int) -> Iterator[int]:
    """Yield the bytes of a page that say where its cells are, and the first ones of each, so many at most."""
    cells = int.from_bytes(page[header + 3 : header + 5], "big")
    pointers = range(header + 8, header + 8 + 2 * cells, 2)
    yield from range(header + 8 + 2 * cells)
    for pointer in pointers:
        cell = int.from_bytes(page[pointer : pointer + 2], "big")
        yield from range(cell, min(cell + most, PAGE))


def assert_served(recovered: Recovered) -> None:
    """What is served is what was written."""
    seq = recovered.snapshot_seq
    assert recovered.snapshot == (state(seq) if seq else None)
    assert recovered.parts == (parts(seq) if seq else {})
    assert recovered.rows == [(each, payload(each)) for each in range(seq + 1, recovered.last_seq + 1)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal in order; not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    write_rows(folder, 12, snapshots=(4, 8))
    return folder


@pytest.mark.parametrize(
    ("table", "header", "most"), [("schema", 100, 100), ("base", 0, 16), ("snapshots", 0, 16)]
)
def test_any_bit_on_the_page_of(whole: Path, tmp_path: Path, table: str, header: int, most: int) -> None:
    """It is told or harms nothing; and a repair keeps all rows of a database that can be read at all."""
    begin = 0 if table == "schema" else page_of(whole, table)
    page = JournalFolder(whole).database.read_bytes()[begin : begin + PAGE]
    places = [(place, bit) for place in heart_of(page, header, most) for bit in range(8)]
    for number, (place, bit) in enumerate(random.Random(table).sample(places, 60)):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        flip_bit(JournalFolder(folder).database, begin + place, bit)
        with open_journal(folder) as journal:
            assert_served(journal.recovered)
            assert journal.recovered.last_seq == 12 or journal.read_only_reason
            assert list(folder.glob("quarantine-*")) or not journal.read_only_reason
        found = verify(folder)
        report = repair(folder, accept_loss=True)
        assert (report.found.ok, report.repaired) == (found.ok, not found.ok)
        with open_journal(folder) as journal:
            assert journal.read_only_reason is None
            assert_served(journal.recovered)
            assert journal.recovered.last_seq == report.last_seq
        if table != "schema":
            assert (report.first_seq, report.last_seq, report.lost) == (1, 12, 0), (place, bit)


@pytest.mark.parametrize(("text", "place"), [(b"CREATE TABLE rows", 8), (b"tablerowsrows", 6)])
def test_a_damaged_name_is_damage_like_any_other(
    whole: Path, tmp_path: Path, text: bytes, place: int
) -> None:
    # SQLite quotes it in its error, which then is no UTF-8.
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    database = JournalFolder(folder).database
    flip_bit(database, database.read_bytes().index(text) + place, 7)
    with open_journal(folder) as journal:
        assert "the database is damaged: " in (journal.read_only_reason or "")
        assert "codec" not in (journal.read_only_reason or "")
    assert list(folder.glob("quarantine-*"))
    assert not verify(folder).ok
    assert repair(folder, accept_loss=True).repaired
    assert verify(folder).ok


@pytest.mark.parametrize("seq", [1, 5, -7])
@pytest.mark.parametrize("snapshots", [True, False])
def test_a_base_that_does_not_fit_costs_no_row(
    whole: Path, tmp_path: Path, seq: int, snapshots: bool
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    execute(folder, f"UPDATE base SET seq = {seq}")
    if not snapshots:
        execute(folder, "DELETE FROM snapshots")
    with open_journal(folder) as journal:
        assert "the journal " in (journal.read_only_reason or "")
        assert_served(journal.recovered)
        assert journal.recovered.last_seq == 12
    report = repair(folder, accept_loss=True)
    assert (report.repaired, report.first_seq, report.last_seq, report.lost) == (True, 1, 12, 0)


def test_a_snapshot_of_which_a_part_is_damaged_makes_room_for_the_next(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    (own,) = parts(8).keys() - parts(4).keys()
    execute(folder, f"UPDATE parts SET content = x'00' WHERE digest = x'{own.hex()}'")
    with open_journal(folder) as journal:
        assert journal.recovered.snapshot_seq == 4
    write_rows(folder, 14, snapshots=(14,))
    assert (verify(folder).snapshots, verify(folder).problems) == ((14, 4), [])


# --- where rows were lost ------------------------------------------------------------------------


def large_parts(seq: int) -> Parts:
    """Parts of which each takes pages of its own."""
    contents = (f"{name} {number} ".encode() * 1500 for name in ("shared", f"row {seq}") for number in (1, 2))
    return {digest_of_part(content): content for content in contents}


@pytest.fixture(scope="module")
def without_old_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of 30 rows of which those up to row 15 are lost, with snapshots; not to be written to."""
    folder = tmp_path_factory.mktemp("without")
    write_rows(folder, 20, snapshots=(15,))
    execute(folder, "UPDATE rows SET payload = x'00' WHERE seq = 3")
    assert repair(folder, accept_loss=True).first_seq == 16
    write_rows(folder, 30)
    for seq in (25, 28):
        write_snapshot(folder, seq)
    return folder


def write_snapshot(data_dir: Path, seq: int) -> None:
    with open_journal(data_dir) as journal:
        start(journal)
        journal.write_snapshot(seq, state(seq), large_parts(seq))


def zeros(database: Path, page: int) -> None:
    overwrite(database, page, bytes(PAGE))


def garbage(database: Path, page: int) -> None:
    overwrite(database, page, b"\xa5" * PAGE)


def overwrite(database: Path, page: int, content: bytes) -> None:
    with database.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(content)


@pytest.mark.parametrize("damage", [zeros, garbage])
def test_any_page_but_the_first_may_be_lost(
    without_old_rows: Path, tmp_path: Path, damage: Callable[[Path, int], None]
) -> None:
    pages = JournalFolder(without_old_rows).database.stat().st_size // PAGE
    assert pages > 30
    lost = []
    for page in range(pages):
        folder = tmp_path / str(page)
        shutil.copytree(without_old_rows, folder)
        damage(JournalFolder(folder).database, page)
        for _ in range(2):
            with open_journal(folder) as journal:
                recovered = journal.recovered
            if (recovered.snapshot, recovered.parts) != (state(28), large_parts(28)):
                lost.append(page)
                break
            assert repair(folder, accept_loss=True).last_seq >= 28
    assert lost == [0], "on which the schema stands"


@pytest.mark.parametrize("table", ["parts", "part_copies", "snapshots", "snapshot_copies"])
@pytest.mark.parametrize("damage", ["UPDATE {} SET {} = x'00'", "DELETE FROM {}"])
def test_either_copy_stands_in_for_the_other_until_it_is_written_again(
    without_old_rows: Path, tmp_path: Path, table: str, damage: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(without_old_rows, folder)
    execute(folder, damage.format(table, "content" if "part" in table else "payload"))
    found = verify(folder)
    assert (found.ok, found.snapshots, len(found.notes)) == (True, (28, 25), 2)
    assert "in for" in found.notes[0]
    assert repair(folder, accept_loss=True).repaired is False
    with open_journal(folder) as journal:
        assert journal.read_only_reason is None
        assert (journal.recovered.snapshot, journal.recovered.parts) == (state(28), large_parts(28))
        assert journal.recovered.notes == (found.notes[0],)
    write_snapshot(folder, 29)
    assert [note for note in verify(folder).notes if "row 29" in note] == []
    write_snapshot(folder, 30)
    assert (verify(folder).ok, verify(folder).notes) == (True, [])
