"""The operator's side: change a run, wait for what becomes of it, and watch.

async with zloom.connect() as operator:
    result = await operator.set("tiny-lm", {"learning_rate": 0.1})
    print(result.revision, result.outcomes)
"""

import asyncio
import getpass
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from zloom import leaving
from zloom.client.commands import Commands
from zloom.client.feeds import Feed
from zloom.client.link import LINGER, OperatorLink
from zloom.client.previews import Previews
from zloom.client.results import OperatorCounters, Silence
from zloom.client.stacks import Inspecting
from zloom.codec import own_topic, watch_topic
from zloom.messages import Answered, Happened, Own, Published, Reported, Revised
from zloom.security import resolve_key, with_key
from zloom.settings import ClientSettings, check_topic, resolve_broker
from zloom.socket_options import Context, new_context

Observation = Reported | Answered | Happened | Revised
"""What `Operator.watch` yields."""

A = TypeVar("A")


class Operator(Commands, Previews, Inspecting):
    """Changes and watches runs through one broker; made by `connect`, used on its event loop.

    See `Changes` for the arguments that every change takes, and for what is raised.
    """

    @property
    def endpoint(self) -> str:
        """Where the broker is."""
        return self._link.endpoint

    @property
    def counters(self) -> OperatorCounters:
        """What was dropped, refused or sent again on this connection."""
        return self._link.counters

    @property
    def silent_for(self) -> float | None:
        """For how many seconds the broker has not answered; None while it does.

        Known after three of its beats, while something is asked of it or a feed is open.
        """
        return self._link.silent_for

    def on_silence(self, told: Callable[[Silence], None]) -> None:
        """Have a function called on this loop when the broker falls silent, and when it is back."""
        self._link.on_silence(told)

    # --- feeds --------------------------------------------------------------------------------

    def watch(self, run: str = "") -> Feed[Observation]:
        """Return a feed of all that happens in a run, or in all of them.

        It begins at once; `async with` waits until nothing can be missed any more. See `Feed`.
        """
        return self._feed(watch_topic(run), _observation)

    def subscribe(self, prefix: str) -> Feed[Own]:
        """Return a feed of the payloads on the users' own topics that begin with `prefix`.

        Raises:
            SettingsError: It is no text of Unicode.
        """
        check_topic(prefix)
        return self._feed(own_topic(prefix), _own)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish on a user's own topic, at most once; what cannot be sent now is dropped and counted.

        Raises:
            SettingsError: The topic is no text of Unicode.
        """
        check_topic(topic)
        self._link.publish(topic, payload)

    def _feed(self, topic: bytes, read: Callable[[bytes, Published], A | None]) -> Feed[A]:
        feed = Feed(topic, read, self._link.remove_feed)
        self._link.add_feed(feed)
        return feed


@asynccontextmanager
async def connect(
    broker: str | None = None,
    *,
    user: str | None = None,
    settings: ClientSettings | None = None,
    context: Context | None = None,
) -> AsyncIterator[Operator]:
    """Connect to a broker as an operator, for the length of an `async with`.

    Args:
        broker: Endpoint of control; else `$ZLOOM_BROKER`, else the user's own broker.
        user: Who is asking, for the history, where no key says so; by default `name@host` of this process.
        settings: How long to wait, and the sockets' options.
        context: Of ZeroMQ, to be shared with others that use `inproc://`; it is left open.

    Raises:
        BrokerUnreachable: No broker answered in time.
        Refused: The broker does not take this operator.
        SettingsError: The endpoint or the key cannot be used.
    """
    settings = settings or ClientSettings()
    endpoint = resolve_broker(broker, os.environ)
    options = with_key(settings.sockets, resolve_key(settings.key, os.environ, endpoint), endpoint)
    own_context = context or new_context()
    try:
        link = OperatorLink(endpoint, user or whoami(), own_context, options)
        try:
            await link.connect(settings.connect_timeout)
            yield Operator(link, settings.timeout)
        finally:
            link.close()
    finally:
        if context is None:
            await asyncio.to_thread(leaving.terminate, own_context, endpoint, LINGER)


def whoami() -> str:
    """Return `name@host` of this process."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        name = f"uid-{os.getuid()}"
    return f"{name}@{socket.gethostname()}"


def _observation(topic: bytes, message: Published) -> Observation | None:
    match message:
        case Reported() | Answered() | Happened() | Revised():
            return message
    return None


def _own(topic: bytes, message: Published) -> Own | None:
    return message if isinstance(message, Own) else None
