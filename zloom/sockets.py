"""A ZeroMQ socket on an asyncio loop that reads everything at each wake-up.

Of all modules only this one and those beside it call libzmq. It carries lists of frames and knows nothing of
what is in them. `zmq.asyncio` would deliver one message a wake-up, through several objects, and could lose
one when a receive is cancelled; here a message goes straight to `on_message`, with nothing to cancel.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import zmq

from .edge_reader import EdgeReader
from .endpoints import IpcClaim, ipc_path, tcp_host, tcp_problem
from .errors import TransportError
from .forks import process_id
from .handshakes import HandshakeFailure, HandshakeWatch
from .socket_errors import translated, transport_error
from .socket_frames import SocketFrames
from .socket_options import SOCKET_TYPES, Context, SocketKind, SocketOptions
from .socket_outbox import Outbox
from .socket_sender import NOBODY, sender_of

# Seconds. That a queue has room again shows on the descriptor, but reading may eat that sign, and no option
# of a ROUTER tells. So what is held is also tried at this interval.
_RETRY_SECONDS = 0.01

# Seconds. As long as nothing goes out the interval grows fourfold up to this: without a broker the hello that
# waits must not wake a trainer's process a hundred times a second. A dealer has one queue, and the descriptor
# tells of it when a connection stands.
_RETRY_SECONDS_MAX = 0.5
_RETRY_SECONDS_MAX_OF_DEALER = 2.0

OnFrames = Callable[[list[bytes]], None]


@dataclass(frozen=True, slots=True)
class SocketCounters:
    """What a socket did since it was opened, in messages.

    Attributes:
        sent: Accepted by libzmq. That is no proof of delivery.
        received: Given to `on_message`.
        unroutable: Addressed to a peer that is not, or no longer, connected.
        outbox_dropped: Refused because the outbox was full, or still held when the socket was closed.
        outbox_len: Held now.
    """

    sent: int
    received: int
    unroutable: int
    outbox_dropped: int
    outbox_len: int


def _nobody(frames: list[bytes]) -> None:
    """Take what comes to nobody, so that a closed socket keeps none of its owners."""


class _Sent(enum.Enum):
    YES = enum.auto()
    QUEUE_FULL = enum.auto()
    NO_ROUTE = enum.auto()


class DrainSocket:
    """One ZeroMQ socket, owned by the thread that makes it and driven by that thread's event loop.

    `send` never blocks. What a full queue does not take is held, in order for each destination, and sent
    when there is room; one destination never delays another.

    After a fork the child's copy is dead: every method but `close` raises, and `close` touches nothing,
    because descriptor, epoll and socket file are the parent's.

    Args:
        context: From `new_context`, made in this process.
        kind: An xpub receives subscriptions, as one frame of ``b"\\x01" + topic`` or ``b"\\x00" + topic``.
        on_message: Called with the frames of each message, on the loop's thread. On a router the first frame
            is the sender's routing id. What it raises goes to the loop's exception handler.
        loop: The running loop by default.
        options: See `SocketOptions`.
        on_unroutable: Called with the frames of each message that a router could not route, in a later turn
            of the loop and so never from inside `send`.

    Raises:
        TransportError: No socket could be made, or the loop cannot watch one.
    """

    def __init__(
        self,
        context: Context,
        kind: SocketKind,
        on_message: OnFrames,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        options: SocketOptions | None = None,
        on_unroutable: OnFrames | None = None,
    ) -> None:
        self._kind = kind
        self._on_message = on_message
        self._on_unroutable = on_unroutable
        self._loop = loop or asyncio.get_running_loop()
        self._options = options or SocketOptions()
        self._endpoint = f"a new {kind} socket"  # the last one bound or connected, for error texts
        self._pid = process_id()
        self._thread = threading.get_ident()
        self._closed = False
        self._claims: list[IpcClaim] = []
        self._retry_seconds = _RETRY_SECONDS
        self._outbox = Outbox(self._options.outbox_limit)
        self._handshakes: HandshakeWatch | None = None
        self._tells_senders = False
        self.sender = NOBODY
        """Who sent the message that `on_message` is called with, on a socket that was secured."""
        self._n_sent = self._n_received = self._n_unroutable = self._n_dropped = 0
        with translated("open", self._endpoint):
            self._socket: zmq.Socket[bytes] = context.socket(SOCKET_TYPES[kind])
        try:
            with translated("set the options of", self._endpoint):
                self._options.apply(self._socket, kind)
            self._frames = SocketFrames(self._socket)
            self._reader = EdgeReader(self._loop, self._socket.fileno(), self._turn)
        except BaseException:
            self._socket.close(0)
            raise

    @property
    def closed(self) -> bool:
        """Whether `close` was called, or the context was terminated under the socket."""
        return self._closed

    @property
    def counters(self) -> SocketCounters:
        """A snapshot; it can be taken from any thread and after `close`."""
        held = len(self._outbox)
        return SocketCounters(self._n_sent, self._n_received, self._n_unroutable, self._n_dropped, held)

    def bind(self, endpoint: str) -> str:
        """Listen at `endpoint`; returns it with the port that was chosen for ``:0``.

        Raises:
            TransportError: In use, no such interface, malformed, not permitted: the text says what to do.
        """
        self._check_usable()
        self._prepare_tcp("bind", endpoint, any_port=True)
        with translated("bind", endpoint):
            if ipc_path(endpoint) is None:
                self._socket.bind(endpoint)
            else:
                self._bind_ipc(endpoint)
            self._endpoint = self._socket.get_string(zmq.LAST_ENDPOINT)
        self._reader.kick()
        return self._endpoint

    def secure(self, options: SocketOptions) -> None:
        """Use the CURVE options from the next `bind` on; endpoints that are bound already stay as they are.

        From now on `sender` tells who sent each message.

        Raises:
            TransportError: A key is malformed.
        """
        self._check_usable()
        with translated("set the keys of", self._endpoint):
            options.secure(self._socket)
        self._tells_senders = True

    def watch_handshakes(self, on_failed: Callable[[HandshakeFailure], None]) -> None:
        """Have each failure to connect on TCP told; before `connect`. TransportError if it cannot be."""
        self._check_usable()
        has_key = bool(self._options.curve_public_key)
        with translated("watch the handshakes of", self._endpoint):
            self._handshakes = HandshakeWatch(self._socket, self._loop, has_key, on_failed)

    def _prepare_tcp(self, doing: str, endpoint: str, *, any_port: bool = False) -> None:
        if not endpoint.startswith("tcp://"):
            return
        problem = tcp_problem(endpoint, any_port=any_port)
        if problem:
            raise TransportError(f"cannot {doing} {endpoint}: {problem}")
        # Only where an IPv6 address stands: elsewhere libzmq would turn 127.0.0.1 into ::ffff:127.0.0.1, and
        # try nothing but ::1 for a localhost that listens at 127.0.0.1.
        self._socket.set(zmq.IPV6, int(tcp_host(endpoint).startswith("[")))

    def _bind_ipc(self, endpoint: str) -> None:
        claim = IpcClaim(endpoint, self._options.backlog)
        try:
            self._socket.set(zmq.USE_FD, claim.listener)
            self._socket.bind(endpoint)
            self._socket.set(zmq.USE_FD, -1)  # or the next bind would take this descriptor again
        except zmq.ZMQError:
            claim.release()
            raise
        self._claims.append(claim)

    def connect(self, endpoint: str) -> None:
        """Connect, now or as soon as somebody listens there; libzmq keeps trying.

        Raises:
            TransportError: The endpoint is malformed or its transport unknown.
        """
        self._check_usable()
        self._prepare_tcp("connect to", endpoint)
        with translated("connect to", endpoint):
            self._socket.connect(endpoint)
        self._endpoint = endpoint
        self._reader.kick()

    def disconnect(self, endpoint: str) -> None:
        """Undo `connect` of the same text; TransportError if it was not."""
        self._check_usable()
        with translated("disconnect from", endpoint):
            self._socket.disconnect(endpoint)
        self._reader.kick()

    def subscribe(self, topic: bytes) -> None:
        """Receive what starts with `topic`; TransportError unless this is a sub.

        Subscribing twice takes two `unsubscribe`.
        """
        self._set_topic(zmq.SUBSCRIBE, "subscribe", topic)

    def unsubscribe(self, topic: bytes) -> None:
        """Undo one `subscribe`; what is on its way may still arrive. TransportError unless this is a sub."""
        self._set_topic(zmq.UNSUBSCRIBE, "unsubscribe", topic)

    def admit(self, topic: bytes, *, present: bool) -> None:
        """Let the connection whose message was read last have a topic, or have it no more.

        For an xpub with `xpub_manual`, inside its `on_message`; TransportError elsewhere.
        """
        self._set_topic(zmq.SUBSCRIBE if present else zmq.UNSUBSCRIBE, "admit to", topic)

    def _set_topic(self, option: int, verb: str, topic: bytes) -> None:
        self._check_usable()
        with translated(f"{verb} {topic!r} on", self._endpoint):
            self._socket.set(option, topic)
        self._reader.kick()

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send one message of one or more frames, or hold it while the queue to its destination is full.

        On a router the first frame is the receiver's routing id.

        Returns:
            True when the message was sent or is held. False when it is lost: its destination's outbox is
            full, or nobody has that routing id, and then `on_unroutable` follows. The newest is refused,
            not the oldest dropped: the caller learns of it and still has it, and the older were promised.

        Raises:
            TransportError: The socket is closed or cannot send.
        """
        self._check_usable()
        lane = frames[0] if self._kind == "router" else b""
        if lane in self._outbox.lanes:
            return self._hold(lane, frames)
        sent = self._try_send(frames)
        # Sending may eat the sign that something came. A turn reads all there is, also one to come.
        if not self._reader.sees:
            try:
                if self._outbox.lanes or self._frames.is_readable():
                    self._reader.kick()
            except zmq.ZMQError as error:
                raise transport_error(error, "look at", self._endpoint) from error
        if sent is _Sent.QUEUE_FULL:
            return self._hold(lane, frames)
        return sent is _Sent.YES

    def close(self, linger_ms: int | None = None) -> None:
        """Close the socket and free its endpoint; a second call or one in a forked child does nothing.

        Args:
            linger_ms: Milliseconds that libzmq keeps what it accepted and has not sent yet; by default the
                option's value, 0. `close` does not wait for that, but the context's `term` does. If it is
                more than 0 the outbox is tried once more. What remains there is counted as dropped.
        """
        if self._closed or process_id() != self._pid:
            return
        self._check_usable()
        linger = self._options.linger_ms if linger_ms is None else linger_ms
        try:
            if linger:
                self._flush(len(self._outbox))
        finally:
            self._shut(linger)

    def _shut(self, linger_ms: int) -> None:
        self._closed = True
        if self._handshakes is not None:
            self._handshakes.close()
        self._reader.close()
        self._on_message, self._on_unroutable = _nobody, None
        for claim in self._claims:
            claim.release()
        self._socket.close(linger_ms)
        self._n_dropped += self._outbox.clear()

    def _check_usable(self) -> None:
        if process_id() != self._pid:
            raise TransportError(
                f"{self._endpoint} was opened in process {self._pid}, and its socket is dead in the forked "
                f"child {process_id()}; open a new one there, with a new context"
            )
        if threading.get_ident() != self._thread:
            raise TransportError(
                f"the socket of {self._endpoint} belongs to another thread; use loop.call_soon_threadsafe"
            )
        if self._closed:
            raise TransportError(f"the socket of {self._endpoint} is closed; open a new one")

    def _hold(self, lane: bytes, frames: Sequence[bytes]) -> bool:
        stuck = lane in self._outbox.lanes
        if not self._outbox.put(lane, frames):
            self._n_dropped += 1
            return False
        if not stuck:
            self._retry_later(_RETRY_SECONDS)
        return True

    def _retry_later(self, seconds: float) -> None:
        self._retry_seconds = seconds
        self._reader.kick_after(seconds)

    def _try_send(self, frames: Sequence[bytes]) -> _Sent:
        try:
            self._frames.send(frames)
        except zmq.Again:
            return _Sent.QUEUE_FULL
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise transport_error(error, "send on", self._endpoint) from error
            self._n_unroutable += 1
            if self._on_unroutable is not None:
                self._loop.call_soon(self._on_unroutable, list(frames))
            return _Sent.NO_ROUTE
        self._n_sent += 1
        return _Sent.YES

    def _flush(self, attempts: int) -> bool:
        return self._outbox.flush(lambda frames: self._try_send(frames) is not _Sent.QUEUE_FULL, attempts)

    def _turn(self) -> bool:
        try:
            return self._read_and_flush()
        except zmq.ZMQError as error:
            self._fail(transport_error(error, "read from", self._endpoint))
        except TransportError as error:
            self._fail(error)
        return True

    def _read_and_flush(self) -> bool:
        before = self._n_sent
        finished = self._drain()
        if self._outbox.lanes:  # also while there is always more to be read
            flushed = self._flush(self._options.wake_messages)
            # An attempt to send, even one that fails, may eat the sign of a new message: read again.
            finished = finished and not flushed and self._drain()
        if self._outbox.lanes:
            stuck = self._n_sent == before
            most = _RETRY_SECONDS_MAX_OF_DEALER if self._kind == "dealer" else _RETRY_SECONDS_MAX
            longer = min(4 * self._retry_seconds, most)
            self._retry_later(longer if stuck else _RETRY_SECONDS)
        return finished

    def _drain(self) -> bool:
        """Read until there is no more (True) or the budget is spent (False)."""
        deadline = 0.0
        for number in range(self._options.wake_messages):
            # To ask costs half as much as a read that fails. Most turns find one message; those that find
            # more, many.
            if number == 1:
                if not self._frames.is_readable():
                    return True
                deadline = self._loop.time() + self._options.wake_seconds
            elif number and self._loop.time() >= deadline:
                return False
            try:
                frames = self._receive()
            except zmq.Again:
                return True
            self._dispatch(frames)
            if self._closed:
                return True
        return False

    def _receive(self) -> list[bytes]:
        frames, last = self._frames.receive()
        if self._tells_senders:
            self.sender = sender_of(last)
        return frames

    def _dispatch(self, frames: list[bytes]) -> None:
        self._n_received += 1
        try:
            self._on_message(frames)
        except Exception as error:  # noqa: BLE001 - a handler's error must not end the loop
            self._report("the handler of a message raised", error)

    def _fail(self, error: TransportError) -> None:
        """The socket cannot be used any more, as when its context was terminated."""
        self._shut(0)
        self._report("the socket failed and was closed", error)

    def _report(self, message: str, error: Exception) -> None:
        text = f"{self._endpoint}: {message}"
        self._loop.call_exception_handler({"message": text, "exception": error, "socket": self})
