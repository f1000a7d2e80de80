"""A message's frames on their way from and to libzmq, in the fewest calls; nothing here blocks."""

from __future__ import annotations

from collections.abc import Sequence

import zmq

# As numbers, because an enum's `|` and `&` take longer than the call that they are for.
_NOW, _MORE, _READABLE = int(zmq.DONTWAIT), int(zmq.DONTWAIT | zmq.SNDMORE), int(zmq.POLLIN)


def is_readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether there is a message."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & _READABLE)


def receive(socket: zmq.Socket[bytes]) -> tuple[list[bytes], zmq.Frame]:
    """Receive a message, and its last frame, which knows the connection; raises zmq.Again when there is none.

    `recv_multipart` asks the socket after each frame whether there are more; that takes longer than a frame.
    """
    frame = socket.recv(_NOW, copy=False)
    frames = [frame.bytes]
    while frame.more:
        frame = socket.recv(_NOW, copy=False)
        frames.append(frame.bytes)
    return frames, frame


def send(socket: zmq.Socket[bytes], frames: Sequence[bytes]) -> None:
    """Send a message; raises zmq.Again when the queue to its destination is full."""
    *parts, last = frames
    for part in parts:
        socket.send(part, _MORE)
    socket.send(last, _NOW)
