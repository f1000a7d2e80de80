"""Why a peer cannot connect: what libzmq tells of handshakes that failed, in words.

libzmq itself goes on trying without a word, so that a wrong key looks like a broker that is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from .edge_reader import EdgeReader

_EVENTS = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)

_MECHANISM_MISMATCH = 0x11000002
"""ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: one side wants CURVE, and the other does not."""

_DENIED = 400
"""ZAP's status of a key that is not admitted; 300 and 500 are troubles that may pass."""


@dataclass(frozen=True, slots=True)
class HandshakeFailure:
    """What became of one attempt to connect.

    Attributes:
        text: What is wrong and what to do.
        final: It will not be otherwise the next time, unless somebody changes a key.
    """

    text: str
    final: bool


class HandshakeWatch:
    """Tells of each failure, on the loop that the socket belongs to.

    Its own socket must be read: libzmq's thread, which serves all sockets, blocks when it is full. It holds a
    thousand failures, of which there is at most one each tenth of a second.

    Args:
        socket: A client's, before it connects.
        loop: Its loop.
        has_key: Whether the client has a key.
        on_failed: Called with each failure.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        loop: asyncio.AbstractEventLoop,
        has_key: bool,
        on_failed: Callable[[HandshakeFailure], None],
    ) -> None:
        self._socket = socket
        self._has_key = has_key
        self._on_failed = on_failed
        self._monitor: zmq.Socket[bytes] = socket.get_monitor_socket(_EVENTS)
        self._monitor.linger = 0
        self._reader = EdgeReader(loop, self._monitor.fileno(), self._read)

    def close(self) -> None:
        """Stop; call it before the socket is closed."""
        self._reader.close()
        with contextlib.suppress(zmq.ZMQError):  # the context was terminated, and with it the monitor
            self._socket.disable_monitor()
        self._monitor.close(0)  # pyzmq leaves that to the garbage collector, and a context waits for it

    def _read(self) -> bool:
        while not self._monitor.closed:
            try:
                frames = self._monitor.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return True
            event, value = struct.unpack("=HI", frames[0])
            failure = explain(event, value, has_key=self._has_key)
            if failure is not None:
                self._on_failed(failure)
        return True


def explain(event: int, value: int, *, has_key: bool) -> HandshakeFailure | None:
    """Return what an event of libzmq's monitor means for a client; None where it means nothing for it."""
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        text = "the broker does not know the key in ZLOOM_KEY, or has revoked it; its owner gives out another"
        return HandshakeFailure(f"{text} with `zloom auth add`", final=value == _DENIED)
    if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == _MECHANISM_MISMATCH:
        if has_key:
            text = "the broker takes no keys, so nothing proves that it is yours; unset ZLOOM_KEY to connect"
        else:
            text = (
                "the broker wants a key; have its owner run `zloom auth add`, and name the file in ZLOOM_KEY"
            )
        return HandshakeFailure(text, final=True)
    if has_key and event in (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL):
        text = "the handshake breaks off: is it the broker that the file in ZLOOM_KEY is for?"
        return HandshakeFailure(text, final=False)
    return None
