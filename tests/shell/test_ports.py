"""The broker's two sockets: where they are bound, and updates bound anew."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from tests.support import DEADLINE, free_endpoint
from zloom.errors import TransportError
from zloom.socket_options import Context, new_context
from zloom.sockets import DrainSocket
from zloom_broker.ports import Ports, Takers


@pytest.fixture
def context() -> Iterator[Context]:
    made = new_context()
    yield made
    made.destroy(linger=0)


class Heard:
    """What came on a port, one after the other."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[list[bytes]] = asyncio.Queue()

    async def next(self) -> list[bytes]:
        async with asyncio.timeout(DEADLINE):
            return await self.queue.get()


def ports(context: Context, updates: Heard | None = None) -> Ports:
    """Return ports that need no keys."""
    heard = updates or Heard()
    return Ports(context, Takers(lambda _: None, lambda _: None, heard.queue.put_nowait), None)


async def test_pairs_are_told_in_the_order_in_which_they_were_named(context: Context) -> None:
    made = ports(context)
    with free_endpoint("ipc") as ipc:
        tcp, other = made.bind(("tcp://127.0.0.1:*", ipc))  # what needs no keys is bound first
    assert tcp.control.startswith("tcp://127.0.0.1:")
    assert tcp.updates.startswith("tcp://127.0.0.1:")
    assert tcp.control != tcp.updates
    assert (other.control, other.updates) == (ipc, f"{ipc}.updates")
    made.close(0)


async def test_updates_that_cannot_be_bound_name_the_control_that_they_go_with(context: Context) -> None:
    made = ports(context)
    with free_endpoint("ipc") as ipc:
        os.mkdir(f"{ipc.removeprefix('ipc://')}.updates")
        with pytest.raises(TransportError, match=f"is not a socket.*updates of {ipc}, which go beside it"):
            made.bind((ipc,))
    made.close(0)


async def test_whoever_is_cut_off_comes_back_to_the_same_place_and_subscribes_again(context: Context) -> None:
    subscriptions, publications = Heard(), Heard()
    made = ports(context, subscriptions)
    (pair,) = made.bind(("tcp://127.0.0.1:*",))
    peer = DrainSocket(context, "sub", publications.queue.put_nowait)
    peer.connect(pair.updates)
    peer.subscribe(b"beat/")
    assert await subscriptions.next() == [b"\1beat/"]
    made.publish(b"beat/", b"1")
    assert await publications.next() == [b"beat/", b"1"]
    before = made.subscriber()
    made.cut_off()
    assert before.closed
    assert await subscriptions.next() == [b"\1beat/"]  # over the new socket, at the same port
    assert made.subscriber() is not before
    made.publish(b"beat/", b"2")
    assert await publications.next() == [b"beat/", b"2"]
    assert (made.updates.sent, made.updates.received) == (2, 2)  # of both sockets
    peer.close()
    made.close(0)


async def test_updates_come_back_where_there_was_no_socket_to_be_had(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ports(context)
    made.bind(("tcp://127.0.0.1:*",))

    def none_left(*_: object, **__: object) -> DrainSocket:
        raise TransportError("cannot make a socket: Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("zloom_broker.ports.DrainSocket", none_left)
        made.cut_off()
    assert made.subscriber().closed
    async with asyncio.timeout(DEADLINE):
        while made.subscriber().closed:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    made.close(0)


async def test_what_is_published_while_nobody_can_be_reached_is_counted(context: Context) -> None:
    made = ports(context)
    made.bind(("tcp://127.0.0.1:*",))
    made.close(0)
    made.publish(b"beat/", b"1")
    assert made.unpublished == 1
