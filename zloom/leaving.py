"""How a process lets go of its brokers, within one time limit for all its weavelets and operators."""

import atexit
import time
from collections.abc import Callable
from contextlib import suppress

from zloom.socket_options import Context

EXIT_LIMIT = 1.5
"""Seconds that all which nobody closed has together at the interpreter's exit, of the 2 for the way out."""

DEAF = 2.0
"""Seconds for which nobody waits again for a goodbye to a broker that has just not taken one."""

_open: dict[object, tuple[Callable[[], object], Callable[[float], object]]] = {}
_deaf_until: dict[str, float] = {}


def at_exit(owner: object, leave: Callable[[], object], await_end: Callable[[float], object]) -> None:
    """Have the owner leave when the interpreter exits, unless `forget` comes first. Any thread may call this.

    Args:
        owner: Whoever leaves.
        leave: Begins to; returns at once, so that all leave at the same time.
        await_end: Waits until the owner is gone, at most as many seconds as it is given.
    """
    _open[owner] = leave, await_end


def forget(owner: object) -> None:
    """The owner has left by itself, or is about to."""
    _open.pop(owner, None)


def _leave_all() -> None:
    leavers = list(_open.values())
    for leave, _ in leavers:
        leave()
    deadline = time.monotonic() + EXIT_LIMIT
    for _, await_end in leavers:
        with suppress(TimeoutError):
            await_end(max(0.0, deadline - time.monotonic()))


atexit.register(_leave_all)


def linger(endpoint: str, seconds: float) -> float:
    """Return the seconds that a goodbye to this broker may take: none if it has just not taken another."""
    return 0.0 if time.monotonic() < _deaf_until.get(endpoint, 0.0) else seconds


def terminate(context: Context, endpoint: str, seconds: float) -> None:
    """End a context, of which the sockets are closed; waits until their goodbye to a broker has left.

    Args:
        context: Which.
        endpoint: The broker's.
        seconds: What `linger` was asked for.
    """
    began = time.monotonic()
    context.term()
    if time.monotonic() - began >= 0.9 * seconds:
        _deaf_until[endpoint] = time.monotonic() + DEAF
