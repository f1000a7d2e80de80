"""The two sockets of a weavelet, and the messages in their frames."""

from collections.abc import Callable

from zloom import codec
from zloom.errors import RemoteProtocolError, TransportError
from zloom.handshakes import HandshakeFailure
from zloom.messages import FromBroker, Published, ToBroker
from zloom.socket_options import Context, SocketOptions
from zloom.sockets import DrainSocket


class SessionSockets:
    """Control, always open until `close`, and updates, open once the broker told where; on the running loop.

    Args:
        context: Of both sockets.
        endpoint: Of control.
        options: Of both sockets.
        on_control: Takes each message from control.
        on_update: Takes topic and message of each publication.
        on_unreadable: Takes an error, and whether it came on control.
        on_handshake_failed: Takes why control cannot connect on TCP, at each attempt.

    Raises:
        TransportError: The endpoint is malformed, or the loop cannot watch sockets.
    """

    def __init__(
        self,
        context: Context,
        endpoint: str,
        options: SocketOptions,
        on_control: Callable[[FromBroker], None],
        on_update: Callable[[bytes, Published], None],
        on_unreadable: Callable[[RemoteProtocolError, bool], None],
        on_handshake_failed: Callable[[HandshakeFailure], None],
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._options = options
        self._on_control = on_control
        self._on_update = on_update
        self._on_unreadable = on_unreadable
        self._on_handshake_failed = on_handshake_failed
        self._updates: DrainSocket | None = None
        self._control = self._open_control()

    def send(self, message: ToBroker) -> bool:
        """Send on control; False when the message was dropped because too many wait already.

        Raises:
            LocalProtocolError: The message is too long.
            TransportError: The socket cannot be used any more.
        """
        return self._control.send(codec.control_frames(message))

    @property
    def connected(self) -> bool:
        """Whether all that was sent on control has left for a connection that stands."""
        return not self._control.counters.outbox_len

    def reconnect(self) -> None:
        """Close both sockets and all that waits in them, and open control again."""
        self.close()
        self._control = self._open_control()

    def open_updates(self, endpoint: str) -> None:
        """Open updates, in place of the one before.

        Raises:
            TransportError: The broker told an endpoint that is none.
        """
        if self._updates is not None:
            self._updates.close()
        self._updates = DrainSocket(self._context, "sub", self._read_update, options=self._options)
        self._updates.connect(endpoint)

    def subscribe(self, topic: bytes) -> None:
        """Subscribe to what starts with a topic, if updates are open."""
        if self._updates is not None:
            self._updates.subscribe(topic)

    def unsubscribe(self, topic: bytes) -> None:
        """Undo one `subscribe`."""
        if self._updates is not None:
            self._updates.unsubscribe(topic)

    def close(self, linger: float = 0.0) -> None:
        """Close both sockets; what was sent last has `linger` seconds to leave."""
        self._control.close(round(1000 * linger))
        if self._updates is not None:
            self._updates.close()
            self._updates = None

    def _open_control(self) -> DrainSocket:
        socket = DrainSocket(self._context, "dealer", self._read_control, options=self._options)
        try:
            if self._endpoint.startswith("tcp://"):
                socket.watch_handshakes(self._on_handshake_failed)
            socket.connect(self._endpoint)
        except TransportError:
            socket.close()
            raise
        return socket

    def _read_control(self, frames: list[bytes]) -> None:
        try:
            message = codec.from_broker.decode(codec.control_payload(frames))
        except RemoteProtocolError as error:
            self._on_unreadable(error, True)
        else:
            self._on_control(message)

    def _read_update(self, frames: list[bytes]) -> None:
        try:
            if len(frames) != 2:
                raise RemoteProtocolError(f"{len(frames)} frames; expected topic and payload")
            message = codec.published.decode(frames[1])
        except RemoteProtocolError as error:
            self._on_unreadable(error, False)
        else:
            self._on_update(frames[0], message)
