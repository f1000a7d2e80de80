"""Calls that have no time limit of their own, given one."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class BoundedCalls:
    """Makes calls on a daemon thread, one at a time. Any thread may call it.

    A call that takes too long goes on there; its result is lost, and until it returns no other is made. The
    thread that waits hears signals meanwhile, which one inside such a call does not.

    Args:
        limit: Seconds that a call may take.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._newest: Future[Any] | None = None

    def __call__(self, function: Callable[[], T]) -> T:
        """Return what a function returns.

        Raises:
            TimeoutError: It did not within the limit, or an earlier one still has not.
            Exception: Whatever it raises, and RuntimeError where there is no thread to be had.
        """
        with self._lock:
            if self._newest is not None and not self._newest.done():
                raise TimeoutError("an earlier call has not returned")
            self._start()
            future: Future[T] = Future()
            self._newest = future
            self._calls.put((function, future))
        return future.result(self._limit)

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="zloom-calls", daemon=True)
            thread.start()
            self._thread = thread

    def _work(self) -> None:
        while True:
            function, future = self._calls.get()
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it is raised where the call was made
                future.set_exception(error)
