"""Threads of this process as Linux shows them, those that Python knows nothing of too.

Each system call lets go of the GIL, which a training may have before it is back: to list the threads takes
one for each of them, to look at one that is known takes one.
"""

import os

TASKS = "/proc/self/task"
"""A folder for each thread of this process."""

_AT_ONCE = 4096
"""Bytes of a file of `/proc` that are read at once."""


class NativeThread:
    """One thread. Its number may be given to another when it has ended; this still knows that it has.

    Raises:
        FileNotFoundError: There is none of this number, or the kernel does not tell what threads wait for.
        OSError: It may not be looked at.
    """

    def __init__(self, number: str) -> None:
        self._number = number
        self._file = os.open(f"{TASKS}/{number}/syscall", os.O_RDONLY | os.O_CLOEXEC)

    def system_call(self) -> list[str] | None:
        """Return number and arguments of the call that it waits in, other words where it runs; None: it has
        ended."""
        try:
            return os.pread(self._file, _AT_ONCE, 0).decode().split()
        except ProcessLookupError:
            return None

    def status(self) -> bytes:
        """Return what Linux tells of it in lines of a name and a value; nothing where it has ended."""
        try:
            return _read(f"{TASKS}/{self._number}/status")
        except (FileNotFoundError, ProcessLookupError):
            return b""

    def close(self) -> None:
        """Look at it no more."""
        os.close(self._file)


def thread_numbers() -> list[str]:
    """Return those of all threads of this process.

    Raises:
        OSError: They are not told.
    """
    return os.listdir(TASKS)


def newest_number() -> str:
    """Return that of the newest thread or process which this one can see, maybe ended; empty: unknown."""
    try:
        return _read("/proc/loadavg").decode().split()[-1]
    except (OSError, IndexError):
        return ""


def _read(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(file, _AT_ONCE)]
        while len(parts[-1]) == _AT_ONCE:  # `status` and `loadavg` give less at their end alone
            parts.append(os.read(file, _AT_ONCE))
        return b"".join(parts)
    finally:
        os.close(file)
