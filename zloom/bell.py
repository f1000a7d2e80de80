"""Wakes a thread that waits, whatever a signal does to it meanwhile."""

import _thread
import contextlib


class Bell:
    """Rings once for whoever waits next; any thread and any signal handler may ring it.

    One lock alone, which is in C. `threading.Event` takes its own in Python: where a signal's handler raises
    in between, as Ctrl-C does, nobody releases it, and who sets the event waits for ever.
    """

    def __init__(self) -> None:
        self._silent = _thread.allocate_lock()
        self._silent.acquire()

    def ring(self) -> None:
        """Wake the one that waits, or that waits next; it never blocks."""
        with contextlib.suppress(RuntimeError):  # it rings already
            self._silent.release()

    def hush(self) -> None:
        """Have it ring no more."""
        self._silent.acquire(blocking=False)

    def wait(self, seconds: float) -> bool:
        """Return whether it rings within some seconds, and have it ring no more."""
        return self._silent.acquire(timeout=max(0.0, min(seconds, _thread.TIMEOUT_MAX)))
