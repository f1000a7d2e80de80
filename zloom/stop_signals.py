"""The signals that tell a process in the foreground to end, for those who have something to finish first, and
whether one is being handled."""

import asyncio
import signal
import sys
from collections.abc import Callable
from functools import partial
from types import CodeType


def heed(loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> None:
    """Have `stop` called when this process is told to end; call it from the main thread.

    That is SIGINT, SIGTERM and, where there is one, SIGHUP, which comes when the terminal is closed or its
    connection breaks. Under `nohup` that goes on being ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        loop.add_signal_handler(hang_up, stop)


def in_signal_handler() -> bool:
    """Return whether a function in Python that handles a signal is on the stack of this thread."""
    codes = {_code(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    frame = sys._getframe() if codes else None
    while frame is not None and frame.f_code not in codes:
        frame = frame.f_back
    return frame is not None


def _code(handler: object) -> CodeType | None:
    while isinstance(handler, partial):
        handler = handler.func
    function = getattr(handler, "__func__", handler)
    if not hasattr(function, "__code__") and callable(function):  # an object of a class of its own
        function = type(function).__call__
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None
