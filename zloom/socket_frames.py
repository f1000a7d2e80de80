"""A message's frames on their way from and to libzmq, in the fewest calls; nothing here blocks."""

from __future__ import annotations

from collections.abc import Sequence

import zmq

# As numbers, because an enum's `|` and `&` take longer than the call that they are for.
_NOW, _MORE, _READABLE = int(zmq.DONTWAIT), int(zmq.DONTWAIT | zmq.SNDMORE), int(zmq.POLLIN)


class SocketFrames:
    """The calls that carry the messages of one socket; they belong to its thread.

    Each is looked up once: that `zmq.Socket` has a `__getattr__` makes each lookup slow. Its own `send` is
    Python code for arguments that only draft sockets have; the one in C that it calls is taken here. So what
    a subclass makes of `send`, as `zmq.asyncio.Socket` does, is passed over.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._recv, self._get = socket.recv, socket.get
        self._send = super(zmq.Socket, socket).send

    def is_readable(self) -> bool:
        """Whether there is a message."""
        return bool(int(self._get(zmq.EVENTS)) & _READABLE)

    def receive(self) -> tuple[list[bytes], zmq.Frame]:
        """Receive a message, and its last frame, which knows the connection; raises zmq.Again without one.

        `recv_multipart` asks the socket after each frame whether there are more; that takes longer than a
        frame.
        """
        frame = self._recv(_NOW, copy=False)
        frames = [frame.bytes]
        while frame.more:
            frame = self._recv(_NOW, copy=False)
            frames.append(frame.bytes)
        return frames, frame

    def send(self, frames: Sequence[bytes]) -> None:
        """Send a message; raises zmq.Again when the queue to its destination is full."""
        *parts, last = frames
        for part in parts:
            self._send(part, _MORE)
        self._send(last, _NOW)
