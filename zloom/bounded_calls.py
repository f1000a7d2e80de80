"""Calls that have no time limit of their own, given one."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def _make(function: Callable[[], T], future: Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - it is raised where the call was made
        future.set_exception(error.with_traceback(None))  # which would keep what the function refers to


class BoundedCalls:
    """Makes calls on daemon threads, one at a time, and waits for each as long as a limit says.

    A call that takes longer goes on; what it returns is lost, and until it has returned no other is made. The
    thread that waits hears signals meanwhile, which a thread inside such a call does not.

    Args:
        limit: Seconds that a call may take.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._newest: Future[Any] | None = None
        """The last call, until its answer was taken."""
        self.made = False
        """Whether the last call was made, whatever came of it."""

    @property
    def busy(self) -> bool:
        """Whether an earlier call has not returned, so that none is made."""
        return self._newest is not None and not self._newest.done()

    def __call__(self, function: Callable[[], T]) -> T:
        """Return what a function returns.

        Raises:
            TimeoutError: It did not within the limit, or an earlier one still has not.
            Exception: Whatever it raises, and RuntimeError where there is no thread to be had.
        """
        self.made = False
        if self.busy:
            raise TimeoutError("an earlier call has not returned")
        future = Future[T]()
        # A thread for each, in a tenth of a millisecond: one that waits for the next would outlive its owner.
        thread = threading.Thread(target=_make, args=(function, future), name="zloom-call", daemon=True)
        try:
            self._newest = future  # not before: what a signal interrupts until here leaves nothing behind
            thread.start()
            self.made = True
            return future.result(self._limit)
        except BaseException:
            # A signal may come while the thread starts, and nobody knows whether it runs. Either it has begun
            # to make the call, which then stays the newest until it returns, or it never will.
            if not self.made:
                self.made = not future.cancel()
            raise
        finally:
            if future.done():
                self._newest = None
            del future, thread  # an error that it has keeps this frame
