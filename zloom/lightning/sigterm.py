"""SIGTERM during a fit: a pause is ended first, on all ranks, then Lightning's own handler runs."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

from zloom.weavelet import Weavelet

REASON = "SIGTERM"


class Termination:
    """Stands before Lightning's handler of SIGTERM during a fit.

    Lightning only notes the signal, and looks at its note after a batch. A safe point can hold in a pause,
    where no batch ends: so a signal that comes in one ends the pause, and is passed on when it is over.

    On several ranks Lightning's handler also broadcasts, and so waits for its like on the other ranks. Where
    one alone is signalled, all that stand at its safe point pass a signal on there, as if all had been. One
    that meets no other there passes it on at the end of its batch: there its broadcast pairs with the one
    that Lightning begins each batch with; inside it would stand against the reduction of gradients, and hang.

    Args:
        weavelet: Of the fit.
    """

    def __init__(self, weavelet: Weavelet) -> None:
        self._weavelet = weavelet
        self._next: Callable[[int, FrameType | None], object] | None = None
        self._in_safe_point = False
        self._in_epoch = False
        self.kept = False
        self._passed_on = False
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

    def run(self, safe_point: Callable[[], None], *, batch_follows: bool = False) -> None:
        """Run a safe point, and pass on a signal that came in it, here or on another rank that stood there.

        Args:
            safe_point: Runs it.
            batch_follows: A batch is trained behind it, whose end a signal to one of several ranks waits for.
        """
        self._in_safe_point = True
        try:
            safe_point()
        finally:
            self._in_safe_point = False
        if self._weavelet.departure or not (batch_follows and self._in_epoch):
            self.pass_on_kept()

    def pass_on_kept(self) -> None:
        """Pass on a signal that came inside a batch, now that it has ended.

        Here, or on another rank that stood with this one at a safe point of the module's own.
        """
        if self.kept or self._weavelet.departure:
            self._pass_on(signal.SIGTERM, None)

    def train(self) -> None:
        """Batches follow, whose ends a signal to one of several ranks waits for."""
        self._in_epoch = self._weavelet.world_size > 1

    def leave_off(self) -> None:
        """No batch follows for now, so that a signal need not wait."""
        self._in_epoch = False
        self.pass_on_kept()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._weavelet.depart(REASON)
        if self._in_safe_point or self._in_epoch:
            self.kept = True
        else:
            self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        # Once: Lightning on rank 0 signals the processes that it launched, and each call broadcasts.
        if self._next is not None and not self._passed_on:
            self.received = self._passed_on = True
            self._next(number, frame)
