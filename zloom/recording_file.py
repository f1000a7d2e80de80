"""Recordings on disk: written so that a kill costs at most what was not handed over, read as a stream."""

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgpack

from zloom import recording
from zloom.errors import RecordingError
from zloom.recording import AnyRecord, Header

T = TypeVar("T")


def check_writable(path: Path, *, replace: bool = False) -> None:
    """Refuse a path that `RecordingWriter` could not write to now; nothing is made.

    Raises:
        RecordingError: The file is there, or cannot be written.
    """
    if path.exists() and not replace:
        raise _taken(path)
    if not path.parent.is_dir():
        raise _unwritable(path, f"there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise _unwritable(path, "permission denied")


def _unwritable(path: Path, why: str) -> RecordingError:
    return RecordingError(f"{path} cannot be written: {why}")


def _taken(path: Path) -> RecordingError:
    return RecordingError(f"{path} is there already; name another file, or give --force")


class RecordingWriter:
    """Writes a recording: what `write` was given survives a kill of this process.

    Args:
        path: Of the file.
        replace: Write over a file that is there.

    Raises:
        RecordingError: The file is there, or cannot be written.
    """

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        self._path = path
        self.size = 0
        """Bytes written."""
        try:
            self._file = path.open("wb" if replace else "xb", buffering=0)
        except FileExistsError:
            raise _taken(path) from None
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, records: list[AnyRecord]) -> None:
        """Hand records over to the system.

        Raises:
            RecordingError: They could not be written.
        """
        data = b"".join(map(recording.encode, records))
        try:
            while data:
                written = self._file.write(data)
                self.size += written
                data = data[written:]
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Have all of it on disk, and close the file.

        Raises:
            RecordingError: It could not be written.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._file.close()  # what went wrong is to be told, not that it goes wrong again

    def _unwritable(self, error: OSError) -> RecordingError:
        return _unwritable(self._path, error.strerror or str(error))


@dataclass(slots=True)
class Loss:
    """What of a recording could not be taken, known when all of it was read.

    Attributes:
        cut: Bytes at the end that are no whole object: the recorder was killed while it wrote.
        unknown: Records of types that this version does not know.
    """

    cut: int = 0
    unknown: int = 0


class RecordingReader:
    """Reads a recording record by record; a last object that is not whole is passed over and counted.

    Args:
        path: Of the file.

    Raises:
        RecordingError: The file cannot be read, or is no recording that this version knows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.loss = Loss()
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error
        self._objects = self._unpacked()
        try:
            self.header: Header = self._named(recording.read_header, next(self._objects, None))
        except RecordingError:
            self._objects.close()
            raise

    def records(self) -> Iterator[AnyRecord]:
        """Yield what follows the header; once. Raises RecordingError where the file is damaged."""
        for content in self._objects:
            record = self._named(recording.read, content)
            if record is None:
                self.loss.unknown += 1
            else:
                yield record

    def _named(self, read: Callable[[object], T], content: object) -> T:
        try:
            return read(content)
        except RecordingError as error:
            raise RecordingError(f"{self._path} {error}") from error

    def _unpacked(self) -> Generator[Any, None, None]:
        whole = 0
        with self._file as file:
            size = os.fstat(file.fileno()).st_size
            unpacker = msgpack.Unpacker(file, strict_map_key=False)
            try:
                for content in unpacker:
                    whole = unpacker.tell()
                    yield content
            except OSError as error:
                raise RecordingError(f"{self._path} cannot be read: {error.strerror or error}") from error
            except (TypeError, ValueError, msgpack.UnpackException) as error:  # TypeError: a map as a key
                what = str(error) or type(error).__name__
                raise RecordingError(f"{self._path} is damaged after byte {whole}: {what}") from error
            self.loss.cut = max(0, size - whole)
