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
from collections.abc import Iterable, Iterator

from zloom.native_threads import NativeThread, newest_number, thread_numbers

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

_MOMENT = 0.0005
"""Seconds until it is looked at again."""

_GUESSES = 4
"""Looks at the newest thread before all are looked at."""

_lock = threading.RLock()
"""Held while the timer is set or unset, and during a fork; by a signal handler again."""

_owner: "StackTimer | None" = None
"""The one of this process that uses the timer."""


class StackTimer:
    """A turn at the timer, for one thread; forks may happen on any."""

    def __init__(self) -> None:
        self._thread: NativeThread | None = None
        """The timer, from when it is set until it is unset."""
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
            self._set(seconds, file)

    def renew(self, seconds: float, file: int) -> bool:
        """Set it anew where it still waits, with next to nothing between in which others could set it.

        Returns:
            Whether it is set. Else it has written, somebody else has set or unset it, it was not set, or
            there is no thread to be had.
        """
        with _lock:
            if not self._waits():
                return False
            with contextlib.suppress(RuntimeError):
                self._set(seconds, file)
            return self.is_set

    def _set(self, seconds: float, file: int) -> None:
        try:
            faulthandler.dump_traceback_later(seconds, file=file)
        except RuntimeError:  # the timer of before is gone all the same
            self._forget()
            raise
        self._seconds, self._file = seconds, file
        self._forget()
        with contextlib.suppress(OSError):  # no descriptor to be had
            self._thread = _find(_candidates())
        if self._thread is None:  # it would write to a file that is closed by then
            faulthandler.cancel_dump_traceback_later()

    def unset(self) -> None:
        """Have nothing written any more, and wait for what is being written."""
        with _lock:
            self._cancel()
            self._forget()

    @property
    def is_set(self) -> bool:
        """Whether it was set, and not unset since; it was not where it could not be found."""
        return self._thread is not None

    @property
    def is_over(self) -> bool:
        """Whether it was set and waits no more: it has written, or somebody else has set or unset it."""
        return self._thread is not None and self._thread.system_call() is None

    def _forget(self) -> None:
        if self._thread is not None:
            self._thread.close()
            self._thread = None

    def _cancel(self) -> bool:
        """Unset it where it waits, and return whether it did; else it is over, and stays so."""
        waits = self._waits()
        if waits:
            faulthandler.cancel_dump_traceback_later()
            self._forget()
        return waits

    def _waits(self) -> bool:
        """Return whether it is set, and not somebody else's instead.

        When another sets the timer, the thread of before is told to end, and is still seen until it has.
        """
        deadline = time.monotonic() + _SETTLED_WITHIN
        while self._thread is not None and (call := self._thread.system_call()) is not None:
            # In doubt rather another's timer unset than ours written to a file that is closed.
            if _is_timed_wait(call) or time.monotonic() > deadline:
                return True
            time.sleep(_MOMENT)
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
        NativeThread(str(threading.get_native_id())).close()  # fails where Linux shows none
        thread = _find(thread_numbers())
    except OSError:
        return True
    if thread is not None:
        thread.close()
    return thread is not None


def _find(numbers: Iterable[str]) -> NativeThread | None:
    """Return the first of these threads that is the timer; None where none is."""
    for number in numbers:
        thread = _opened_if_it(number)
        if thread is not None:
            return thread
    return None


def _candidates() -> Iterator[str]:
    """Yield numbers of threads, one of which is that of a timer set just now, once it waits.

    The likeliest come first, as each look is dear.
    """
    for _ in range(_GUESSES):
        yield newest_number()
        time.sleep(_MOMENT)
    deadline = time.monotonic() + _SETTLED_WITHIN
    while time.monotonic() < deadline:
        yield from reversed(thread_numbers())  # Linux lists the newest last
        time.sleep(_MOMENT)


def _opened_if_it(number: str) -> NativeThread | None:
    """Return a thread where it takes no signal and waits for a lock with a time-out, as none but it does.

    Raises:
        OSError: It may not be looked at.
    """
    try:
        thread = NativeThread(number)
    except FileNotFoundError:  # it has ended, or is none of this process
        return None
    found = None
    try:
        if _is_timed_wait(thread.system_call()) and _takes_no_signal(thread.status()):
            found = thread
    finally:
        if found is None:
            thread.close()
    return found


def _is_timed_wait(call: list[str] | None) -> bool:
    if call is None:
        return False
    futex = _FUTEX.get(platform.machine())
    if futex is None or call[0] != futex:
        return futex is None
    return int(call[2], 16) & _FLAGS in _WAITS and call[4] != "0x0"


def _takes_no_signal(status: bytes) -> bool:
    blocked = _BLOCKED.search(status)
    if blocked is None:  # it has ended, or this is a kernel that only looks like Linux
        return bool(status)
    if status.startswith(b"Name:\tZMQ"):
        return False
    return (int(blocked[1], 16) | _UNBLOCKABLE) & _ALL_SIGNALS == _ALL_SIGNALS


def _before_fork() -> None:
    _lock.acquire()
    if _owner is not None:
        _owner._before_fork()


def _after_in_parent() -> None:
    try:
        if _owner is not None:
            _owner._after_fork()
    finally:
        _lock.release()


def _after_in_child() -> None:
    global _lock, _owner
    if _owner is not None:
        _owner._forget()
    _lock, _owner = threading.RLock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
