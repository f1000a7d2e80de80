"""The floor: 128 bytes over the same two hops through bare sockets that block, without any library.

client → relay → worker and back. Over tcp without Nagle's delay, over ipc through a path.
"""

import asyncio
import contextlib
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable

from bench.echo import Context
from bench.orders import END, PAYLOAD
from bench.parts import SECONDS_SILENT, Parts, Plan, timed
from bench.results import Load
from bench.roles import Ready, announce
from bench.training import Training

SIZE = len(PAYLOAD)
"""Of each message, so that none needs a length: what is shorter is filled up with zeros."""


def _connect(endpoint: str) -> socket.socket:
    scheme, _, address = endpoint.partition("://")
    if scheme == "ipc":
        made = socket.socket(socket.AF_UNIX)
        made.connect(address)
        return made
    host, _, port = address.rpartition(":")
    return _undelayed(socket.create_connection((host, int(port))))


def _listen(endpoint: str) -> tuple[socket.socket, str]:
    scheme, _, address = endpoint.partition("://")
    if scheme == "ipc":
        made = socket.socket(socket.AF_UNIX)
        made.bind(address)
        made.listen()
        return made, endpoint
    made = socket.create_server((address.rpartition(":")[0], 0))
    return made, f"tcp://127.0.0.1:{made.getsockname()[1]}"


def _undelayed(made: socket.socket) -> socket.socket:
    if made.family == socket.AF_INET:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _receive(connection: socket.socket) -> bytes:
    """Return one message; raises ConnectionError when the other end is gone."""
    received = connection.recv(SIZE, socket.MSG_WAITALL)
    if len(received) < SIZE:
        raise ConnectionError("the other end has closed the connection")
    return received


def relay(endpoint: str, context: Context | None, ready: Ready) -> None:
    """Pass messages between the second who connects, the client, and the first, the worker, until END."""
    listening, reached = _listen(endpoint)
    with listening:
        ready(reached)
        worker = _undelayed(listening.accept()[0])
        worker.sendall(PAYLOAD)  # so that it is the first for sure
        client = _undelayed(listening.accept()[0])
        message = b""
        with worker, client:
            while message.rstrip(b"\0") != END:
                message = _receive(client)
                worker.sendall(message)
                client.sendall(_receive(worker))


def worker(endpoint: str, context: Context | None, ready: Ready) -> None:
    """Echo from a thread, and train on this one when told to, until END."""
    training = Training()
    threading.Thread(target=_answer, args=(endpoint, ready, training), daemon=True).start()
    training.run()


def _answer(endpoint: str, ready: Ready, training: Training) -> None:
    with _connect(endpoint) as connection:
        _receive(connection)
        ready()
        order = b""
        while order != END:
            message = _receive(connection)
            order = message.rstrip(b"\0")
            training.obey(order)
            connection.sendall(message)
    training.end()


class SocketBench:
    """An echo through bare sockets."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(SECONDS_SILENT)

    async def measure(self, plan: Plan) -> list[int]:
        """See `Bench`. In a thread, because the operators of zloom need the loop to answer their brokers."""
        return await asyncio.to_thread(timed, plan, lambda: self.ask(PAYLOAD))

    def ask(self, payload: bytes) -> None:
        """Have a payload echoed; raises TimeoutError when nothing comes."""
        self._connection.sendall(payload.ljust(SIZE, b"\0"))
        _receive(self._connection)

    async def train(self, load: Load) -> None:
        """See `Bench`."""
        await asyncio.to_thread(self.ask, load.encode())


@contextlib.asynccontextmanager
async def sockets(parts: Parts) -> AsyncIterator[SocketBench]:
    """Start the echo of bare sockets, as long as the block lasts."""
    parts.start(relay, "bench.floor", "relay", parts.endpoint)
    parts.start(worker, "bench.floor", "worker", parts.endpoint)
    with _connect(parts.endpoint) as connection:
        bench = SocketBench(_undelayed(connection))
        yield bench
        await asyncio.to_thread(bench.ask, END)


ROLES: dict[str, Callable[[str, Context | None, Ready], None]] = {"relay": relay, "worker": worker}

if __name__ == "__main__":
    ROLES[sys.argv[1]](sys.argv[2], None, announce)
