"""Calls that have no time limit of their own, given one."""

import _thread
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Call(Generic[T]):
    """One call, which a thread makes unless it was given up before.

    It has locks alone, which are in C: a signal inside `threading`, whose conditions and threads are in
    Python, can leave a lock there that nobody releases, or become a RuntimeError.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._claim = _thread.allocate_lock()
        self._end = _thread.allocate_lock()
        self._end.acquire()
        self.is_over = False
        """Whether it returned or raised, or was given up before a thread came to it."""
        self.result: T
        self.error: BaseException | None = None

    def make(self) -> None:
        """Make it, on a thread of its own."""
        if self._claim.acquire(blocking=False):
            try:
                self.result = self._function()
            except BaseException as error:  # noqa: BLE001 - it is raised where the call was made
                self.error = error.with_traceback(None)  # which would keep what the function refers to
        self.is_over = True
        self._end.release()

    def give_up(self) -> bool:
        """Have it never made; return whether that is so, for a thread may have begun to."""
        return self._claim.acquire(blocking=False)

    def wait(self, seconds: float) -> bool:
        """Return whether it is over within some seconds."""
        return self._end.acquire(timeout=seconds)


class BoundedCalls:
    """Makes calls on daemon threads, one at a time, and waits for each as long as a limit says.

    A call that takes longer goes on; what it returns is lost, and until it has returned no other is made. The
    thread that waits hears signals meanwhile, which a thread inside such a call does not.

    Args:
        limit: Seconds that a call may take.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._newest: _Call[Any] | None = None
        """The last call, until its answer was taken."""
        self.made = False
        """Whether the last call was made, whatever came of it; also where a signal leaves that unknown."""

    @property
    def busy(self) -> bool:
        """Whether an earlier call has not returned, so that none is made."""
        return self._newest is not None and not self._newest.is_over

    def __call__(self, function: Callable[[], T]) -> T:
        """Return what a function returns.

        Raises:
            TimeoutError: It did not within the limit, an earlier one still has not, or there is no thread to
                be had for it.
            Exception: Whatever it raises.
        """
        self.made = False
        if self.busy:
            raise TimeoutError("an earlier call has not returned")
        call = _Call(function)
        try:
            self._begin(call)
            if not call.wait(self._limit):
                raise TimeoutError(f"it has not returned within {self._limit:g} s")
            if call.error is not None:
                raise call.error
            return call.result
        finally:
            if call.is_over:
                self._newest = None
            del call  # an error that it has keeps this frame

    def _begin(self, call: _Call[Any]) -> None:
        try:
            self._newest, self.made = call, True
            # A thread for each, in a tenth of a millisecond: one that waits for the next would outlive its
            # owner.
            _thread.start_new_thread(call.make, ())
        except BaseException as error:
            # A signal may come while the thread starts, and nobody knows whether it runs. Either it has begun
            # to make the call, which then stays the newest until it returns, or it never will.
            if call.give_up():
                self._newest, self.made = None, False
            if isinstance(error, RuntimeError) and not _is_of_python(error):
                raise TimeoutError(f"no thread: {error}") from error
            raise


def _is_of_python(error: BaseException) -> bool:
    """Whether code in Python raised it, as the handler of a signal may, and not what was called in C."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is not None
