"""Calls that have no time limit of their own, given one."""

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Call(Generic[T]):
    """One call, made on a thread of its own; it keeps alive nothing that the function refers to."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.returned = threading.Event()
        self._function: Callable[[], T] | None = function
        self._result: T | None = None
        self._error: BaseException | None = None

    def make(self) -> None:
        try:
            if self._function is not None:
                self._result = self._function()
        except BaseException as error:  # noqa: BLE001 - it is raised where the call was made
            self._error = error.with_traceback(None)
        self._function = None
        self.returned.set()

    def result(self) -> Any:
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # it would keep this frame, which would keep it
        return self._result


class BoundedCalls:
    """Makes calls on daemon threads, one at a time, and waits for each as long as a limit says.

    A call that takes longer goes on; what it returns is lost, and until it has returned no other is made. The
    thread that waits hears signals meanwhile, which a thread inside such a call does not.

    Args:
        limit: Seconds that a call may take.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._late: _Call[Any] | None = None
        """The one that took too long."""
        self.made = False
        """Whether the last call was made, whatever came of it."""

    @property
    def busy(self) -> bool:
        """Whether an earlier call has not returned, so that none is made."""
        if self._late is not None and self._late.returned.is_set():
            self._late = None
        return self._late is not None

    def __call__(self, function: Callable[[], T]) -> T:
        """Return what a function returns.

        Raises:
            TimeoutError: It did not within the limit, or an earlier one still has not.
            Exception: Whatever it raises, and RuntimeError where there is no thread to be had.
        """
        self.made = False
        if self.busy:
            raise TimeoutError("an earlier call has not returned")
        call = _Call(function)
        # A thread for each, in a tenth of a millisecond: one that waits for the next would outlive its owner.
        threading.Thread(target=call.make, name="zloom-call", daemon=True).start()
        self.made = True
        try:
            if not call.returned.wait(self._limit):
                raise TimeoutError(f"no answer within {self._limit:g} s")
        except BaseException:  # a signal may raise anything here too
            self._late = call
            raise
        result: T = call.result()
        return result
