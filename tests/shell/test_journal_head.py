import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shell.journal_driver import flip_bit
from zloom_broker.journal.chain import GENESIS, Link
from zloom_broker.journal.head import SLOT_SIZE, SLOT_SPACING, HeadFile, decode_slot, encode_slot, read_head


def link(seq: int) -> Link:
    return Link(seq, seq.to_bytes(32, "big"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "head"


@given(st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32), st.integers(0, 8 * SLOT_SIZE - 1))
def test_a_slot_says_what_was_written_or_nothing(seq: int, chain: bytes, bit: int) -> None:
    slot = encode_slot(Link(seq, chain))
    assert decode_slot(slot) == (seq, chain)
    damaged = bytearray(slot)
    damaged[bit // 8] ^= 1 << bit % 8
    assert decode_slot(bytes(damaged)) is None


def test_missing_and_empty_files_say_nothing(path: Path) -> None:
    assert read_head(path) is None
    path.touch()
    assert read_head(path) is None


def test_the_last_write_is_read(path: Path) -> None:
    head = HeadFile(path, GENESIS)
    assert read_head(path) == GENESIS
    for seq in (1, 2, 50):
        head.write(link(seq))
        assert read_head(path) == link(seq)
    head.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["head"]


@given(torn_at=st.integers(0, SLOT_SIZE), before=st.integers(0, 4))
def test_a_write_that_is_torn_anywhere_leaves_the_link_before(torn_at: int, before: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "head"
        head = HeadFile(path, GENESIS)
        for seq in range(1, before + 1):
            head.write(link(seq))
        old = path.read_bytes()
        head.write(link(before + 1))
        head.close()
        new = path.read_bytes()
        (offset,) = {at for at in (0, SLOT_SPACING) if old[at:][:SLOT_SIZE] != new[at:][:SLOT_SIZE]}
        torn = old[:offset] + new[offset:][:torn_at] + old[offset + torn_at :]
        path.write_bytes(torn)
        assert read_head(path) == link(before + 1 if torn == new else before)


def test_damage_to_both_slots_is_noticed(path: Path) -> None:
    head = HeadFile(path, link(1))
    head.write(link(2))
    head.close()
    flip_bit(path, 20)
    assert read_head(path) == link(2)
    flip_bit(path, SLOT_SPACING + 20)
    assert read_head(path) is None


def test_a_failed_write_is_repeated_in_the_same_slot(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = HeadFile(path, link(1))

    def no_space(descriptor: int, data: bytes, offset: int) -> int:
        return write(descriptor, data[:20], offset)

    write = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", no_space)
        with pytest.raises(OSError, match="only 20 of 64 bytes"):
            head.write(link(2))
    assert head.link == read_head(path) == link(1)
    head.write(link(2))
    head.close()
    assert read_head(path) == link(2)


def test_opening_replaces_a_newer_head(path: Path) -> None:
    HeadFile(path, link(9)).close()
    HeadFile(path, link(3)).close()
    assert read_head(path) == link(3)
