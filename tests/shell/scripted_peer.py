"""A peer of the broker that does what a test tells it, on real sockets."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

from tests.support import DEADLINE
from zloom import codec
from zloom import messages as m
from zloom.model import Key, Replica, Schema
from zloom.socket_options import Context
from zloom.sockets import DrainSocket

RATE = Key("learning_rate", Schema(["number"], exclusive_minimum=0, maximum=1), 0.1)

_numbers = itertools.count()


def replica(name: str, rank: int = 0, keys: list[Key] | None = None) -> Replica:
    """Return a replica of run `run`."""
    return Replica(name, "run", "one", rank, 8, keys=[RATE] if keys is None else keys)


def updates_of(welcome: m.Welcome, endpoint: str) -> str:
    """Return where to subscribe, as a peer finds it."""
    host = endpoint.removeprefix("tcp://").rpartition(":")[0]
    return welcome.updates.replace("*", host, 1) if endpoint.startswith("tcp://") else welcome.updates


class Peer:
    """A scripted peer: sends what it is told, and keeps what comes."""

    def __init__(self, context: Context, endpoint: str) -> None:
        self.endpoint = endpoint
        self.inbox: list[Any] = []
        self.updates: list[Any] = []
        self.context = context
        self._received = 0
        self._hello: m.Hello | None = None
        self._changed = asyncio.Event()
        self._control = DrainSocket(context, "dealer", self._on_control)
        self._control.connect(endpoint)
        self._subs: list[DrainSocket] = []

    def _on_control(self, frames: list[bytes]) -> None:
        message = codec.from_broker.decode(codec.control_payload(frames))
        self._received = 1 if isinstance(message, m.Welcome) else self._received + 1
        if self._received % 100 == 0:
            self.send(m.Credit(received=self._received))
        if isinstance(message, m.Ping):
            self.send(m.Pong(id=message.id, received=message.received))
        if isinstance(message, m.Wait) and self._hello is not None:
            asyncio.get_running_loop().call_later(message.retry, self._send_again, self._hello)
        self.inbox.append(message)
        self._changed.set()

    def _on_update(self, frames: list[bytes]) -> None:
        self.updates.append(codec.published.decode(frames[1]))
        self._changed.set()

    def _send_again(self, message: m.Message) -> None:
        if not self._control.closed:
            self.send(message)

    def send(self, message: m.Message) -> None:
        self._control.send(codec.control_frames(message))

    def send_frames(self, *frames: bytes) -> None:
        self._control.send(frames)

    async def until(self, found: Callable[["Peer"], Any]) -> Any:
        """Wait until `found` returns something."""
        async with asyncio.timeout(DEADLINE):
            while not (result := found(self)):
                self._changed.clear()
                await self._changed.wait()
        return result

    async def get(self, kind: type[m.Message], **fields: object) -> Any:
        """Wait for a message of a type, with these fields."""
        return await self.until(lambda peer: first(peer.inbox, kind, **fields))

    async def hear(self, kind: type[m.Message], **fields: object) -> Any:
        """Wait for a publication of a type, with these fields."""
        return await self.until(lambda peer: first(peer.updates, kind, **fields))

    async def ask(self, request: m.Request) -> Any:
        """Send a request and return its first answer."""
        self.send(request)
        return await self.until(
            lambda peer: next((each for each in peer.inbox if getattr(each, "id", None) == request.id), None)
        )

    async def hello(self, who: Replica | None = None, user: str = "alice") -> m.Welcome:
        role: Any = "operator" if who is None else "weavelet"
        nonce = f"n{os.getpid()}-{next(_numbers)}"  # other processes of a test have peers too
        hello = m.Hello(protocols=[1], role=role, user=user, endpoint=self.endpoint, nonce=nonce, replica=who)
        self._hello = hello
        self.send(hello)
        welcome: m.Welcome = await self.get(m.Welcome)
        self.watch(welcome, b"watch/", codec.steer_topic("run", "one"), codec.echo_topic(nonce))
        await self.hear(m.Echo, nonce=nonce)
        if who is not None:
            self.send(m.Sync(nonce=nonce))
            await self.get(m.Snapshot)
        return welcome

    def watch(self, welcome: m.Welcome, *topics: bytes) -> None:
        """Subscribe to updates."""
        sub = DrainSocket(self.context, "sub", self._on_update)
        self._subs.append(sub)
        sub.connect(updates_of(welcome, self.endpoint))
        for topic in topics:
            sub.subscribe(topic)

    def close(self) -> None:
        """Vanish."""
        self._control.close()
        for sub in self._subs:
            sub.close()


def first(messages: list[Any], kind: type[m.Message], **fields: object) -> Any:
    """Return the first message of a type with these fields, or None."""
    for message in messages:
        if isinstance(message, kind) and all(getattr(message, n) == v for n, v in fields.items()):
            return message
    return None


def events(peer: Peer) -> list[str]:
    """Return the kinds of the events that a peer was told."""
    return [message.event.kind for message in peer.updates if isinstance(message, m.Happened)]


@contextlib.contextmanager
def connected(context: Context, endpoint: str) -> Iterator[Peer]:
    """A peer that is closed at the end."""
    peer = Peer(context, endpoint)
    try:
        yield peer
    finally:
        peer.close()
