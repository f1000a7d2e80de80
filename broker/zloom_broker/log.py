"""The log of a broker on stderr, which never holds the broker up."""

import logging
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LINES_HELD = 10_000
"""Lines that wait for a reader of stderr; what comes then is counted and left out."""

CLOSE_TIMEOUT = 0.2
"""Seconds that the last lines have at exit, of the 2 s in which a broker is to be gone."""


class LogThread(logging.Handler):
    """Writes lines to a descriptor from a thread of its own.

    A terminal that somebody holds with Ctrl-S, or a pipe that nobody reads, blocks whoever writes to it. All
    methods may be called from any thread.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_HELD)
        self._left_out = 0
        # A daemon, because a write that blocks cannot be ended.
        self._thread = threading.Thread(target=self._run, name="zloom-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as in every handler: a bad message must not end its caller
            self.handleError(record)
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._left_out += 1

    def close(self) -> None:
        """Write what is queued, as far as the descriptor takes it in time, and end the thread."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(CLOSE_TIMEOUT)
        super().close()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            left_out, self._left_out = self._left_out, 0
            if left_out:
                self._write(f"{left_out} lines were left out here: nobody read them in time\n")
            self._write(line + "\n")

    def _write(self, text: str) -> None:
        # Not through sys.stderr: a thread that is blocked in it would have its lock at exit.
        data = text.encode(errors="replace")
        with suppress(OSError):  # whoever read it is gone
            while data:
                data = data[os.write(self._descriptor, data) :]


@contextmanager
def logging_to_stderr(level: str) -> Iterator[None]:
    """Log to stderr, from this level on, as long as the block lasts."""
    handler = LogThread(2)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
