"""What no change can do without, as programs that do nothing else: the skeleton of zloom.

operator → broker, commit, → weavelet → the training thread, between two steps, and back → broker, commit, →
operator. They are the same sockets, threads and tables as zloom's, with the head file under fsync; but
nothing is decoded, checked, numbered, counted, sent again or told to anybody else, there is one socket
instead of two, and no beat.
"""

import asyncio
import contextlib
import queue
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import zmq

from bench import echo, roles
from bench.commits import database
from bench.orders import END, SWITCHES
from bench.parts import SECONDS_SILENT, AskingBench, Outcomes, Parts
from bench.peers import own_context
from bench.roles import announce
from bench.training import Step, step_of
from zloom.edge_reader import EdgeReader
from zloom.socket_frames import SocketFrames
from zloom_broker.settings import Durability

Frames = list[bytes]


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


# --- the broker ----------------------------------------------------------------------------------


class Committing(threading.Thread):
    """Commits whatever waits when it looks, in one transaction; then calls back on the loop.

    Args:
        folder: Of the database.
        committed: Called on the loop of the caller with each message that is on disk, in order.
    """

    def __init__(self, folder: Path, durability: Durability, committed: Callable[[Frames], object]) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._durability = durability
        self._committed = committed
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Frames] = []
        self._changed = threading.Condition()

    def put(self, frames: Frames) -> None:
        """Have a message committed."""
        with self._changed:
            self._waiting.append(frames)
            self._changed.notify()

    def run(self) -> None:
        """Be the thread, until the process ends."""
        with database(self._folder, self._durability, head=True) as commit:
            while True:
                with self._changed:
                    while not self._waiting:
                        self._changed.wait()
                    batch, self._waiting = self._waiting, []
                commit([frames[-1] for frames in batch])
                self._loop.call_soon_threadsafe(self._call_back, batch)

    def _call_back(self, batch: list[Frames]) -> None:
        for frames in batch:
            self._committed(frames)


async def _route(endpoint: str, folder: Path, durability: Durability) -> None:
    ended, worker = asyncio.Event(), b""

    def send(frames: Frames) -> None:
        to_worker = frames[0] != worker
        router.send([worker, *frames] if to_worker else frames[1:])
        if frames[-1] == END and not to_worker:
            ended.set()

    def receive(frames: Frames) -> None:
        nonlocal worker
        if frames[-1] == echo.HELLO:
            worker = frames[0]
            router.send(frames)
        else:
            committing.put(frames)

    with zmq.Context() as context, echo.open_socket(context, zmq.ROUTER, endpoint) as socket:
        committing = Committing(folder, durability, send)
        with port(socket, receive) as router:
            committing.start()
            announce(socket.get_string(zmq.LAST_ENDPOINT))
            await ended.wait()
        socket.linger = 1000


# --- the trainer ---------------------------------------------------------------------------------


class SafePoints:
    """A training thread that handles orders between two steps, or at once while it waits.

    Args:
        answer: Called on the training thread with each message that was handled.
    """

    def __init__(self, answer: Callable[[Frames], object]) -> None:
        self._answer = answer
        self._orders: queue.SimpleQueue[Frames] = queue.SimpleQueue()
        self._step: Step | None = None
        self._ended = False
        self.put = self._orders.put

    def run(self) -> None:
        """Train until told to leave."""
        while not self._ended:
            if self._step is None:
                self._handle(self._orders.get())
            else:
                self._step()
                with contextlib.suppress(queue.Empty):
                    while True:
                        self._handle(self._orders.get_nowait())

    def _handle(self, frames: Frames) -> None:
        order = frames[-1]
        if order in SWITCHES:
            load = SWITCHES[order]
            self._step = None if load == "idle" else step_of(load)
        self._ended = self._ended or order == END
        self._answer(frames)


class Weavelet(threading.Thread):
    """The thread between the broker and the training thread."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self._endpoint = endpoint
        self.safe_points = SafePoints(self._hand_back)

    def run(self) -> None:
        """Be the thread, until the training has ended and its last answer is on its way."""
        asyncio.run(self._serve())

    def _hand_back(self, frames: Frames) -> None:
        self._loop.call_soon_threadsafe(self._send, frames)

    def _send(self, frames: Frames) -> None:
        self._port.send(frames)
        if frames[-1] == END:
            self._ended.set()

    def _receive(self, frames: Frames) -> None:
        if frames[-1] == echo.HELLO:
            announce()
        else:
            self.safe_points.put(frames)

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        with zmq.Context() as context, echo.open_socket(context, zmq.DEALER, self._endpoint) as socket:
            with port(socket, self._receive) as self._port:
                self._port.send([echo.HELLO])
                await self._ended.wait()
            socket.linger = 1000


# --- the operator --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def skeleton(parts: Parts, durability: Durability) -> AsyncIterator[AskingBench]:
    """Start it with all its parts, as long as the block lasts."""
    outcomes = Outcomes()

    async def ask(payload: bytes) -> None:
        outcome = outcomes.of(payload)
        operator.send([payload])
        async with asyncio.timeout(SECONDS_SILENT):
            await outcome

    broker = ("bench.skeleton", "broker", parts.endpoint, str(parts.folder), durability)
    with (
        roles.process(*broker) as endpoint,
        roles.process("bench.skeleton", "worker", endpoint),
        own_context(parts) as context,
        echo.open_socket(context, zmq.DEALER, endpoint) as socket,
        port(socket, lambda frames: outcomes.take(frames[-1])) as operator,
    ):
        yield AskingBench(ask)
        await ask(END)


def main(role: str, endpoint: str, folder: str = "", durability: str = "") -> None:
    """Be the broker or the worker, until an operator's END has come back."""
    if role == "broker":
        asyncio.run(_route(endpoint, Path(folder), cast(Durability, durability)))
    else:
        weavelet = Weavelet(endpoint)
        weavelet.start()
        weavelet.safe_points.run()
        weavelet.join(SECONDS_SILENT)


if __name__ == "__main__":
    main(*sys.argv[1:])
