"""Stacks of a process whose GIL is held: written by a watchdog that does not need it.

While the GIL is held no Python code of the process runs, the weavelet's neither. The timer of `faulthandler`
is a thread in C that reads the stacks all the same; the weavelet sets it back every two seconds, so it
expires only when the weavelet could not run. What it writes is in a file that an operator's process on this
host can read meanwhile, and that the weavelet tells the broker when it runs again.
"""

import asyncio
import contextlib
import os
import sys
import threading
import time
from pathlib import Path

from zloom.endpoints import runtime_folder
from zloom.errors import TransportError
from zloom.model import Hold, ThreadStack
from zloom.stack_source import with_source
from zloom.stack_timer import StackTimer, is_in_use
from zloom.stacks import heading, limited, parse
from zloom.training import Training

if sys.platform != "win32":
    import fcntl

INTERVAL = 2.0
"""Seconds between two looks, at each of which the timer begins anew, with a thread of its own: a millisecond
of a core beside a training in Python. Half of the time until the timer expires where that is less, or it
would expire by itself."""

STALE_AFTER = 60.0
"""Seconds that a file is let alone in case that its process has not locked it yet."""

READ_LIMIT = 1_000_000
"""Bytes of a dump that are read: `faulthandler` writes 100 threads of 100 frames at most."""


class HoldWatch:
    """Watches over the loop of one weavelet; all methods belong to the loop's thread.

    Where there is no private folder, or another weavelet of the process watches already, or somebody else has
    set the timer of `faulthandler`, it does nothing; when somebody sets that later it ends.

    Args:
        replica: Whose; it names the file.
        training: Knows which thread trains.
        after: Seconds until the stacks are written; None: never.
    """

    def __init__(self, replica: str, training: Training, after: float | None) -> None:
        self._replica = replica
        self._training = training
        self._after = after
        self._path: Path | None = None
        self._file = -1
        self._heading = b""
        """What stands in the file as long as nothing is written below it."""
        self._set_back = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stack_timer = StackTimer()
        self.newest: Hold | None = None
        """The newest time that the loop was held up until stacks were written: for `after` seconds, or up to
        `INTERVAL` less, as those count from the look before it."""

    def start(self) -> None:
        """Begin."""
        if self._after is None or sys.platform == "win32" or not self._stack_timer.claim():
            return
        try:
            self._path = _path(self._replica, create=True)
            _sweep(self._path.parent)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as long as this process lives
        except (OSError, TransportError):
            self._let_go()
            return
        self._begin_anew()

    def stop(self) -> None:
        """End, and remove the file."""
        if self._timer is not None:
            self._timer.cancel()
            self._let_go()

    def _let_go(self) -> None:
        self._timer = None
        self._stack_timer.release()  # before the file is closed that it writes to
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _look(self) -> None:
        assert self._after is not None, "only then is there a timer"
        is_set = self._stack_timer.is_set
        renewed = self._heading == self._newest_heading() and self._stack_timer.renew(self._after, self._file)
        # A late one may have written just before it was set anew.
        if renewed and time.monotonic() - self._set_back < (self._after + self._interval) / 2:
            self._wait()  # as a rule
            return
        is_over = is_set and self._stack_timer.is_over
        self._stack_timer.unset()
        threads = self._written()
        if threads:
            seconds = time.monotonic() - self._set_back
            self.newest = Hold(at=time.time(), seconds=seconds, threads=limited(with_source(threads)))
        if (is_over and not threads) or ((is_over or not is_set) and is_in_use()):
            self._let_go()  # somebody else has set the timer, and needs it for longer than a moment
        else:
            self._begin_anew()

    def _written(self) -> list[ThreadStack]:
        if os.fstat(self._file).st_size == len(self._heading):
            return []
        threads = parse(os.pread(self._file, READ_LIMIT, 0).decode(errors="replace"))
        self._heading = b""
        return threads

    def _begin_anew(self) -> None:
        assert self._after is not None, "only then is there a timer"
        written = self._newest_heading()
        if written != self._heading:
            with contextlib.suppress(OSError):  # a file system that is full: the next dump may find room
                os.ftruncate(self._file, 0)
                os.lseek(self._file, 0, os.SEEK_SET)
                os.write(self._file, written)
                self._heading = written
        with contextlib.suppress(RuntimeError):  # no thread to be had: perhaps the next time
            self._stack_timer.set(self._after, self._file)
        self._wait()

    def _newest_heading(self) -> bytes:
        return heading(self._training.thread, threading.get_ident()).encode()

    def _wait(self) -> None:
        self._set_back = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)

    @property
    def _interval(self) -> float:
        assert self._after is not None, "only then is there a timer"
        return min(INTERVAL, self._after / 2)


def read_hold(replica: str) -> tuple[list[ThreadStack], float]:
    """Return what the watchdog of a replica on this host wrote, and when in seconds since the Unix epoch.

    There are no stacks where the replica is on another host or of another user, or holds no GIL.
    """
    try:
        path = _path(replica)
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except (OSError, TransportError):
        return [], 0.0
    with open(file, encoding="utf-8", errors="replace") as dump:
        return with_source(parse(dump.read(READ_LIMIT))), os.fstat(dump.fileno()).st_mtime


def _path(replica: str, *, create: bool = False) -> Path:
    folder = runtime_folder(create=create) / "stacks"
    if create:
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{replica}.txt"


def _sweep(folder: Path) -> None:
    """Remove the files of processes that were killed: nobody locks them any more."""
    for path in folder.glob("*.txt"):
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(file).st_mtime > STALE_AFTER:
                    path.unlink()
            finally:
                os.close(file)
