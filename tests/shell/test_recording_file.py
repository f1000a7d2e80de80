"""Recordings on disk: whole, cut off, damaged, or something else."""

import stat
from pathlib import Path

import pytest

from zloom import recording
from zloom.errors import RecordingError
from zloom.model import Revision
from zloom.recording import AnyRecord
from zloom.recording_file import Loss, RecordingReader, RecordingWriter

HEADER = recording.Header(magic=recording.MAGIC, version=recording.VERSION, run="lm", attempt="one")
RECORDS: list[AnyRecord] = [
    recording.Revised(revision=Revision(1, "config", {"rate": 0.5}), at=1.5),
    recording.Gap(missed=3),
    recording.End(reason="finished"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.zloom"
    with RecordingWriter(path) as writer:
        writer.write([HEADER])
        writer.write(RECORDS)
        assert path.stat().st_size == writer.size  # before it is closed: a kill would lose nothing
    return path


def read(path: Path) -> tuple[list[AnyRecord], Loss]:
    reader = RecordingReader(path)
    assert reader.header == HEADER
    return list(reader.records()), reader.loss


def test_what_was_written_is_read(path: Path) -> None:
    assert read(path) == (RECORDS, Loss())


def test_wherever_it_is_cut_off_what_is_whole_is_read_and_the_rest_is_counted(path: Path) -> None:
    data = path.read_bytes()
    ends = [len(recording.encode(HEADER))]
    for record in RECORDS:
        ends.append(ends[-1] + len(recording.encode(record)))
    for size in range(ends[0], len(data) + 1):
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in ends[1:])
        cut = size - max(end for end in ends if end <= size)
        assert read(path) == (RECORDS[:whole], Loss(cut=cut))


def test_records_of_a_newer_version_are_passed_over_and_counted(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\x81\xa4type\xa5newer" * 2)
    assert read(path) == (RECORDS, Loss(unknown=2))


@pytest.mark.parametrize("garbage", [b"\xc1 and more", b"\x81\x80\x01", b"\x81\x90\x01"])
def test_damage_is_named_with_its_place(path: Path, garbage: bytes) -> None:
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(garbage)
    with pytest.raises(RecordingError, match=rf"run\.zloom is damaged after byte {size}: "):
        read(path)


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04 a zip file", b"{}", b"\xc1", b"\x93\x01"])
def test_another_file_is_no_recording(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"other is (no recording of zloom|damaged)"):
        RecordingReader(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="gone cannot be read: No such file"):
        RecordingReader(tmp_path / "gone")


def test_a_file_that_is_there_is_left_alone_unless_it_may_be_replaced(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(
        RecordingError, match=r"run\.zloom is there already; name another file, or give --force"
    ):
        RecordingWriter(path)
    assert path.read_bytes() == before
    with RecordingWriter(path, replace=True) as writer:
        writer.write([HEADER])
    assert read(path) == ([], Loss())


def test_a_full_disk_is_named() -> None:
    full = Path("/dev/full")
    if not full.exists() or not stat.S_ISCHR(full.stat().st_mode):
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(RecordingError, match="/dev/full cannot be written: No space left"),
        RecordingWriter(full, replace=True) as writer,
    ):
        writer.write([HEADER])


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be written: No such file or directory"):
        RecordingWriter(tmp_path / "no" / "run.zloom")
