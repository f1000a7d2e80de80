"""A process that misuses a broker's ports: ``python -m tests.faults.abuser MODE CONTROL UPDATES NUMBER``.

It says `ready` once the misuse is under way, goes on until its stdin is closed, and then tells as a number
how often it did what it does.
"""

import random
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

from zloom import codec
from zloom import messages as m

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
"""ZMTP 3.0 without security, from a peer that is no server."""

MIB = 1024 * 1024
LENGTHS = [2**63, 2**64 - 1, 2**63 - 1, 2**31, codec.MAX_MESSAGE_SIZE + 1, 0]


def ready(kind: bytes) -> bytes:
    """Return the command that ends a handshake, of a socket of a kind."""
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    return b"\x04" + bytes([len(body)]) + body


def frame(length: int, body: bytes, flags: int = 2) -> bytes:
    """Return a long frame that says how long it is, truly or not."""
    return bytes([flags]) + struct.pack(">Q", length) + body


def openings(rng: random.Random) -> Iterator[bytes]:
    """Yield what a connection may begin with and should not."""
    yield b"GET / HTTP/1.1\r\nHost: zloom\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200)  # TLS
    yield rng.randbytes(rng.randint(1, 500))
    yield GREETING[: rng.randint(1, 63)]
    yield GREETING + rng.randbytes(50)
    for kind in (b"DEALER", b"SUB", b"ROUTER", b"nonsense"):
        hands = GREETING + ready(kind)
        yield hands + frame(10, b"short")  # cut off
        yield hands + rng.randbytes(200)
        yield hands + b"\x01\x00" * 2000  # frames without an end
        for length in LENGTHS:
            yield hands + frame(length, rng.randbytes(100))
            yield hands + frame(length, rng.randbytes(100), flags=6)


def going_on() -> bool:
    """Whether nobody has closed stdin."""
    return not select.select([sys.stdin], [], [], 0)[0]


def address(endpoint: str) -> tuple[str, int]:
    """Return host and port."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def garbage(control: str, updates: str, number: int) -> int:
    """Open connections to both ports one after the other, and send each something else."""
    rng, sent = random.Random(number), 0
    while going_on():
        for opening in openings(rng):
            for endpoint in (control, updates):
                with suppress(OSError), socket.create_connection(address(endpoint), 5) as connection:
                    connection.sendall(opening)
                    sent += 1
                    connection.settimeout(0.01)
                    connection.recv(100)
            if sent == 2:
                say_ready()
    return sent


def silence(control: str, updates: str, number: int) -> int:
    """Hold connections to both ports that never shake hands; returns how many the broker closed."""
    halves = [socket.create_connection(address((control, updates)[n % 2]), 5) for n in range(number)]
    say_ready()
    closed = 0
    poll = select.poll()
    for half in halves:
        poll.register(half, select.POLLIN | select.POLLHUP)
    by_number = {half.fileno(): half for half in halves}
    while going_on():
        for descriptor, _ in poll.poll(50):
            with suppress(OSError):
                if by_number[descriptor].recv(1000):
                    continue  # the broker's own greeting
            poll.unregister(descriptor)
            closed += 1
    return closed


def flood(control: str, updates: str, number: int) -> int:
    """Send requests as fast as they go and read no answer."""
    import zmq

    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.RCVHWM, 10)
        dealer.connect(control)
        hello = m.Hello(protocols=[1], role="operator", user="flood", endpoint=control)
        dealer.send_multipart(codec.control_frames(hello))
        dealer.recv_multipart()
        say_ready()
        sent = 0
        while going_on():
            for _ in range(50):
                with suppress(zmq.Again):
                    request = m.GetRuns(id=f"flood-{sent}")
                    dealer.send_multipart(codec.control_frames(request), zmq.DONTWAIT)
                    sent += 1
        return sent


def subscriptions(control: str, updates: str, number: int) -> int:
    """Subscribe to so many topics."""
    import zmq

    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.set(zmq.LINGER, 0)
        sub.set(zmq.SNDHWM, 0)
        sub.connect(updates)
        sub.subscribe(b"beat/")
        sub.recv_multipart()
        say_ready()
        for each in range(number):
            sub.subscribe(f"echo/{each:020}/" if each % 2 else f"topic/{each:020}/")
        sys.stdin.read()
        return number


def deaf(control: str, updates: str, number: int) -> int:
    """Subscribe to everything and read nothing, with a window as small as it goes."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address(updates))
        connection.sendall(GREETING + ready(b"SUB") + b"\x00\x01\x01")
        say_ready()
        while going_on():
            select.select([sys.stdin], [], [], 0.5)
            with suppress(OSError):
                # A heartbeat, so that the broker does not take it for dead.
                connection.sendall(b"\x04\x07\x04PING\x00\x00")
        return 1


def say_ready() -> None:
    print("ready", flush=True)


MODES: dict[str, Callable[[str, str, int], int]] = {
    each.__name__: each for each in (garbage, silence, flood, subscriptions, deaf)
}

if __name__ == "__main__":
    mode, *endpoints, count = sys.argv[1:]
    print(MODES[mode](endpoints[0], endpoints[1], int(count)), flush=True)
