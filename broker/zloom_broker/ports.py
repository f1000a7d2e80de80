"""The two sockets of a broker: secured where peers need keys, and updates bound anew to cut peers off."""

import asyncio
import logging
from dataclasses import astuple, dataclass, replace

from zloom.errors import TransportError
from zloom.socket_options import Context, SocketOptions
from zloom.sockets import DrainSocket, OnFrames, SocketCounters
from zloom_broker.addresses import Bound, updates_endpoint

LONGEST_TOPIC = 4096
"""Bytes of a message on updates from a peer, which is a subscription: where peers are not the owner's own a
longer one closes the connection, because libzmq keeps each byte of it in some 40 bytes."""

AGAIN = 0.01
"""Seconds until updates are bound again, while libzmq still closes the socket before."""

PATIENCE = 5.0
"""Seconds after which a failure to do so is logged; it goes on."""


@dataclass(frozen=True, slots=True)
class Takers:
    """Who is given what comes."""

    control: OnFrames
    unroutable: OnFrames
    updates: OnFrames


class Ports:
    """Control and updates on the running loop; not thread-safe.

    Args:
        context: Of both.
        takers: Of what comes.
        security: Options of what is bound on TCP, or None where nobody has to prove who he is.
    """

    def __init__(self, context: Context, takers: Takers, security: SocketOptions | None) -> None:
        self._context = context
        self._takers = takers
        self._security = security
        self._loop = asyncio.get_running_loop()
        self._log = logging.getLogger("zloom.broker")
        self._updates_bound: list[str] = []
        self._before: SocketCounters | None = None
        """Of the sockets that were updates before."""
        self._again: asyncio.TimerHandle | None = None
        self.unpublished = 0
        """Publications while updates were being bound anew; receivers see the gap in the topic's numbers."""
        self.control = DrainSocket(context, "router", takers.control, on_unroutable=takers.unroutable)
        self._updates = self._open_updates()

    @property
    def updates(self) -> SocketCounters:
        """Of updates, over all the times that they were bound."""
        now = self._updates.counters
        return now if self._before is None else _sum(self._before, now)

    def bind(self, endpoints: tuple[str, ...]) -> tuple[Bound, ...]:
        """Bind control at each endpoint, and updates beside it.

        Raises:
            TransportError: One of them cannot be bound.
        """
        bound: dict[str, Bound] = {}
        # What is bound after `secure` needs keys, so the endpoints in private folders come first.
        for endpoint in sorted(endpoints, key=_is_tcp):
            if _is_tcp(endpoint):
                self._secure(self.control)
                self._secure(self._updates)
            control = self.control.bind(endpoint)
            try:
                updates = self._updates.bind(updates_endpoint(endpoint, control))
            except TransportError as error:
                raise TransportError(f"{error} (updates of {control}, which go beside it)") from error
            bound[endpoint] = Bound(control, updates)
            self._updates_bound.append(updates)
        return tuple(bound[endpoint] for endpoint in endpoints)

    def publish(self, topic: bytes, payload: bytes) -> None:
        """Send on updates; dropped while they are being bound anew."""
        if self._updates.closed:
            self.unpublished += 1
        else:
            self._updates.send([topic, payload])

    def subscriber(self) -> DrainSocket:
        """Return the socket of updates, of which `sender` tells whose subscription it was."""
        return self._updates

    def cut_off(self) -> None:
        """Close all connections of updates; whoever may come back does, and subscribes again."""
        self._updates.close()
        self._rebind(self._loop.time())

    def close(self, linger_ms: int) -> None:
        """Close both; what was sent last has `linger_ms` milliseconds to leave."""
        if self._again is not None:
            self._again.cancel()
        self.control.close(linger_ms)
        self._updates.close(linger_ms)

    def _rebind(self, since: float) -> None:
        self._again = socket = None
        try:
            socket = self._open_updates()
            for endpoint in self._updates_bound:
                if _is_tcp(endpoint):
                    self._secure(socket)
                socket.bind(endpoint)
        except TransportError as error:
            if socket is not None:
                socket.close()
            if self._loop.time() > since + PATIENCE:
                self._log.error("updates cannot be bound again: %s", error)
                since = self._loop.time()
            self._again = self._loop.call_later(AGAIN, self._rebind, since)
        else:
            self._before, self._updates = self.updates, socket

    def _secure(self, socket: DrainSocket) -> None:
        if self._security is not None:
            socket.secure(self._security)

    def _open_updates(self) -> DrainSocket:
        options = SocketOptions()
        if self._security is not None:
            options = replace(options, xpub_manual=True, max_message_bytes=LONGEST_TOPIC)
        return DrainSocket(self._context, "xpub", self._takers.updates, options=options)


def _sum(one: SocketCounters, other: SocketCounters) -> SocketCounters:
    return SocketCounters(*(a + b for a, b in zip(astuple(one), astuple(other), strict=True)))


def _is_tcp(endpoint: str) -> bool:
    return endpoint.startswith("tcp://")
