"""What an operator subscribed to, as an asynchronous iterator."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from zloom.errors import ZloomError
from zloom.gaps import Gaps
from zloom.messages import Published

T = TypeVar("T")

FEED_LIMIT = 10_000
"""Messages kept for a reader that is slow; beyond it the oldest are dropped and counted."""


class Feed(AsyncIterator[T], Generic[T]):
    """Publications from now on, also over a reconnect; for one reader, on the operator's loop.

    `async with` waits until the broker has the subscription, so that nothing published from then on is
    missed for being too early, and ends it. A feed that is only iterated ends with its operator.

    Args:
        topic: The prefix that is subscribed.
        read: Makes what is yielded of a publication, or None for what is not meant for the reader.
        on_close: Called once.
    """

    def __init__(
        self,
        topic: bytes,
        read: Callable[[bytes, Published], T | None],
        on_close: Callable[["Feed[T]"], None],
    ) -> None:
        self.topic = topic
        self._read = read
        self._on_close = on_close
        self._items: deque[T] = deque()
        self._changed = asyncio.Event()
        self._confirmed = asyncio.Event()
        self._gaps = Gaps()
        self._missed = 0
        self._dropped = 0
        self._restarts = 0
        self._ended: ZloomError | None = None
        self._closed = False

    @property
    def missed(self) -> int:
        """Publications that never came here, as their sequence numbers show."""
        return self._missed

    @property
    def dropped(self) -> int:
        """Publications that came and were dropped because the reader was too slow."""
        return self._dropped

    @property
    def restarts(self) -> int:
        """Restarts of the broker: what was published meanwhile cannot be counted in `missed`."""
        return self._restarts

    async def ready(self) -> None:
        """Wait until the broker has the subscription.

        Raises:
            ZloomError: The connection ended for good before.
        """
        await self._confirmed.wait()
        if self._ended is not None:
            raise self._ended

    def close(self) -> None:
        """End the subscription; a reader that waits gets the end of the iteration."""
        if not self._closed:
            self._closed = True
            self._on_close(self)
            self._wake()

    async def __aenter__(self) -> Self:
        try:
            await self.ready()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._ended is not None:
                raise self._ended
            if self._closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._items.popleft()

    def rest(self) -> list[T]:
        """Return what has come and was not read, and forget it."""
        items = list(self._items)
        self._items.clear()
        return items

    # --- called by the link -------------------------------------------------------------------

    def put(self, topic: bytes, message: Published) -> None:
        """Take a publication."""
        self._missed += self._gaps.see(topic, message)
        item = self._read(topic, message)
        if item is None:
            return
        if len(self._items) >= FEED_LIMIT:
            self._items.popleft()
            self._dropped += 1
        self._items.append(item)
        self._changed.set()

    def confirm(self) -> None:
        """The broker has the subscription."""
        self._confirmed.set()

    def restart(self) -> None:
        """The broker was restarted."""
        self._restarts += 1
        self._gaps.restart()

    def end(self, error: ZloomError | None) -> None:
        """Nothing will come again; `error` says why, where it is not the caller who closed."""
        self._ended = error
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._confirmed.set()
