"""What a weavelet's first hello waits for, and how long one that leaves at once waits for its answer."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Literal

FIRST_CONNECTION, FIRST_ANSWER = 0.05, 0.25
"""Seconds that one that leaves at once waits for a connection, and then for the broker's first answer, which
takes a commit to disk."""

Awaited = Literal["devices", "declarations"]
"""What the first hello is to tell."""


class Introduction:
    """Of one weavelet to its broker; all methods belong to the loop's thread.

    Args:
        say_hello: Says it, once all that is awaited is there.
    """

    def __init__(self, say_hello: Callable[[], None]) -> None:
        self._say_hello = say_hello
        self._awaited: set[Awaited] = set()
        self._patience: asyncio.TimerHandle | None = None
        self._answered = asyncio.Event()

    def begin(self, *awaited: Awaited, patience: float) -> None:
        """Wait for this, for devices so many seconds at most."""
        self._awaited = set(awaited)
        self._patience = asyncio.get_running_loop().call_later(patience, self.arrived, "devices")

    def arrived(self, what: Awaited) -> None:
        """Take note that this is there, or is to be waited for no more."""
        if what in self._awaited:
            self._awaited.remove(what)
            if not self._awaited:
                self._say_hello()

    def hurry(self) -> None:
        """Wait for devices no more. What a new attempt is to inherit must fit what is declared."""
        if self._awaited == {"devices"}:
            self.arrived("devices")

    def end(self) -> None:
        """Say no hello any more."""
        self._awaited.clear()
        if self._patience is not None:
            self._patience.cancel()

    def answered(self) -> None:
        """Take note that the broker has answered a hello."""
        self._answered.set()

    async def hear(self, is_connected: Callable[[], bool]) -> None:
        """Wait a moment for a connection, and where there is one for the first answer."""
        await self._hear(FIRST_CONNECTION)
        if is_connected():
            await self._hear(FIRST_ANSWER)

    async def _hear(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._answered.wait()
