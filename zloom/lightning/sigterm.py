"""SIGTERM during a pause: the pause is left first, then Lightning's own handler runs."""

import signal
import threading
from collections.abc import Callable
from types import FrameType


class PauseLeft(BaseException):
    """Raised where the training thread holds in a pause, which it leaves; for `TerminationInPause` only."""


class TerminationInPause:
    """Stands before Lightning's handler of SIGTERM during a fit.

    Lightning only notes the signal, and looks at its note after a batch; on several ranks its handler also
    broadcasts. In a pause no batch ends, and a broadcast would wait for ranks that hold: so the signal is
    kept until the pause was left.

    Args:
        is_paused: Tells whether the training thread holds in a pause.
    """

    def __init__(self, is_paused: Callable[[], bool]) -> None:
        self._is_paused = is_paused
        self._next: Callable[[int, FrameType | None], object] | None = None
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
        """Run a safe point, and pass the signal on when it came in a pause that held there."""
        if self.received:
            return
        try:
            safe_point()
        except PauseLeft:
            self._pass_on(signal.SIGTERM, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # The training thread runs this inside its wait for the end of the pause: whatever else would end that
        # takes a lock which this very thread may hold.
        held, self.received = self._is_paused() and not self.received, True
        if held:
            raise PauseLeft
        self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._next is not None:
            self._next(number, frame)
