"""The operator for code without an event loop of its own to await on: scripts, and notebooks.

operator = zloom.connect_sync()
print(operator.set("tiny-lm", {"learning_rate": 0.1}).outcomes)
operator.close()
"""

import asyncio
import functools
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from zloom import leaving
from zloom.client.feeds import Feed
from zloom.client.link import LINGER
from zloom.client.operator import Observation, Operator, connect
from zloom.client.results import OperatorCounters, Silence
from zloom.errors import TransportError
from zloom.messages import Own
from zloom.settings import ClientSettings
from zloom.socket_options import Context, new_context

CLOSE_TIMEOUT = 1.0
"""Seconds that the thread of an operator has to let go of its sockets and end, which takes milliseconds."""

P = ParamSpec("P")
T = TypeVar("T")


class _Loop:
    """An event loop in a thread of its own, because the caller's thread may be running one, as in Jupyter."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._stopped = False
        self._thread = threading.Thread(target=self._live, name="zloom-operator", daemon=True)
        self._thread.start()

    def _live(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_cancel_others())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    @property
    def usable(self) -> bool:
        """Whether calls can run there: not once it was stopped, nor in a forked child without the thread."""
        return not self._stopped and os.getpid() == self._pid

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine there and wait for it; an interrupt of the wait cancels it.

        Raises:
            TransportError: The loop was stopped, before or meanwhile.
            TimeoutError: `timeout` seconds have passed.
        """
        if not self.usable:
            work.close()
            raise _closed()
        future = self.begin(work)
        try:
            return future.result(timeout)
        except CancelledError:
            raise _closed() from None
        except BaseException:
            future.cancel()
            raise

    def begin(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Begin a coroutine there, of a loop that is `usable`."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function there and wait for it."""

        async def work() -> T:
            return function()

        return self.run(work())

    def stop(self, timeout: float) -> None:
        """End the loop and the thread; what still waits for a call there gets TransportError."""
        if self.usable:
            self._stopped = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _closed() -> TransportError:
    return TransportError("this operator is closed, or of another process; connect again")


def _blocking(
    method: Callable[Concatenate[Operator, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[SyncOperator, P], T]":
    def call(self: "SyncOperator", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self._operator, *args, **kwargs))

    return functools.update_wrapper(call, method)


class SyncFeed(Generic[T]):
    """A `Feed` to iterate without `await`; for one thread at a time."""

    def __init__(self, feed: Feed[T], loop: _Loop) -> None:
        self._feed = feed
        self._loop = loop

    @property
    def missed(self) -> int:
        """Publications that never came here, as their sequence numbers show."""
        return self._feed.missed

    @property
    def dropped(self) -> int:
        """Publications that came and were dropped because the reader was too slow."""
        return self._feed.dropped

    def close(self) -> None:
        """End the subscription; a second call, or one after the operator's `close`, does nothing."""
        if self._loop.usable:
            self._loop.call(self._feed.close)

    def __enter__(self) -> Self:
        self._loop.run(self._feed.__aenter__())
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            return self._loop.run(self._feed.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None


class SyncOperator:
    """`Operator` with calls that block; its methods have the same arguments, results and errors.

    It can be used from several threads. An interrupt (Ctrl-C) ends the wait, and nothing else. It lasts
    until `close`, the end of a `with`, or that of the process; calls after that raise TransportError.
    """

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection
        self._operator = connection.operator
        self._loop = connection.loop

    def close(self) -> None:
        """Let go of sockets and thread, 2 s at most; a second call or one in a forked child does nothing."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        """Where the broker is."""
        return self._operator.endpoint

    @property
    def counters(self) -> OperatorCounters:
        """What was dropped, refused or sent again on this connection."""
        return self._operator.counters

    @property
    def silent_for(self) -> float | None:
        """For how many seconds the broker has not answered; see `Operator.silent_for`."""
        return self._loop.call(lambda: self._operator.silent_for)

    def on_silence(self, told: Callable[[Silence], None]) -> None:
        """Have a function called when the broker falls silent, and when it is back.

        It runs on the connection's thread, where it may use no method of this operator: that would wait for
        itself.
        """
        self._loop.call(lambda: self._operator.on_silence(told))

    set = _blocking(Operator.set)
    rollback = _blocking(Operator.rollback)
    command = _blocking(Operator.command)
    pause = _blocking(Operator.pause)
    resume = _blocking(Operator.resume)
    stop = _blocking(Operator.stop)
    checkpoint = _blocking(Operator.checkpoint)
    validate = _blocking(Operator.validate)
    cancel = _blocking(Operator.cancel)
    follow = _blocking(Operator.follow)
    preview_set = _blocking(Operator.preview_set)
    preview_rollback = _blocking(Operator.preview_rollback)
    preview_command = _blocking(Operator.preview_command)
    get = _blocking(Operator.get)
    keys = _blocking(Operator.keys)
    history = _blocking(Operator.history)
    runs = _blocking(Operator.runs)
    replicas = _blocking(Operator.replicas)
    devices = _blocking(Operator.devices)
    fail_device = _blocking(Operator.fail_device)
    forget = _blocking(Operator.forget)
    stats = _blocking(Operator.stats)
    stacks = _blocking(Operator.stacks)
    publish = _blocking(Operator.publish)

    def watch(self, run: str = "") -> SyncFeed[Observation]:
        """Return a feed of all that happens in a run, or in all of them; see `Operator.watch`."""
        return SyncFeed(self._loop.call(lambda: self._operator.watch(run)), self._loop)

    def subscribe(self, prefix: str) -> SyncFeed[Own]:
        """Return a feed of the payloads on the users' own topics that begin with `prefix`."""
        return SyncFeed(self._loop.call(lambda: self._operator.subscribe(prefix)), self._loop)


class _Connection:
    """A connected operator, its thread, and its sockets' context."""

    def __init__(
        self, connecting: AbstractAsyncContextManager[Operator], context: Context, *, owns_context: bool
    ) -> None:
        self._connecting = connecting
        self._context = context
        self._owns_context = owns_context
        self._closing = threading.Lock()
        self._left: Future[None] | None = None
        self.loop = _Loop()
        try:
            self.operator = self.loop.run(_enter(connecting))
        except BaseException:
            self.loop.stop(CLOSE_TIMEOUT)
            if owns_context:
                context.term()
            raise
        leaving.at_exit(self, self.leave, self.await_end)  # those that nobody closed, as in a notebook

    def close(self) -> None:
        """Close once; a second thread returns at once."""
        if self.leave():
            self.await_end(CLOSE_TIMEOUT)

    def leave(self) -> bool:
        """Begin to close; False if that was begun before, or belongs to another process."""
        if not self.loop.usable or not self._closing.acquire(blocking=False):
            return False
        leaving.forget(self)
        self._left = self.loop.begin(_exit(self._connecting))
        return True

    def await_end(self, timeout: float) -> None:
        """Wait until all is closed, once it was begun."""
        if self._left is None:
            return
        deadline = time.monotonic() + timeout
        try:
            self._left.result(timeout)
            if self._owns_context:
                leaving.terminate(self._context, self.operator.endpoint, LINGER)
        finally:
            self.loop.stop(max(0.0, deadline - time.monotonic()))


def connect_sync(
    broker: str | None = None,
    *,
    user: str | None = None,
    settings: ClientSettings | None = None,
    context: Context | None = None,
) -> SyncOperator:
    """Connect to a broker as an operator; arguments and errors as `connect`.

    The connection lives in a thread of its own, so this also works where an event loop runs already. It lasts
    until `SyncOperator.close`, the end of a `with`, or that of the process.
    """
    # Its end may be the interpreter's, when asyncio can start no more threads to wait for a context in.
    shared = context or new_context()
    connecting = connect(broker, user=user, settings=settings, context=shared)
    return SyncOperator(_Connection(connecting, shared, owns_context=context is None))


async def _enter(connecting: AbstractAsyncContextManager[Operator]) -> Operator:
    return await connecting.__aenter__()


async def _exit(connecting: AbstractAsyncContextManager[Operator]) -> None:
    await connecting.__aexit__(None, None, None)
