"""The options of a ZeroMQ socket, all of them, in one frozen dataclass with reasons.

libzmq's defaults suit a message queue: no bound on a message's size, no bound on how long a process waits at
exit, no backoff. `SocketOptions` holds the values of a control plane, and `apply` sets them on a socket
before it binds or connects, which is the only moment at which most of them count.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Literal

import zmq

from .errors import SettingsError, TransportError
from .socket_errors import translated

Context = zmq.Context[zmq.Socket[bytes]]

SocketKind = Literal["router", "dealer", "xpub", "sub"]

SOCKET_TYPES: dict[SocketKind, zmq.SocketType] = {
    "router": zmq.SocketType.ROUTER,
    "dealer": zmq.SocketType.DEALER,
    "xpub": zmq.SocketType.XPUB,
    "sub": zmq.SocketType.SUB,
}

# Zero switches these off; everywhere else libzmq would read it as "unlimited", which nothing here may be.
_MAY_BE_ZERO = frozenset(
    {
        "linger_ms",
        "heartbeat_interval_ms",
        "heartbeat_timeout_ms",
        "heartbeat_ttl_ms",
        "keepalive_seconds",
        "outbox_limit",
    }
)


# libzmq takes some when it makes its first socket, and ends the process where it finds none.
_DESCRIPTORS = 16

# libzmq's own default, which leaves room for about 500 weavelets in one process, on TCP for half as many.
_MAX_SOCKETS = 1023


def new_context(max_sockets: int = _MAX_SOCKETS, io_threads: int = 1) -> Context:
    """A context for sockets of one process; sockets that meet over inproc must share one.

    Whoever makes it terminates it with `context.term()`, after closing its sockets: term waits for them.

    Args:
        max_sockets: How many sockets may be open at once.
        io_threads: libzmq's own threads. One moves about a gigabyte a second.

    Raises:
        TransportError: libzmq does not allow that many, or the process is short of file descriptors.
    """
    _need_descriptors()
    with translated("make a context with", f"{max_sockets} sockets and {io_threads} I/O threads"):
        context = zmq.Context[zmq.Socket[bytes]](io_threads)
        try:
            context.set(zmq.MAX_SOCKETS, max_sockets)
        except zmq.ZMQError:
            context.term()
            raise
        return context


def _need_descriptors() -> None:
    taken = []
    try:
        for _ in range(_DESCRIPTORS):
            taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        hint = f"a context needs {_DESCRIPTORS}; raise the limit (ulimit -n)"
        raise TransportError(f"cannot make a context: {error.strerror}: {hint}") from error
    finally:
        for descriptor in taken:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """What a `DrainSocket` sets on its ZeroMQ socket, and the bounds of its drain loop.

    Attributes:
        send_hwm: SNDHWM, messages waiting to be sent, counted per peer. Memory is about
            peers times this times the size of a message.
        receive_hwm: RCVHWM, messages received and not yet read, counted per peer, of a router. Other sockets
            have no such bound. Where libzmq 4.3.5 has stopped reading at the mark, a heartbeat that is due
            after the connection broke aborts the process (`Assertion failed: !_io_error`), and so does a
            connection that comes back (`_input_stopped`). What a sub gets while its owner holds the GIL is a
            beat a second and what its topics say; a dealer's peer has credit; and an xpub keeps
            subscriptions anyway.
        max_message_bytes: MAXMSGSIZE, bytes of one frame; a peer that sends more is disconnected. libzmq
            has no limit by default. Not honoured on inproc.
        linger_ms: LINGER, milliseconds that a closed socket keeps unsent messages. libzmq waits for ever,
            which hangs the interpreter at exit.
        heartbeat_interval_ms: HEARTBEAT_IVL, milliseconds between pings of libzmq's own thread; 0 is off.
            They are answered without the GIL: they say that the process lives, not that its trainer does.
            Sent by an xpub, so that a subscription ends with the process or host that made it. A sub hears
            the beat, and what a dealer says is answered. libzmq looks at all timers of its thread at each
            message that ends one, so that heartbeats of thousands of peers take much of a broker's time. On
            a router they would let a peer end the broker by a flood and its own death: see `receive_hwm`.
        heartbeat_timeout_ms: HEARTBEAT_TIMEOUT, milliseconds without an answer until a connection is closed.
        heartbeat_ttl_ms: HEARTBEAT_TTL, milliseconds after which the peer closes its end when we are silent.
        unacknowledged_ms: TCP_MAXRT, milliseconds after which the kernel closes a connection whose other end
            acknowledges nothing that was sent to it, or takes nothing because its buffers are full, on
            systems that can; for the sockets that send more than subscriptions.
        keepalive_seconds: TCP_KEEPALIVE_IDLE and TCP_KEEPALIVE_INTVL, seconds without a packet until the
            kernel probes a connection, and between two probes, three of which it closes it for; 0 is off. By
            default the first would come after two hours. Only for what nobody sends anything on.
        handshake_ms: HANDSHAKE_IVL, milliseconds for a handshake to end. The default, 30 s, invites clients
            that connect, say nothing and hold a descriptor.
        reconnect_ms: RECONNECT_IVL, milliseconds until the first attempt to reconnect. Each socket takes a
            random value of 0.5 to 1.5 times this: with RECONNECT_IVL_MAX set libzmq adds no randomness,
            and a thousand peers would come back at the same instants.
        reconnect_max_ms: RECONNECT_IVL_MAX, milliseconds, the bound on libzmq's doubling of it. Each socket
            takes a random value of 0.5 to 1 times this, for the same reason.
        backlog: BACKLOG, connections that wait to be accepted. With the default of 100 a herd is refused.
        immediate: IMMEDIATE, on a dealer: queue messages only for connections that stand. Otherwise stale
            messages wait for an absent broker. Not honoured on inproc.
        curve_server: CURVE_SERVER, this end checks the other's key.
        curve_public_key: CURVE_PUBLICKEY, 40 bytes of Z85; empty for no encryption.
        curve_secret_key: CURVE_SECRETKEY, 40 bytes of Z85.
        curve_server_key: CURVE_SERVERKEY, 40 bytes of Z85: on a client, whom it trusts to be the server.
        xpub_manual: XPUB_MANUAL, on an xpub: a subscription counts only once `DrainSocket.admit` was called.
        zap_domain: ZAP_DOMAIN, asked of a ZAP handler at each handshake. When it is set so is
            ZAP_ENFORCE_DOMAIN: without a handler libzmq would admit everybody.
        outbox_limit: Messages held for one destination while its queue is full; the next is refused. Zero
            holds none.
        wake_messages: Messages received, or sent from the outbox, in one turn of the event loop.
        wake_seconds: Seconds of one turn of the event loop after which the drain loop lets others run.

    Raises:
        SettingsError: A number is out of range; the text names the field.
    """

    send_hwm: int = 1000
    receive_hwm: int = 1000
    max_message_bytes: int = 1024 * 1024
    linger_ms: int = 0
    heartbeat_interval_ms: int = 1000
    heartbeat_timeout_ms: int = 3000
    heartbeat_ttl_ms: int = 3000
    unacknowledged_ms: int = 3000
    keepalive_seconds: int = 10
    handshake_ms: int = 3000
    reconnect_ms: int = 100
    reconnect_max_ms: int = 1000
    backlog: int = 4096
    immediate: bool = True
    curve_server: bool = False
    curve_public_key: bytes = b""
    curve_secret_key: bytes = field(default=b"", repr=False)
    curve_server_key: bytes = b""
    zap_domain: bytes = b""
    xpub_manual: bool = False
    outbox_limit: int = 1000
    wake_messages: int = 200
    wake_seconds: float = 0.002

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if isinstance(value, bytes):
                continue
            if value < 0 or (value == 0 and option.type != "bool" and option.name not in _MAY_BE_ZERO):
                least = "0 or more" if option.name in _MAY_BE_ZERO else "more than 0"
                raise SettingsError(f"{option.name} is {value!r}, but must be {least}")

    def apply(self, socket: zmq.Socket[bytes], kind: SocketKind) -> None:
        """Set every option that a socket of `kind` takes; call it before bind and connect.

        Raises:
            zmq.ZMQError: libzmq refused a value, such as a malformed CURVE key.
        """
        for option, value in (*self._common(), *self._of_kind(kind)):
            socket.set(option, value)
        self.secure(socket)

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Set the options of CURVE and ZAP, for what is bound or connected after this.

        Raises:
            zmq.ZMQError: A key is malformed.
        """
        for option, value in self._security():
            socket.set(option, value)

    def _common(self) -> Iterator[tuple[int, int | bytes]]:
        yield zmq.SNDHWM, self.send_hwm
        yield zmq.MAXMSGSIZE, self.max_message_bytes
        yield zmq.LINGER, self.linger_ms
        yield zmq.HEARTBEAT_TIMEOUT, self.heartbeat_timeout_ms
        yield zmq.TCP_KEEPALIVE, int(self.keepalive_seconds > 0)
        if self.keepalive_seconds:
            yield zmq.TCP_KEEPALIVE_IDLE, self.keepalive_seconds
            yield zmq.TCP_KEEPALIVE_INTVL, self.keepalive_seconds
            yield zmq.TCP_KEEPALIVE_CNT, 3
        yield zmq.HANDSHAKE_IVL, self.handshake_ms
        yield zmq.RECONNECT_IVL, max(1, round(self.reconnect_ms * random.uniform(0.5, 1.5)))
        yield zmq.RECONNECT_IVL_MAX, max(1, round(self.reconnect_max_ms * random.uniform(0.5, 1.0)))
        yield zmq.BACKLOG, self.backlog

    def _of_kind(self, kind: SocketKind) -> Iterator[tuple[int, int | bytes]]:
        yield zmq.HEARTBEAT_IVL, self.heartbeat_interval_ms if kind == "xpub" else 0
        yield zmq.HEARTBEAT_TTL, self.heartbeat_ttl_ms if kind == "xpub" else 0
        yield zmq.RCVHWM, self.receive_hwm if kind == "router" else 0
        if kind != "sub":
            yield zmq.TCP_MAXRT, self.unacknowledged_ms
        if kind == "router":
            # Without MANDATORY a message to a peer that is gone vanishes. HANDOVER would let a peer take
            # over another's routing id.
            yield zmq.ROUTER_MANDATORY, 1
            yield zmq.ROUTER_HANDOVER, 0
        elif kind == "dealer":
            yield zmq.IMMEDIATE, int(self.immediate)
            yield zmq.CONFLATE, 0  # it breaks messages of several frames
        elif kind == "xpub":
            # NODROP would let one slow peer stall all. VERBOSE shows every subscription, also one that
            # another peer already holds.
            yield zmq.XPUB_NODROP, 0
            yield zmq.XPUB_VERBOSE, 1
            if self.xpub_manual:
                yield zmq.XPUB_MANUAL, 1

    def _security(self) -> Iterator[tuple[int, int | bytes]]:
        if self.zap_domain:
            yield zmq.ZAP_DOMAIN, self.zap_domain
            yield zmq.ZAP_ENFORCE_DOMAIN, 1
        if not self.curve_public_key:
            return
        yield zmq.CURVE_PUBLICKEY, self.curve_public_key
        yield zmq.CURVE_SECRETKEY, self.curve_secret_key
        if self.curve_server:
            yield zmq.CURVE_SERVER, 1
        else:
            yield zmq.CURVE_SERVERKEY, self.curve_server_key
