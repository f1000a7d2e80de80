"""A network between peers and a broker that can be broken: both ports, at another address of loopback."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

NEAR, FAR = "127.0.0.1", "127.0.0.2"
"""Where the broker listens, and where its peers find the same ports."""

CHUNK = 65536

Direction = Literal["up", "down"]
"""To the broker, or from it."""


def _open() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass
class Line:
    """What lies before one port. A direction that is not open lets nothing through, and loses nothing, as TCP
    does.

    Attributes:
        port: The broker's, and that of the peers.
        up: From peers to the broker.
        down: From the broker to peers.
        latency: Seconds each way.
        connections: Those that stand, as (peer's, broker's).
        opened: How many there were.
    """

    port: int
    up: asyncio.Event = field(default_factory=_open)
    down: asyncio.Event = field(default_factory=_open)
    latency: float = 0.0
    connections: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = field(default_factory=set)
    opened: int = 0

    def partition(self, *directions: Direction) -> None:
        """Let nothing through in these directions, or in either."""
        for direction in directions or ("up", "down"):
            (self.up if direction == "up" else self.down).clear()

    def heal(self) -> None:
        """Let all through."""
        self.up.set()
        self.down.set()

    def reset(self) -> None:
        """End all connections by RST."""
        for pair in list(self.connections):
            for writer in pair:
                _reset(writer)

    def half_close(self) -> None:
        """End all connections at the broker; peers hear nothing of it."""
        for _, broker in list(self.connections):
            _reset(broker)

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection as long as it stands."""
        await self.up.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection(NEAR, self.port)
        except OSError:
            _reset(writer)  # nobody listens there
            return
        pair = writer, far_writer
        self.connections.add(pair)
        self.opened += 1
        up = asyncio.create_task(self._carry(reader, far_writer, self.up))
        down = asyncio.create_task(self._carry(far_reader, writer, self.down))
        try:
            await asyncio.wait(
                [up]
            )  # the peer's end decides: where only the broker's is gone it is half open
        finally:
            self.connections.discard(pair)
            for task in (up, down):
                task.cancel()
            for each in pair:
                each.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivery = asyncio.create_task(self._deliver(line, writer, gate))
        loop = asyncio.get_running_loop()
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(CHUNK):
                    line.put_nowait((loop.time() + self.latency, data))
        finally:
            delivery.cancel()

    async def _deliver(
        self, line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                due, data = await line.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await gate.wait()
                writer.write(data)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Network(NamedTuple):
    """Both lines of a broker."""

    control: Line
    updates: Line

    def heal(self) -> None:
        """Let all through at once."""
        for line in self:
            line.heal()
            line.latency = 0.0


@contextlib.asynccontextmanager
async def network(endpoint: str) -> AsyncIterator[tuple[Network, str]]:
    """Put a network before a broker's control endpoint and its updates; yield it and the endpoint there."""
    port = int(endpoint.rpartition(":")[2])
    between = Network(Line(port), Line(port + 1))
    servers = [await asyncio.start_server(line.connect, FAR, line.port) for line in between]
    try:
        yield between, f"tcp://{FAR}:{port}"
    finally:
        for server in servers:
            server.close()
        between.heal()
        for line in between:
            for pair in list(line.connections):
                for writer in pair:
                    writer.transport.abort()
