"""The timer of `faulthandler`, which writes stacks without the GIL and of which a process has one.

It may be somebody else's: the program's own, or pytest's. Python does not tell whether it is set, and setting
it takes it away from whoever had. But it is a thread in C, and Linux shows those; so what is set by others is
seen, and let alone. Where that cannot be seen the timer is let alone too.

A forked child lacks the thread but remembers the timer, and waits for ever for its end when it exits
(`_PyFaulthandler_Fini`, up to CPython 3.14). So it is unset while the process forks.
"""

import contextlib
import faulthandler
import os
import platform
import re
import threading
import time

_TASKS = "/proc/self/task"
"""A folder for each thread of this process, on Linux."""

_ALL_SIGNALS = 0x7FFFFFFF
_UNBLOCKABLE = 1 << 8 | 1 << 18
"""SIGKILL and SIGSTOP, of 31 signals."""

_BLOCKED = re.compile(rb"^SigBlk:\t(\w+)", re.MULTILINE)

_FUTEX = {"x86_64": "202", "aarch64": "98"}
"""Number of the system call that a thread waits in for a lock."""

_WAITS, _FLAGS = (0, 9), 0x7F
"""What of that call is a wait, below its flags."""

_SETTLED_WITHIN = 0.1
"""Seconds in which a thread that was just started, or told to end, has come to wait or has ended."""

_lock = threading.RLock()
"""Held while the timer is set or unset, and during a fork; by a signal handler again."""

_owner: "StackTimer | None" = None
"""The one of this process that uses the timer."""


class StackTimer:
    """A turn at the timer, for one thread; forks may happen on any."""

    def __init__(self) -> None:
        self._threads: set[str] = set()
        self._seconds, self._file = 0.0, -1
        self._interrupted = False
        """It is unset only for the length of a fork."""

    def claim(self) -> bool:
        """Have the timer from now on; False where another has it, or may have it."""
        global _owner
        with _lock:
            if _owner is not None or is_in_use():
                return False
            _owner = self
            return True

    def release(self) -> None:
        """Unset it, and leave it to others."""
        global _owner
        with _lock:
            self.unset()
            if _owner is self:
                _owner = None

    def set(self, seconds: float, file: int) -> None:
        """Have the stacks of all threads written once, unless `unset` comes before.

        Args:
            seconds: From now.
            file: Descriptor to write to.

        Raises:
            RuntimeError: There is no thread to be had.
        """
        with _lock:
            self._seconds, self._file = seconds, file
            before = set(os.listdir(_TASKS))
            faulthandler.dump_traceback_later(seconds, file=file)
            self._threads = set(os.listdir(_TASKS)) - before
            if not self._threads:  # it would write to a file that is closed by then
                faulthandler.cancel_dump_traceback_later()

    def unset(self) -> None:
        """Have nothing written any more, and wait for what is being written."""
        with _lock:
            self._cancel()
            self._threads = set()

    @property
    def is_over(self) -> bool:
        """Whether it was set and waits no more: it has written, or somebody else has set or unset it."""
        return bool(self._threads) and not self._running()

    def _running(self) -> list[str]:
        return [thread for thread in self._threads if os.path.exists(f"{_TASKS}/{thread}")]

    def _cancel(self) -> bool:
        """Unset it where it waits, and return whether it did; else it is over, and stays so."""
        waits = self._waits()
        if waits:
            faulthandler.cancel_dump_traceback_later()
            self._threads = set()
        return waits

    def _waits(self) -> bool:
        """Return whether it is set, and not somebody else's instead.

        When another sets the timer, the thread of before is told to end, and is still seen until it has.
        """
        deadline = time.monotonic() + _SETTLED_WITHIN
        while running := self._running():
            if any(_looks_like_it(thread) for thread in running):
                return True
            if time.monotonic() > deadline:  # rather another's timer unset than ours written to a closed file
                return True
            time.sleep(0.0005)
        return False

    # --- forks --------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        self._interrupted = self._cancel()

    def _after_fork(self) -> None:
        if self._interrupted:
            with contextlib.suppress(RuntimeError):
                self.set(self._seconds, self._file)


def is_in_use() -> bool:
    """Return whether the timer is set, as far as Linux shows; elsewhere it may always be."""
    try:
        return any(_looks_like_it(thread) for thread in os.listdir(_TASKS))
    except OSError:
        return True


def _looks_like_it(thread: str) -> bool:
    """Return whether a thread takes no signal and waits for a lock with a time-out, as none but it does."""
    try:
        with open(f"{_TASKS}/{thread}/status", "rb") as file:
            status = file.read()
        if not _blocks_signals(status) or status.startswith(b"Name:\tZMQ"):
            return False
        with open(f"{_TASKS}/{thread}/syscall", encoding="ascii") as syscall:
            number, *arguments = syscall.read().split()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return False
    except OSError:
        return True
    futex = _FUTEX.get(platform.machine())
    if futex is None or number != futex:
        return futex is None
    return int(arguments[1], 16) & _FLAGS in _WAITS and arguments[3] != "0x0"


def _blocks_signals(status: bytes) -> bool:
    blocked = _BLOCKED.search(status)
    if blocked is None:  # a kernel that is not Linux, and only looks like it
        return True
    return (int(blocked[1], 16) | _UNBLOCKABLE) & _ALL_SIGNALS == _ALL_SIGNALS


def _before_fork() -> None:
    _lock.acquire()
    if _owner is not None:
        _owner._before_fork()


def _after_in_parent() -> None:
    if _owner is not None:
        _owner._after_fork()
    _lock.release()


def _after_in_child() -> None:
    global _lock, _owner
    _lock, _owner = threading.RLock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
