"""SIGTERM at a safe point: a pause is ended first, then Lightning's own handler runs."""

import signal
import threading
from collections.abc import Callable
from types import FrameType


class Termination:
    """Stands before Lightning's handler of SIGTERM during a fit.

    Lightning only notes the signal, and looks at its note after a batch; on several ranks its handler also
    broadcasts. A safe point can hold in a pause, where no batch ends and a broadcast waits for ranks that
    hold too: so a signal that comes in one ends the pause, and is passed on when the safe point is over.

    Args:
        end_pause: Ends a pause; called in the signal handler.
    """

    def __init__(self, end_pause: Callable[[], None]) -> None:
        self._end_pause = end_pause
        self._next: Callable[[int, FrameType | None], object] | None = None
        self._in_safe_point = False
        self._kept = False
        self.received = False
        """A signal has come: training is about to end, and no pause may hold it any more."""

    def install(self) -> None:
        """Take the place of the handler that is there; only on the main thread can signals be handled.

        Lightning puts back what it found before the fit, so nothing is to be uninstalled.
        """
        found = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is threading.main_thread() and callable(found):
            self._next = found
            signal.signal(signal.SIGTERM, self._handle)

    def run(self, safe_point: Callable[[], None]) -> None:
        """Run a safe point, and pass on a signal that came in it."""
        self._in_safe_point = True
        try:
            safe_point()
        finally:
            self._in_safe_point = False
        if self._kept:
            self._kept = False
            self._pass_on(signal.SIGTERM, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._end_pause()
        if self._in_safe_point:
            self._kept = True
        else:
            self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._next is not None:
            self._next(number, frame)
