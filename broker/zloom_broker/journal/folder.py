"""The data folder of a broker: the names in it, its lock, and copies of what is damaged."""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from zloom.errors import JournalError
from zloom_broker.journal.head import sync_path

_TOLD = 4096
"""Bytes of a lock file that are read for what its owner tells."""

_TICK = 3_000_000_000
"""Nanoseconds: more than the tick of any file system's clock, the coarsest of which is FAT's with 2 s."""

_TRUSTED = 1.0
"""Seconds after which all files are looked at again: a mount over one of them does not change the folder."""


class FolderLock:
    """An exclusive lock on a data folder, held until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        """Take the lock and leave this process's pid in the lock file.

        Raises:
            JournalError: Another broker has it; the text names the folder, its pid and where it listens.
        """
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.tell()
        except BlockingIOError:
            text = os.pread(self._descriptor, _TOLD, 0).decode(errors="replace")
            os.close(self._descriptor)
            pid, *endpoints = text.splitlines() or ["unknown"]
            where = f", at {' and '.join(endpoints)}" if endpoints else ""
            raise JournalError(
                f"data folder {path.parent} is in use by another broker (pid {pid}{where}); use that one, "
                "with --broker or ZLOOM_BROKER, or stop it, or choose another --data-dir"
            ) from None
        except OSError:
            os.close(self._descriptor)
            raise

    def tell(self, endpoints: Iterable[str] = ()) -> None:
        """Leave in the lock file this process's pid and where it listens.

        Raises:
            OSError: It cannot be written.
        """
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, "\n".join([str(os.getpid()), *endpoints, ""]).encode(), 0)

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two brokers lock two different files."""
        os.close(self._descriptor)


class Custody:
    """Which files stood in a folder, so that it shows when one is removed or another takes its place.

    A descriptor goes on working after that, and what is written to it is gone with the process.

    Each look at a file lets go of the interpreter. What changes which files are in a folder changes the
    folder's ctime, which no tool can set back as it can the time of its modification, so that one look at it
    mostly tells of all.

    Args:
        folder: Where they are.
        files: Their paths.

    Raises:
        FileNotFoundError: One is not there.
    """

    def __init__(self, folder: Path, files: Iterable[Path]) -> None:
        self._folder = folder
        self._inodes = {path: _inode(path) for path in files}
        self._known: tuple[int, int, int] | None = None
        """The folder as it was at the newest look at all files; None where it had just been changed, as what
        comes within one tick of the file system's clock looks the same."""
        self._until = 0.0
        """Until when that is enough."""

    def check(self) -> None:
        """See that they all still stand there; takes a few microseconds.

        Raises:
            JournalError: One does not; the text says which.
            OSError: The disk does not tell.
        """
        now, folder = time.monotonic(), self._look()
        if folder is None or folder != self._known or now >= self._until:
            self._check_all()
            settled = folder is not None and time.time_ns() - folder[-1] > _TICK
            self._known = folder if settled else None
            self._until = now + _TRUSTED

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = self._folder.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_ctime_ns

    def _check_all(self) -> None:
        for path, inode in self._inodes.items():
            try:
                now = _inode(path)
            except (FileNotFoundError, NotADirectoryError):
                now = None
            if now != inode:
                what = "removed" if now is None else "replaced"
                raise JournalError(
                    f"{path} was {what} while the broker runs, so nothing more is written; "
                    "put the broker's own files back, or stop it and start it again"
                )


class JournalFolder:
    """Where the files of a journal are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "journal.sqlite3"
        self.fresh_database = path / "journal.sqlite3.new"
        self.wal = path / "journal.sqlite3-wal"
        self.shared_memory = path / "journal.sqlite3-shm"
        self.head = path / "head"
        self.lock_file = path / "lock"

    def create(self) -> None:
        """Make the folder, mode 0700, where it is missing.

        Raises:
            JournalError: It cannot be made or is no folder.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"data folder {self.path} cannot be created: {error.strerror}") from error

    def lock(self) -> FolderLock:
        """Take the folder's lock.

        Raises:
            JournalError: Another broker has it, or the folder cannot be written.
        """
        try:
            return FolderLock(self.lock_file)
        except OSError as error:
            raise JournalError(f"data folder {self.path} cannot be locked: {error.strerror}") from error

    def custody(self) -> Custody:
        """Remember the files that a broker writes to, all of which are there while it has them open.

        The lock is one of them: two brokers that locked two files would write to one database.
        """
        return Custody(self.path, (self.lock_file, self.database, self.wal, self.head))

    def has_database(self) -> bool:
        """Whether there is a database, or the write-ahead log of one that was removed."""
        return self.database.exists() or (self.wal.exists() and self.wal.stat().st_size > 0)

    def adopt_database(self) -> None:
        """Make the fresh database the database. No old write-ahead log may be left: SQLite would apply it."""
        self.fresh_database.replace(self.database)
        sync_path(self.path)

    def flush(self) -> None:
        """Wait until all that SQLite has written to its files is on disk; no connection may be open."""
        for file in (self.database, self.wal):
            if file.exists():
                sync_path(file)

    def quarantine(self) -> Path:
        """Copy the journal aside and return the folder with the copy; no connection may be open.

        The same damage is copied once: a supervisor that restarts a broker every second would otherwise
        fill the disk.

        Raises:
            OSError: The copy could not be made; none is left in part.
        """
        for earlier in sorted(self.path.glob("quarantine-*Z*"), reverse=True):
            if all(_same(earlier / file.name, file) for file in self._evidence()):
                return earlier
        partial = self.path / ".quarantine-partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        try:
            for file in self._evidence():
                sync_path(Path(shutil.copy2(file, partial)))
            return partial.rename(self._quarantine_name())
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            sync_path(self.path)

    def _evidence(self) -> list[Path]:
        return [file for file in (self.database, self.wal, self.head) if file.exists()]

    def _quarantine_name(self) -> Path:
        name = f"quarantine-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        taken = sum(1 for _ in self.path.glob(f"{name}*"))
        return self.path / (f"{name}-{taken + 1}" if taken else name)


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _same(copy: Path, file: Path) -> bool:
    # Not filecmp: it takes files of one size and time of modification for what they were, and a medium
    # that forgets changes neither.
    return copy.exists() and _digest(copy) == _digest(file)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.blake2b).digest()
