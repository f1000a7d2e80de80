"""Call a function when an edge-triggered descriptor may have something for it.

ZeroMQ's descriptor becomes readable once, when commands arrive for a socket that had none left, and any call
on the socket may process those commands and so eat the edge. `EdgeReader` keeps the rules that follow:

- A turn ends with nothing left, after which the next edge is certain; or it says that it stopped early,
  and another turn is scheduled.
- Whoever touches the socket outside a turn sees afterwards that nothing is left, or calls `kick`, and a turn
  is scheduled. At most one is pending.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable

from .errors import TransportError
from .forks import process_id


class EdgeReader:
    """Watches one descriptor on one loop; all methods belong to the loop's thread.

    In a forked child it does nothing, not even remove its reader: the epoll is the parent's too.

    Args:
        loop: Where the turns run.
        descriptor: Edge-triggered, as zmq.FD is.
        turn: Does what there is to do. Returns True when nothing is left, False when it stopped early.

    Raises:
        TransportError: The loop cannot watch descriptors.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int, turn: Callable[[], bool]) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._turn = turn
        self._pid = process_id()
        self._closed = False
        self._kicked = self._in_turn = False
        self._timer: asyncio.TimerHandle | None = None
        try:
            loop.add_reader(descriptor, self._wake)
        except NotImplementedError:
            raise TransportError(
                f"{type(loop).__name__} cannot watch sockets (the default loop of Windows cannot); run with "
                "asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)"
            ) from None
        _open_readers.add(self)
        self.kick()

    @property
    def sees(self) -> bool:
        """Whether a turn is under way or pending, which sees what is there without a kick."""
        return self._in_turn or self._kicked

    def kick(self) -> None:
        """Schedule a turn, unless one is pending."""
        if not self._kicked and not self._closed:
            self._kicked = True
            self._loop.call_soon(self._on_kick)

    def kick_after(self, seconds: float) -> None:
        """Schedule a turn in `seconds`, unless such a one is pending."""
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(seconds, self._on_timer)

    def close(self) -> None:
        """Stop; call it before the descriptor is closed, whose number may soon be another file's."""
        self._closed = True
        self._loop.remove_reader(self._descriptor)
        if self._timer is not None:
            self._timer.cancel()
        self._turn = _nothing  # which refers to its owner, that is to go without a search for garbage
        _open_readers.discard(self)

    def _on_kick(self) -> None:
        self._kicked = False
        self._wake()

    def _on_timer(self) -> None:
        self._timer = None
        self._wake()

    def _wake(self) -> None:
        if self._closed or process_id() != self._pid:
            return
        self._in_turn = True
        finished = False  # also when an interrupt ends the turn: should the loop go on, so must this
        try:
            finished = self._turn()
        finally:
            self._in_turn = False
            if not finished:
                self.kick()


def _nothing() -> bool:
    return True


_open_readers: weakref.WeakSet[EdgeReader] = weakref.WeakSet()
_inherited: list[EdgeReader] = []


def _keep_inherited() -> None:
    """Keep the parent's readers, and so their sockets and loops, from being collected in a forked child.

    pyzmq and libzmq look at the process id before they close anything, so for a socket this only prevents the
    warning that it was never closed. An event loop's finaliser has no such check: it would take descriptors
    out of the epoll that the child shares with its parent.
    """
    _inherited.extend(_open_readers)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)
