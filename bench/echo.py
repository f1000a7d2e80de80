"""An echo over two hops in plain ZeroMQ, blocking and with zmq.asyncio: the floor under a round trip.

client (DEALER) → broker (ROUTER) → worker (DEALER) and back. The worker's loop shares its process with the
training, as a weavelet does, but answers by itself: it never waits for a safe point. Nothing is validated,
numbered, resent or written.
"""

import asyncio
import sys
import threading
from collections.abc import Callable

import zmq
import zmq.asyncio

from bench.orders import END
from bench.roles import Ready, announce
from bench.training import Training

HELLO = b"hello"

Context = zmq.Context[zmq.Socket[bytes]]


def open_socket(context: Context, kind: int, endpoint: str) -> zmq.Socket[bytes]:
    """Open a socket that leaves nothing behind; a router binds, a dealer connects."""
    socket = context.socket(kind)
    socket.linger = 0
    if kind == zmq.ROUTER:
        socket.bind(endpoint)
    else:
        socket.connect(endpoint)
    return socket


def open_async(context: Context, kind: int, endpoint: str) -> zmq.asyncio.Socket:
    """Do the same for the running asyncio loop."""
    return zmq.asyncio.Socket.from_socket(open_socket(context, kind, endpoint))


def _route(frames: list[bytes], worker: bytes) -> list[bytes]:
    """Return what the broker sends for what it received."""
    sender, *rest = frames
    return rest if sender == worker else [worker, sender, *rest]


def broker(endpoint: str, context: Context, ready: Ready) -> None:
    """Route between clients and the worker, until a client's END has come back. Blocks."""
    with open_socket(context, zmq.ROUTER, endpoint) as socket:
        ready(socket.get_string(zmq.LAST_ENDPOINT))
        worker, _ = socket.recv_multipart()
        socket.send_multipart([worker, HELLO])
        frames: list[bytes] = []
        while frames[-1:] != [END] or frames[0] != worker:
            frames = socket.recv_multipart()
            socket.send_multipart(_route(frames, worker))
        socket.linger = 1000


def broker_async(endpoint: str, context: Context, ready: Ready) -> None:
    """Do the same with zmq.asyncio."""

    async def route() -> None:
        with open_async(context, zmq.ROUTER, endpoint) as socket:
            ready(socket.get_string(zmq.LAST_ENDPOINT))
            worker, _ = await socket.recv_multipart()
            await socket.send_multipart([worker, HELLO])
            frames: list[bytes] = []
            while frames[-1:] != [END] or frames[0] != worker:
                frames = await socket.recv_multipart()
                await socket.send_multipart(_route(frames, worker))
            socket.linger = 1000

    asyncio.run(route())


def mirror(endpoint: str, context: Context, ready: Ready) -> None:
    """Send everything back to where it came from, until the process ends: an echo over one hop. Blocks."""
    with open_socket(context, zmq.ROUTER, endpoint) as socket:
        ready(socket.get_string(zmq.LAST_ENDPOINT))
        while True:
            socket.send_multipart(socket.recv_multipart())


def _answer(endpoint: str, context: Context, ready: Ready, training: Training) -> None:
    with open_socket(context, zmq.DEALER, endpoint) as socket:
        socket.send(HELLO)
        socket.recv()
        ready()
        order = b""
        while order != END:
            sender, order = socket.recv_multipart()
            training.obey(order)
            socket.send_multipart([sender, order])
        socket.linger = 1000
    training.end()


def _answer_async(endpoint: str, context: Context, ready: Ready, training: Training) -> None:
    async def answer() -> None:
        with open_async(context, zmq.DEALER, endpoint) as socket:
            await socket.send(HELLO)
            await socket.recv()
            ready()
            order = b""
            while order != END:
                sender, order = await socket.recv_multipart()
                training.obey(order)
                await socket.send_multipart([sender, order])
            socket.linger = 1000

    asyncio.run(answer())
    training.end()


def worker(endpoint: str, context: Context, ready: Ready) -> None:
    """Echo from a thread, and train on this one when told to, until END."""
    _work(_answer, endpoint, context, ready)


def worker_async(endpoint: str, context: Context, ready: Ready) -> None:
    """Do the same with zmq.asyncio."""
    _work(_answer_async, endpoint, context, ready)


def _work(answer: Callable[..., None], endpoint: str, context: Context, ready: Ready) -> None:
    training = Training()
    threading.Thread(target=answer, args=(endpoint, context, ready, training), daemon=True).start()
    training.run()


ROLES: dict[str, Callable[[str, Context, Ready], None]] = {
    "broker": broker,
    "broker_async": broker_async,
    "worker": worker,
    "worker_async": worker_async,
    "mirror": mirror,
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](sys.argv[2], zmq.Context(), announce)
