"""zloom's part inside a trainer that runs on an asyncio loop."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from zloom.engine import Engine
from zloom.messages import Failure
from zloom.steerable import NEEDED_POLL, Steerable, reason_of


class AsyncWeavelet(Steerable):
    """A weavelet for a trainer that runs on an asyncio loop::

        async with zloom.AsyncWeavelet(run="rollouts") as weavelet:
            async for batch in source:
                await weavelet.tick()
                weavelet.report(reward=await play(batch))

    The same as `Weavelet`, without a thread: everything belongs to the loop's thread, handlers run on it, and
    a pause holds only the task that awaits `tick`.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _closing = False

    async def start(self) -> None:
        """Begin to look for the broker on the running loop.

        Raises:
            SettingsError: It was started before.
            TransportError: The endpoint is malformed, or this loop cannot watch sockets.
        """
        if self._is_forked():
            return
        self._check_startable()
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._activated = asyncio.Event()
        self._released = asyncio.Event()
        """The training stands at no safe point."""
        self._released.set()
        self._training.wake = self._arrived.set
        self._training.activated = self._on_activated
        self._training.failed = self._on_failure
        self._engine = self._make_engine()
        try:
            self._engine.start(declared=not self._inherit)
        except BaseException:  # nobody would close it
            await self.close("failed: it could not be started")
            raise

    async def close(self, reason: str = "finished") -> None:
        """Say goodbye and let go of the sockets; 0.8 s at most. A second call does nothing.

        A pause is ended, and what the ranks are about to decide at this safe point is waited for before,
        `close_timeout` seconds at most: so a handler may have it closed by a task.

        Rank 0 waits for others as in `Weavelet.close`, 1.5 s at most.
        """
        if self._closed or self._closing or self._is_forked():
            return
        self._closing = True
        if self._engine is None:
            self._closed = True
        else:
            try:
                await self._leave_safe_point()
                await self._engine.introduce()
            finally:  # also where it is cancelled: no second call would do it
                try:
                    self._engine.close(reason)
                finally:
                    ending = asyncio.get_running_loop().run_in_executor(None, self._engine.end)
            deadline = time.monotonic() + self._settings.close_timeout
            await ending
            while await asyncio.to_thread(self._is_needed, deadline):  # noqa: ASYNC110 - it can only be asked
                await asyncio.sleep(NEEDED_POLL)

    async def _leave_safe_point(self) -> None:
        try:
            self._mailbox.pause.end()
            self._arrived.set()
            await _wait(self._released, self._settings.close_timeout)
        finally:
            self._closed = True
            self._arrived.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close(reason_of(error))

    async def tick(self, step: int | None = None) -> None:
        """Begin the next step: a safe point, at which handlers run and a pause holds this task.

        It does not yield to the loop unless there is something to do. Raises what `Weavelet.tick` does.
        """
        self._begin_step(step)
        await self._hold()

    async def safe_point(self, *, trained: bool = False) -> None:
        """Let handlers run here too, without beginning a step; see `Weavelet.safe_point`."""
        training = self._training
        training.stood, training.trained = True, trained
        try:
            await self._hold()
        finally:
            training.trained = False

    async def _hold(self) -> None:
        if not self._mailbox.waiting:
            return
        if self._is_unstarted() or self._is_forked() or self._closed or self._engine is None:
            return
        self._begin()
        self._arrived.clear()
        self._released.clear()
        try:
            while self._serve(time.monotonic()) and not self._closed:
                await _wait(self._arrived, self._wait_left(time.monotonic()))
                self._arrived.clear()
        finally:
            self._hold_again()
            self._released.set()

    async def wait_until_active(self, timeout: float) -> bool:  # noqa: ASYNC109 - as Weavelet's
        """Wait until the broker's state is here, `timeout` seconds at most; `safe_point` then applies it."""
        if self._engine is None or self._is_forked():
            return False
        self._begin()
        return await _wait(self._activated, timeout)

    async def wait_for_config(self, timeout: float) -> None:  # noqa: ASYNC109 - as Weavelet's
        """Stand at this safe point until the attempt's config is in force here; see `Weavelet`."""
        deadline = time.monotonic() + timeout
        if not await self.wait_until_active(timeout):
            return
        self._mailbox.standing = True
        try:
            while self._serve(now := time.monotonic()) or (self._mailbox.lacks_config and now < deadline):
                if self._mailbox.pause.active or now >= deadline or self._closed:
                    break
                await _wait(self._arrived, min(self._wait_left(now), deadline - now))
                self._arrived.clear()
        finally:
            self._mailbox.standing = False
            self._hold_again()
        await self._hold()

    def end_pause(self) -> None:
        """Let a paused training go on; any thread and any signal handler may call it, unlike all the rest."""
        if not self._is_forked():
            self._mailbox.pause.end()
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._post, Engine.pause_ended)

    def _on_activated(self, active: bool) -> None:
        if active:
            self._activated.set()
        else:
            self._activated.clear()

    def _on_failure(self, failure: Failure) -> None:
        self._tell_of_failure(failure)

    def _post(self, method: Callable[..., None], *arguments: object) -> None:
        gone = self._closed or self._loop is None or self._loop.is_closed()
        if self._engine is not None and not gone:
            method(self._engine, *arguments)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
