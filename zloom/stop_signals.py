"""The signals that tell a process in the foreground to end, for those who have something to finish first."""

import asyncio
import signal
from collections.abc import Callable


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
