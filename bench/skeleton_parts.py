"""What the skeleton's processes are made of: sockets on a loop, and the thread that commits."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import zmq

from bench.commits import database
from zloom.edge_reader import EdgeReader
from zloom.socket_frames import SocketFrames
from zloom_broker.settings import Durability

Frames = list[bytes]

Then = Callable[[], object]
"""Called once what it belongs to is on disk."""


class Port:
    """A socket on the running loop, which hands over what comes, read and written as zloom does it.

    Args:
        socket: Closed by whoever opened it.
        received: Called with each message.
    """

    def __init__(self, socket: zmq.Socket[bytes], received: Callable[[Frames], object]) -> None:
        self._frames = SocketFrames(socket)
        self._received = received
        descriptor = socket.getsockopt(zmq.FD)
        assert isinstance(descriptor, int)
        self._reader = EdgeReader(asyncio.get_running_loop(), descriptor, self._turn)

    def send(self, frames: Sequence[bytes]) -> None:
        """Send a message."""
        self._frames.send(frames)
        if not self._reader.sees and self._frames.is_readable():
            self._reader.kick()

    def close(self) -> None:
        """Hand over no more."""
        self._reader.close()

    def _turn(self) -> bool:
        with contextlib.suppress(zmq.Again):
            self._received(self._frames.receive()[0])
            while self._frames.is_readable():
                self._received(self._frames.receive()[0])
        return True


@contextlib.contextmanager
def port(socket: zmq.Socket[bytes], received: Callable[[Frames], object]) -> Iterator[Port]:
    """Open a `Port` as long as the block lasts."""
    opened = Port(socket, received)
    try:
        yield opened
    finally:
        opened.close()


class Committing(threading.Thread):
    """Commits whatever waits when it looks, in one transaction; then calls back on the loop of its maker.

    Args:
        folder: Of the database.
        durability: Under `fsync` there is a head file too.
    """

    def __init__(self, folder: Path, durability: Durability) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._durability = durability
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[bytes, Then]] = []
        self._changed = threading.Condition()

    def put(self, row: bytes, then: Then) -> None:
        """Have a row committed."""
        with self._changed:
            self._waiting.append((row, then))
            self._changed.notify()

    def run(self) -> None:
        """Be the thread, until the process ends."""
        with database(self._folder, self._durability, head=True) as commit:
            while True:
                with self._changed:
                    while not self._waiting:
                        self._changed.wait()
                    batch, self._waiting = self._waiting, []
                commit([row for row, _ in batch])
                self._loop.call_soon_threadsafe(_call_back, batch)


def _call_back(batch: list[tuple[bytes, Then]]) -> None:
    for _, then in batch:
        then()
