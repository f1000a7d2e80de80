"""The operator for code without an event loop of its own to await on: scripts, and notebooks.

with zloom.connect_sync() as operator:
    print(operator.set("tiny-lm", {"learning_rate": 0.1}).outcomes)
"""

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from zloom.client.feeds import Feed
from zloom.client.operator import Observation, Operator, connect
from zloom.client.results import OperatorCounters
from zloom.messages import Own
from zloom.settings import ClientSettings
from zloom.socket_options import Context

P = ParamSpec("P")
T = TypeVar("T")


class _Loop:
    """An event loop in a thread of its own, because the caller's thread may be running one, as in Jupyter."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="zloom-operator", daemon=True)
        self._thread.start()

    def _live(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it; an interrupt of the wait cancels it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """Call a function there and wait for it."""

        async def work() -> T:
            return function()

        return self.run(work())

    def stop(self) -> None:
        """End the loop and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


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
        """End the subscription."""
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

    It can be used from several threads. An interrupt (Ctrl-C) ends the wait, and nothing else.
    """

    def __init__(self, operator: Operator, loop: _Loop) -> None:
        self._operator = operator
        self._loop = loop

    @property
    def endpoint(self) -> str:
        """Where the broker is."""
        return self._operator.endpoint

    @property
    def counters(self) -> OperatorCounters:
        """What was dropped, refused or sent again on this connection."""
        return self._operator.counters

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
    get = _blocking(Operator.get)
    keys = _blocking(Operator.keys)
    history = _blocking(Operator.history)
    runs = _blocking(Operator.runs)
    replicas = _blocking(Operator.replicas)
    devices = _blocking(Operator.devices)
    fail_device = _blocking(Operator.fail_device)
    forget = _blocking(Operator.forget)
    stats = _blocking(Operator.stats)
    publish = _blocking(Operator.publish)

    def watch(self, run: str = "") -> SyncFeed[Observation]:
        """Return a feed of all that happens in a run, or in all of them; see `Operator.watch`."""
        return SyncFeed(self._loop.call(lambda: self._operator.watch(run)), self._loop)

    def subscribe(self, prefix: str) -> SyncFeed[Own]:
        """Return a feed of the payloads on the users' own topics that begin with `prefix`."""
        return SyncFeed(self._loop.call(lambda: self._operator.subscribe(prefix)), self._loop)


@contextmanager
def connect_sync(
    broker: str | None = None,
    *,
    user: str | None = None,
    settings: ClientSettings | None = None,
    context: Context | None = None,
) -> Iterator[SyncOperator]:
    """Connect to a broker as an operator, for the length of a `with`; arguments and errors as `connect`.

    The connection lives in a thread of its own, so this also works where an event loop runs already.
    """
    loop = _Loop()
    try:
        connection = connect(broker, user=user, settings=settings, context=context)
        with _entered(connection, loop) as operator:
            yield SyncOperator(operator, loop)
    finally:
        loop.stop()


@contextmanager
def _entered(connection: AbstractAsyncContextManager[Operator], loop: _Loop) -> Iterator[Operator]:
    operator = loop.run(_enter(connection))
    try:
        yield operator
    finally:
        loop.run(_exit(connection))


async def _enter(connection: AbstractAsyncContextManager[Operator]) -> Operator:
    return await connection.__aenter__()


async def _exit(connection: AbstractAsyncContextManager[Operator]) -> None:
    await connection.__aexit__(None, None, None)
