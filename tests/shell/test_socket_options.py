from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from zloom.errors import SettingsError, TransportError
from zloom.socket_options import SOCKET_TYPES, Context, SocketKind, SocketOptions, new_context


@pytest.fixture
def context() -> Iterator[Context]:
    context = new_context()
    yield context
    context.term()


@pytest.fixture
def socket(context: Context, request: pytest.FixtureRequest) -> Iterator[zmq.Socket[bytes]]:
    kind: SocketKind = request.param
    with context.socket(SOCKET_TYPES[kind]) as socket:
        SocketOptions().apply(socket, kind)
        yield socket


@pytest.mark.parametrize("socket", list(SOCKET_TYPES), indirect=True)
def test_every_socket_is_bounded_and_leaves_at_once(socket: zmq.Socket[bytes]) -> None:
    assert socket.get(zmq.LINGER) == 0
    assert socket.get(zmq.SNDHWM) == 1000
    assert socket.get(zmq.MAXMSGSIZE) == 1024 * 1024
    assert socket.get(zmq.HEARTBEAT_TIMEOUT) == 3000
    # Both at once would let libzmq abort the process: see `receive_hwm`.
    assert socket.get(zmq.RCVHWM) == (1000 if socket.get(zmq.TYPE) == zmq.ROUTER else 0)
    assert socket.get(zmq.HEARTBEAT_IVL) == (1000 if socket.get(zmq.TYPE) == zmq.XPUB else 0)
    assert socket.get(zmq.TCP_MAXRT) == (0 if socket.get(zmq.TYPE) == zmq.SUB else 3000)
    assert socket.get(zmq.HEARTBEAT_TTL) == (3000 if socket.get(zmq.TYPE) == zmq.XPUB else 0)
    keepalive = zmq.TCP_KEEPALIVE, zmq.TCP_KEEPALIVE_IDLE, zmq.TCP_KEEPALIVE_INTVL, zmq.TCP_KEEPALIVE_CNT
    assert [socket.get(option) for option in keepalive] == [1, 10, 10, 3]
    assert socket.get(zmq.HANDSHAKE_IVL) == 3000
    assert socket.get(zmq.BACKLOG) == 4096


def test_sockets_do_not_reconnect_in_step(context: Context) -> None:
    first, most = set(), set()
    for _ in range(30):
        with context.socket(zmq.DEALER) as socket:
            SocketOptions().apply(socket, "dealer")
            first.add(socket.get(zmq.RECONNECT_IVL))
            most.add(socket.get(zmq.RECONNECT_IVL_MAX))
    assert len(first) > 5
    assert len(most) > 5
    assert first <= set(range(50, 151))
    assert most <= set(range(500, 1001))


def test_a_dealer_queues_for_standing_connections_only(context: Context) -> None:
    with context.socket(zmq.DEALER) as socket:
        SocketOptions().apply(socket, "dealer")
        assert socket.get(zmq.IMMEDIATE) == 1
        SocketOptions(immediate=False).apply(socket, "dealer")
        assert socket.get(zmq.IMMEDIATE) == 0


def curve_options(**changes: Any) -> tuple[SocketOptions, SocketOptions]:
    """Options of a server and of a client that trusts it."""
    server_public, server_secret = zmq.curve_keypair()
    client_public, client_secret = zmq.curve_keypair()
    server = SocketOptions(
        curve_server=True, curve_public_key=server_public, curve_secret_key=server_secret, **changes
    )
    client = SocketOptions(
        curve_public_key=client_public, curve_secret_key=client_secret, curve_server_key=server_public
    )
    return server, client


def exchange(context: Context, server_options: SocketOptions, client_options: SocketOptions) -> bool:
    """Whether a message of the client arrives; a refused handshake is waited for as long as one takes."""
    with context.socket(zmq.ROUTER) as server, context.socket(zmq.DEALER) as client:
        server_options.apply(server, "router")
        client_options.apply(client, "dealer")
        client.immediate = False
        client.connect(f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}")
        client.send(b"hello")
        return bool(server.poll(300))


def test_curve_lets_in_who_knows_the_servers_key_only(context: Context) -> None:
    server, client = curve_options()
    _, stranger = curve_options()
    assert exchange(context, server, client)
    assert not exchange(context, server, stranger)
    assert not exchange(context, server, SocketOptions())


def test_an_enforced_domain_without_a_handler_admits_nobody(context: Context) -> None:
    server, client = curve_options(zap_domain=b"zloom")
    assert not exchange(context, server, client)


def test_a_secret_key_is_not_shown() -> None:
    server, _ = curve_options()
    assert server.curve_secret_key.decode() not in repr(server)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"send_hwm": 0}, "send_hwm is 0, but must be more than 0"),
        ({"linger_ms": -1}, "linger_ms is -1, but must be 0 or more"),
        ({"max_message_bytes": -1}, "max_message_bytes is -1, but must be more than 0"),
        ({"wake_seconds": 0.0}, "wake_seconds is 0.0, but must be more than 0"),
    ],
)
def test_what_libzmq_would_take_for_unlimited_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        SocketOptions(**change)


def test_options_may_be_switched_off() -> None:
    SocketOptions(keepalive_seconds=0, immediate=False, heartbeat_interval_ms=0, outbox_limit=0)


def test_a_context_has_the_sockets_that_were_asked_for() -> None:
    context = new_context(max_sockets=2500, io_threads=2)
    assert context.get(zmq.MAX_SOCKETS) == 2500
    assert context.get(zmq.IO_THREADS) == 2
    context.term()


def test_a_context_without_sockets_is_refused() -> None:
    with pytest.raises(TransportError, match="cannot make a context with 0 sockets"):
        new_context(max_sockets=0)
