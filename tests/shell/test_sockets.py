"""The drain loop on real sockets: tcp, ipc and inproc."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import signal
import socket as stdlib_socket
import stat
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import zmq

from zloom.errors import TransportError
from zloom.socket_options import Context, SocketOptions, new_context
from zloom.sockets import DrainSocket

DEADLINE = 20.0
DEEP = SocketOptions(send_hwm=20_000, receive_hwm=20_000)

_names = itertools.count()


class Inbox:
    """Keeps what arrives and lets a test wait for the nth message."""

    def __init__(self) -> None:
        self.messages: list[list[bytes]] = []
        self._changed = asyncio.Event()

    def __call__(self, frames: list[bytes]) -> None:
        self.messages.append(frames)
        self._changed.set()

    async def until(self, count: int) -> list[list[bytes]]:
        async with asyncio.timeout(DEADLINE):
            while len(self.messages) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.messages


class Pair:
    """A router and a dealer that have exchanged one message each way."""

    def __init__(self, context: Context, options: SocketOptions) -> None:
        self.router_inbox = Inbox()
        self.dealer_inbox = Inbox()
        self.router = DrainSocket(context, "router", self.router_inbox, options=options)
        self.dealer = DrainSocket(context, "dealer", self.dealer_inbox, options=options)
        self.peer = b""

    async def meet(self, endpoint: str) -> None:
        self.dealer.connect(self.router.bind(endpoint))
        self.dealer.send([b"hello"])
        self.peer = (await self.router_inbox.until(1))[0][0]
        await self.to_dealer(b"welcome")
        self.router_inbox.messages.clear()
        self.dealer_inbox.messages.clear()

    async def to_dealer(self, payload: bytes) -> None:
        count = len(self.dealer_inbox.messages)
        assert self.router.send([self.peer, payload])
        assert (await self.dealer_inbox.until(count + 1))[-1] == [payload]

    async def to_router(self, payload: bytes) -> None:
        count = len(self.router_inbox.messages)
        assert self.dealer.send([payload])
        assert (await self.router_inbox.until(count + 1))[-1] == [self.peer, payload]


@pytest.fixture
def context() -> Iterator[Context]:
    context = new_context()
    yield context
    context.destroy(linger=0)  # and not term, which would wait for the sockets of a test that failed


@pytest.fixture(params=["tcp", "ipc", "inproc"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return make_endpoint(request.param, tmp_path)


@pytest.fixture(params=["tcp", "ipc"])
def remote_endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Without inproc, which has neither connections nor IMMEDIATE."""
    return make_endpoint(request.param, tmp_path)


def make_endpoint(transport: str, folder: Path) -> str:
    name = f"s{next(_names)}"
    return {"tcp": "tcp://127.0.0.1:0", "ipc": f"ipc://{folder}/{name}", "inproc": f"inproc://{name}"}[
        transport
    ]


@contextlib.asynccontextmanager
async def joined(
    context: Context, endpoint: str, options: SocketOptions | None = None
) -> AsyncIterator[Pair]:
    pair = Pair(context, options or SocketOptions())
    try:
        await pair.meet(endpoint)
        yield pair
    finally:
        pair.dealer.close()
        pair.router.close()


def free_port() -> int:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_burst_then_idle_then_one_message(context: Context, endpoint: str) -> None:
    async def main() -> None:
        async with joined(context, endpoint, DEEP) as pair:
            for _ in range(3):
                for number in range(3000):  # many times the budget of one wake
                    assert pair.dealer.send([b"%d" % number])
                    assert pair.router.send([pair.peer, b"%d" % number])
                await pair.router_inbox.until(3000)
                await pair.dealer_inbox.until(3000)
                await asyncio.sleep(0.1)  # not to wait for anything: the silence is what is tested
                await pair.to_router(b"after")
                await asyncio.sleep(0.02)
                await pair.to_dealer(b"after")
                pair.router_inbox.messages.clear()
                pair.dealer_inbox.messages.clear()

    asyncio.run(main())


async def send_all(socket: DrainSocket, prefix: list[bytes], count: int) -> None:
    for number in range(count):
        while not socket.send([*prefix, b"%d" % number]):  # noqa: ASYNC110 - room in the outbox is no event
            await asyncio.sleep(0.001)
        if number % 100 == 99:
            await asyncio.sleep(0)


async def count_turns(period: float, stop: asyncio.Event) -> int:
    turns = 0
    while not stop.is_set():
        await asyncio.sleep(period)
        turns += 1
    return turns


def test_100_000_messages_each_way_without_loss_and_without_starving_a_timer(
    context: Context, endpoint: str
) -> None:
    count = 100_000
    expected = [b"%d" % number for number in range(count)]
    arrived = threading.Event()

    async def dealer(address: str) -> list[bytes]:
        inbox = Inbox()
        socket = DrainSocket(context, "dealer", inbox)
        try:
            socket.connect(address)
            await send_all(socket, [], count)
            received = [frames[0] for frames in await inbox.until(count)]
            # What the system still holds for a router that lags would end with the connection.
            await asyncio.to_thread(arrived.wait, DEADLINE)
            return received
        finally:
            socket.close()

    async def router() -> None:
        inbox = Inbox()
        socket = DrainSocket(context, "router", inbox)
        stop = asyncio.Event()
        try:
            # The dealer has its own thread and loop, so that it sends while the router reads.
            other = asyncio.create_task(asyncio.to_thread(asyncio.run, dealer(socket.bind(endpoint))))
            turns = asyncio.create_task(count_turns(0.01, stop))
            peer = (await inbox.until(1))[0][0]
            await send_all(socket, [peer], count)
            await inbox.until(count)
            arrived.set()
            assert await other == expected
            assert [frames[1] for frames in inbox.messages] == expected
            stop.set()
            # A starved timer has its turn when all is over; this one has hundreds, on any machine.
            assert await turns > 20
        finally:
            socket.close()

    asyncio.run(router())


_HOLD_THE_GIL = """
import asyncio, ctypes, sys
from zloom.socket_options import SocketOptions, new_context
from zloom.sockets import DrainSocket

async def main():
    received, all_here = [], asyncio.Event()
    def take(frames):
        received.append(frames[1])
        if frames[1] == b"last": all_here.set()
    options = SocketOptions(heartbeat_interval_ms=100, heartbeat_timeout_ms=300, heartbeat_ttl_ms=300)
    sub = DrainSocket(new_context(), "sub", take, options=options)
    sub.connect(sys.argv[1])
    sub.subscribe(b"topic")
    while not received:
        await asyncio.sleep(0.01)
    ctypes.PyDLL(None).sleep(2)  # PyDLL keeps the GIL during the call
    async with asyncio.timeout(20):
        await all_here.wait()
    print(len(set(received)))

asyncio.run(main())
"""


@pytest.mark.fault("trainer: a flood while it holds the GIL", "detected")
def test_g10_a_flood_while_the_gil_is_held_is_neither_lost_nor_fatal(context: Context) -> None:
    """At its high-water mark a sub would stop reading, lose its connection, and abort the process."""
    flood = [b"%d" % number for number in range(20_000)]

    async def main() -> bytes:
        wanted = asyncio.Event()
        xpub = DrainSocket(
            context, "xpub", lambda frames: wanted.set(), options=SocketOptions(send_hwm=30_000)
        )
        try:
            address = xpub.bind("tcp://127.0.0.1:*")
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _HOLD_THE_GIL, address, stdout=asyncio.subprocess.PIPE
            )
            async with asyncio.timeout(DEADLINE):
                await wanted.wait()
                for number in flood:
                    xpub.send([b"topic", number])
                    await asyncio.sleep(0)
                xpub.send([b"topic", b"last"])
                out, _ = await child.communicate()
            assert child.returncode == 0
            return out
        finally:
            xpub.close()

    assert int(asyncio.run(main())) == len(flood) + 1


_NOT_READING = """
import asyncio, ctypes, sys
from zloom.socket_options import SocketOptions, new_context
from zloom.sockets import DrainSocket

async def main():
    options = SocketOptions(receive_hwm=10, heartbeat_interval_ms=100)
    socket = DrainSocket(new_context(), sys.argv[1], lambda frames: None, options=options)
    print(socket.bind("tcp://127.0.0.1:*"), flush=True)
    while True:
        ctypes.PyDLL(None).usleep(700_000)  # PyDLL keeps the GIL: only libzmq's thread goes on
        await asyncio.sleep(0)

asyncio.run(main())
"""

_FLOOD_AND_DIE = """
import os, signal, sys, time, zmq
context = zmq.Context()
if sys.argv[1] == "router":
    socket = context.socket(zmq.DEALER)
    socket.sndhwm = 0
    socket.connect(sys.argv[2])
    for _ in range(5000): socket.send(bytes(1000))
else:
    socket = context.socket(zmq.SUB)
    socket.sndhwm = 0
    socket.connect(sys.argv[2])
    for number in range(5000): socket.subscribe(b"%0100d" % number)
time.sleep(0.3)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.fault("abuse: a flood of one that dies while the broker does not read", "served")
@pytest.mark.parametrize("kind", ["router", "xpub"])
def test_a_peer_that_floods_and_dies_does_not_end_the_process(kind: str) -> None:
    """libzmq aborts a process that sends heartbeats when a connection breaks while its reading is stopped."""
    victim = subprocess.Popen(
        [sys.executable, "-c", _NOT_READING, kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with victim:
        assert victim.stdout is not None
        endpoint = victim.stdout.readline().strip()
        for _ in range(3):
            command = [sys.executable, "-c", _FLOOD_AND_DIE, kind, endpoint]
            assert subprocess.run(command, check=False, timeout=DEADLINE).returncode == -signal.SIGKILL
        ended = victim.poll()
        victim.kill()
    assert ended is None


def test_a_flood_does_not_starve_the_loop(context: Context) -> None:
    """A turn ends with its budget, although messages arrive faster than the handler takes them."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        turns: list[float] = []
        received = Inbox()

        def slow_handler(frames: list[bytes]) -> None:
            received(frames)
            until = loop.time() + 0.0005
            while loop.time() < until:
                pass

        socket = DrainSocket(context, "router", slow_handler, options=DEEP)
        socket.bind("inproc://flood")
        sender = context.socket(zmq.DEALER)
        sender.sndhwm = 20_000
        sender.linger = 0
        sender.connect("inproc://flood")
        try:
            for _ in range(1000):
                sender.send(b"")
            while len(received.messages) < 1000:
                await asyncio.sleep(0)
                turns.append(len(received.messages))
        finally:
            sender.close()
            socket.close()
        assert max(after - before for before, after in itertools.pairwise([0, *turns])) <= 20

    asyncio.run(main())


def test_a_cancelled_waiter_loses_nothing(context: Context, endpoint: str) -> None:
    async def main() -> None:
        arrived: asyncio.Queue[bytes] = asyncio.Queue()
        server = DrainSocket(context, "router", lambda frames: arrived.put_nowait(frames[1]), options=DEEP)
        client = DrainSocket(context, "dealer", Inbox(), options=DEEP)
        client.connect(server.bind(endpoint))
        sending = asyncio.create_task(send_all(client, [], 1000))
        got: list[bytes] = []
        cancelled = 0
        async with asyncio.timeout(DEADLINE):
            while len(got) < 1000:
                waiter = asyncio.create_task(arrived.get())
                await asyncio.sleep(0)
                waiter.cancel()
                try:
                    got.append(await waiter)
                except asyncio.CancelledError:
                    cancelled += 1
        await sending
        client.close()
        server.close()
        assert got == [b"%d" % number for number in range(1000)]
        assert cancelled > 0

    asyncio.run(main())


def test_a_handler_that_raises_is_reported_and_the_next_message_follows(
    context: Context, endpoint: str
) -> None:
    async def main() -> None:
        reports: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        inbox = Inbox()

        def handler(frames: list[bytes]) -> None:
            inbox(frames)
            if frames[-1] == b"bad":
                raise ValueError("bad")

        server = DrainSocket(context, "router", handler)
        client = DrainSocket(context, "dealer", Inbox())
        client.connect(server.bind(endpoint))
        for payload in (b"bad", b"good"):
            client.send([payload])
        assert [frames[-1] for frames in await inbox.until(2)] == [b"bad", b"good"]
        assert [repr(report["exception"]) for report in reports] == ["ValueError('bad')"]
        assert str(reports[0]["message"]).endswith(": the handler of a message raised")
        client.close()
        server.close()

    asyncio.run(main())


def test_an_outbox_is_bounded_counted_and_sent_in_order(context: Context, remote_endpoint: str) -> None:
    async def main() -> None:
        endpoint = remote_endpoint.replace(":0", f":{free_port()}")
        inbox = Inbox()
        client = DrainSocket(context, "dealer", Inbox(), options=SocketOptions(outbox_limit=3))
        client.connect(endpoint)
        assert [client.send([b"%d" % number]) for number in range(5)] == [True] * 3 + [False] * 2
        assert (client.counters.sent, client.counters.outbox_len, client.counters.outbox_dropped) == (0, 3, 2)
        server = DrainSocket(context, "router", inbox)
        server.bind(endpoint)
        assert [frames[1] for frames in await inbox.until(3)] == [b"0", b"1", b"2"]
        assert (client.counters.sent, client.counters.outbox_len) == (3, 0)
        assert server.counters.received == 3
        client.close()
        server.close()

    asyncio.run(main())


def test_what_is_still_held_at_close_is_counted_as_dropped(context: Context) -> None:
    async def main() -> None:
        client = DrainSocket(context, "dealer", Inbox())
        client.connect(f"tcp://127.0.0.1:{free_port()}")
        assert client.send([b"unsent"])
        client.close()
        assert (client.counters.outbox_len, client.counters.outbox_dropped) == (0, 1)
        assert client.closed
        with pytest.raises(TransportError, match="is closed; open a new one"):
            client.send([b"more"])

    asyncio.run(main())


def test_a_closed_socket_needs_no_search_for_garbage(context: Context) -> None:
    """Trainings often run without one, and a weavelet makes its sockets anew at each reconnection."""

    async def main() -> tuple[weakref.ref[DrainSocket], weakref.ref[Inbox]]:
        inbox = Inbox()
        socket = DrainSocket(context, "dealer", inbox, on_unroutable=inbox)
        socket.bind("inproc://gone")
        await asyncio.sleep(0)  # a turn of the socket
        socket.close()
        return weakref.ref(socket), weakref.ref(inbox)

    collects = gc.isenabled()
    gc.disable()
    try:
        socket, inbox = asyncio.run(main())
        assert (socket(), inbox()) == (None, None)
    finally:
        if collects:
            gc.enable()


def test_what_is_held_is_sent_while_others_never_cease_to_send(context: Context) -> None:
    async def main() -> None:
        ceased = False

        def answer(frames: list[bytes]) -> None:
            inbox(frames)
            if frames[1] == b"more" and not ceased:
                busy.send(b"more")

        inbox = Inbox()
        server = DrainSocket(context, "router", answer, options=SocketOptions(send_hwm=1, receive_hwm=5000))
        server.bind("inproc://busy")
        slow, busy = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
        slow.set(zmq.RCVHWM, 1)
        for each in slow, busy:
            each.connect("inproc://busy")
        slow.send(b"slow")
        slow_id = (await inbox.until(1))[0][0]
        sent = [b"%d" % number for number in range(30)]
        assert all(server.send([slow_id, payload]) for payload in sent)
        for _ in range(1000):  # several turns of the server always wait to be read
            busy.send(b"more")

        got: list[bytes] = []
        async with asyncio.timeout(DEADLINE):
            while len(got) < len(sent):
                with contextlib.suppress(zmq.Again):
                    got.append(slow.recv(zmq.DONTWAIT))
                await asyncio.sleep(0)
        ceased = True
        assert got == sent
        for each in slow, busy:
            each.close(0)
        server.close()

    asyncio.run(main())


@pytest.mark.fault("network: a peer whose queue is full", "served")
def test_a_peer_whose_queue_is_full_holds_up_nobody_else(context: Context) -> None:
    async def main() -> None:
        inbox = Inbox()
        server = DrainSocket(context, "router", inbox, options=SocketOptions(send_hwm=1, outbox_limit=50))
        server.bind("inproc://lanes")
        slow = context.socket(zmq.DEALER)  # not drained until told to
        slow.set(zmq.RCVHWM, 1)
        slow.connect("inproc://lanes")
        slow.send(b"slow")
        slow_id = (await inbox.until(1))[0][0]
        sent = [b"%d" % number for number in range(30)]
        assert all(server.send([slow_id, payload]) for payload in sent)
        assert server.counters.outbox_len > 20

        got = [slow.recv(), slow.recv()]  # now there is room, but a new message must not overtake
        slow.poll(5)
        sent.append(b"last")
        assert server.send([slow_id, b"last"])

        quick_inbox = Inbox()
        quick = DrainSocket(context, "dealer", quick_inbox)
        quick.connect("inproc://lanes")
        quick.send([b"quick"])
        quick_id = (await inbox.until(2))[1][0]
        assert server.send([quick_id, b"at once"])
        assert await quick_inbox.until(1) == [[b"at once"]]

        async with asyncio.timeout(DEADLINE):
            while len(got) < len(sent):
                with contextlib.suppress(zmq.Again):
                    got.append(slow.recv(zmq.DONTWAIT))
                await asyncio.sleep(0)
        assert got == sent
        assert server.counters.outbox_len == 0
        slow.close(0)
        quick.close()
        server.close()

    asyncio.run(main())


def test_an_unroutable_message_comes_back_and_not_from_inside_send(context: Context) -> None:
    async def main() -> None:
        lost = Inbox()
        server = DrainSocket(context, "router", Inbox(), on_unroutable=lost)
        server.bind("tcp://127.0.0.1:0")
        assert not server.send([b"nobody", b"hello"])
        assert lost.messages == []
        assert await lost.until(1) == [[b"nobody", b"hello"]]
        assert (server.counters.unroutable, server.counters.sent) == (1, 0)
        server.close()

    asyncio.run(main())


def test_updates_reach_subscribers_and_the_publisher_sees_subscriptions(
    context: Context, endpoint: str
) -> None:
    async def main() -> None:
        subscriptions, updates = Inbox(), Inbox()
        publisher = DrainSocket(context, "xpub", subscriptions)
        subscriber = DrainSocket(context, "sub", updates)
        subscriber.connect(publisher.bind(endpoint))
        subscriber.subscribe(b"run/a/")
        assert await subscriptions.until(1) == [[b"\x01run/a/"]]
        for topic in (b"run/ab/", b"run/a/"):
            publisher.send([topic, b"payload"])
        assert await updates.until(1) == [[b"run/a/", b"payload"]]
        subscriber.unsubscribe(b"run/a/")
        assert (await subscriptions.until(2))[1] == [b"\x00run/a/"]
        with pytest.raises(TransportError, match="this kind of socket cannot do that"):
            subscriber.send([b"no"])
        subscriber.close()
        publisher.close()

    asyncio.run(main())


def test_disconnect_ends_delivery(context: Context) -> None:
    async def main() -> None:
        server = DrainSocket(context, "router", Inbox())
        client = DrainSocket(context, "dealer", Inbox(), options=SocketOptions(outbox_limit=0))
        endpoint = server.bind("tcp://127.0.0.1:0")
        client.connect(endpoint)
        client.disconnect(endpoint)
        async with asyncio.timeout(DEADLINE):
            while client.send([b"nowhere"]):  # noqa: ASYNC110 - libzmq ends the connection in its own thread
                await asyncio.sleep(0.001)
        assert client.counters.outbox_dropped == 1
        client.close()
        server.close()

    asyncio.run(main())


def test_one_socket_binds_several_endpoints(context: Context, tmp_path: Path) -> None:
    async def main() -> None:
        inbox = Inbox()
        server = DrainSocket(context, "router", inbox)
        endpoints = [server.bind(make_endpoint(kind, tmp_path)) for kind in ("ipc", "tcp", "ipc", "inproc")]
        clients = [DrainSocket(context, "dealer", Inbox()) for _ in endpoints]
        for client, endpoint in zip(clients, endpoints, strict=True):
            client.connect(endpoint)
            client.send([endpoint.encode()])
        await inbox.until(len(endpoints))
        assert {frames[1].decode() for frames in inbox.messages} == set(endpoints)
        for socket in (*clients, server):
            socket.close()

    asyncio.run(main())


def test_a_context_terminated_under_a_socket_closes_it_and_says_so() -> None:
    async def main() -> None:
        reported = asyncio.Event()
        reports: list[dict[str, object]] = []

        def on_report(_: asyncio.AbstractEventLoop, report: dict[str, object]) -> None:
            reports.append(report)
            reported.set()

        asyncio.get_running_loop().set_exception_handler(on_report)
        context = new_context()
        socket = DrainSocket(context, "router", Inbox())
        async with asyncio.timeout(DEADLINE):
            await asyncio.to_thread(context.term)  # returns because the socket closes itself
            await reported.wait()
        assert socket.closed
        assert "the context was terminated" in str(reports[0]["exception"])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda socket: socket.connect("tcp://127.0.0.1"), "connect to .*: expected tcp://HOST:PORT"),
        (lambda socket: socket.connect("tcp://127.0.0.1:70000"), "the port is '70000'; .* from 1 to 65535$"),
        (lambda socket: socket.bind("tcp://127.0.0.1:-1"), "the port is '-1'; .* from 1 to 65535, or "),
    ],
)
def test_a_port_that_libzmq_would_take_for_another_is_refused(
    context: Context, use: Callable[[DrainSocket], None], text: str
) -> None:
    async def main() -> None:
        socket = DrainSocket(context, "dealer", Inbox())
        try:
            with pytest.raises(TransportError, match=text):
                use(socket)
        finally:
            socket.close()

    asyncio.run(main())


def speaks_ipv6() -> bool:
    try:
        with stdlib_socket.create_server(("::1", 0), family=stdlib_socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not speaks_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(
    ("bound", "reached"),
    [
        ("tcp://[::1]:0", "tcp://[::1]"),
        ("tcp://[::]:0", "tcp://[::1]"),
        ("tcp://[::]:0", "tcp://127.0.0.1"),
        ("tcp://127.0.0.1:0", "tcp://localhost"),
    ],
)
def test_ipv6_and_ipv4_are_reached_where_they_are_bound(context: Context, bound: str, reached: str) -> None:
    async def main() -> None:
        pair = Pair(context, SocketOptions())
        try:
            endpoint = pair.router.bind(bound)
            assert endpoint.rpartition(":")[0] == bound.rpartition(":")[0]
            pair.dealer.connect(f"{reached}:{endpoint.rpartition(':')[2]}")
            pair.dealer.send([b"hello"])
            await pair.router_inbox.until(1)
        finally:
            pair.dealer.close()
            pair.router.close()

    asyncio.run(main())


def bind_used_port(socket: DrainSocket) -> None:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as server:
        socket.bind(f"tcp://127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (bind_used_port, r"cannot bind tcp://127\.0\.0\.1:\d+: another process already listens there"),
        (lambda socket: socket.bind("tcp://192.0.2.1:0"), r"cannot bind tcp://192\.0\.2\.1:0: no .*address"),
        (lambda socket: socket.bind("tcp://nosuch0:0"), r"cannot bind tcp://nosuch0:0: no such interface"),
        (lambda socket: socket.bind("nonsense"), "cannot bind nonsense: malformed"),
        (
            lambda socket: socket.connect("nats://host:1"),
            "cannot connect to nats://host:1: unknown transport",
        ),
        (
            lambda socket: socket.connect(f"ipc:///{'x' * 200}"),
            "cannot connect to ipc:///x+: the path is too long",
        ),
        (lambda socket: socket.disconnect("tcp://127.0.0.1:9"), "cannot disconnect from tcp://127.0.0.1:9"),
        (lambda socket: socket.subscribe(b"topic"), "cannot subscribe b'topic' on a new dealer socket"),
    ],
)
def test_an_error_names_the_endpoint_and_what_to_do(
    context: Context, use: Callable[[DrainSocket], None], text: str
) -> None:
    async def main() -> None:
        socket = DrainSocket(context, "dealer", Inbox())
        try:
            with pytest.raises(TransportError, match=text) as caught:
                use(socket)
            assert isinstance(caught.value.__cause__, zmq.ZMQError)
        finally:
            socket.close()

    asyncio.run(main())


def test_another_thread_is_refused(context: Context) -> None:
    async def main() -> None:
        socket = DrainSocket(context, "dealer", Inbox())
        with pytest.raises(TransportError, match="belongs to another thread"):
            await asyncio.to_thread(socket.send, [b"x"])
        socket.close()

    asyncio.run(main())


def test_a_context_out_of_sockets_says_so() -> None:
    async def main() -> None:
        context = new_context(max_sockets=1)
        socket = DrainSocket(context, "dealer", Inbox())
        with pytest.raises(TransportError, match="too many open sockets; give new_context more"):
            DrainSocket(context, "dealer", Inbox())
        socket.close()
        context.term()

    asyncio.run(main())


# -- processes ----------------------------------------------------------------------------------------------


def in_forked_child(work: Callable[[], str]) -> str:
    """What `work` returned in a forked child that ended without running its parent's exit handlers."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = work()
        except BaseException as error:  # noqa: BLE001 - the child must not return into the test
            text = f"raised {error!r}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(pid, 0)
    return text


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_refused_and_leaves_the_parents_sockets_alive(
    context: Context, endpoint: str
) -> None:
    async def main() -> None:
        async with joined(context, endpoint) as pair:
            texts = in_forked_child(lambda: use_inherited(pair)).splitlines()
            assert len(texts) == 7
            assert all("is dead in the forked child" in text for text in texts[:6]), texts
            assert texts[6] == "kept"
            for number in range(10):
                await pair.to_router(b"%d" % number)
                await pair.to_dealer(b"%d" % number)

    asyncio.run(main())


def use_inherited(pair: Pair) -> str:
    """In the child: try everything, close, drop the last references of the test, and collect."""
    uses: list[Callable[[], object]] = [
        lambda: pair.router.send([pair.peer, b"from the child"]),
        lambda: pair.dealer.send([b"from the child"]),
        lambda: pair.dealer.connect("tcp://127.0.0.1:9"),
        lambda: pair.router.bind("tcp://127.0.0.1:0"),
        lambda: pair.dealer.disconnect("tcp://127.0.0.1:9"),
        lambda: pair.dealer.subscribe(b""),
    ]
    texts = []
    for use in uses:
        try:
            texts.append(f"allowed {use()}")
        except TransportError as error:
            texts.append(str(error))
    pair.router.close()
    pair.dealer.close()
    sockets = [weakref.ref(pair.router), weakref.ref(pair.dealer)]
    vars(pair).clear()
    gc.collect()
    texts.append("kept" if all(socket() for socket in sockets) else "collected")
    return "\n".join(texts)


LEAVES = """
import asyncio, sys
from zloom.socket_options import SocketOptions, new_context
from zloom.sockets import DrainSocket

async def main(endpoint, orderly):
    context = new_context()
    socket = DrainSocket(context, "dealer", print, options=SocketOptions(immediate=False))
    socket.connect(endpoint)
    for _ in range(1500):
        socket.send([b"x" * 1000])
    if orderly:
        socket.close()
        context.term()
    print("leaving", socket.counters.sent > 0, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2] == "orderly"))
"""


@pytest.mark.parametrize("manner", ["orderly", "forgetful"])
@pytest.mark.parametrize("peer", ["absent", "silent"])
def test_a_process_with_unsent_mail_leaves_within_two_seconds(manner: str, peer: str) -> None:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if peer == "silent" else free_port()
        arguments = [sys.executable, "-c", LEAVES, f"tcp://127.0.0.1:{port}", manner]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "leaving True\n"
            assert process.wait(timeout=2) == 0


LISTENS = """
import asyncio, sys
from zloom.socket_options import new_context
from zloom.sockets import DrainSocket

async def main(endpoint):
    server = DrainSocket(new_context(), "router", lambda frames: server.send(frames))
    print(server.bind(endpoint), flush=True)
    await asyncio.Event().wait()

asyncio.run(main(sys.argv[1]))
"""


@contextlib.contextmanager
def listener(endpoint: str) -> Iterator[subprocess.Popen[str]]:
    """A process that echoes at `endpoint`, killed at the end."""
    arguments = [sys.executable, "-c", LISTENS, endpoint]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"{endpoint}\n"
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def test_a_live_ipc_listener_is_not_robbed_and_a_killed_ones_path_is_taken_over(
    context: Context, tmp_path: Path
) -> None:
    path = tmp_path / "control.sock"
    endpoint = f"ipc://{path}"

    async def live() -> None:
        server = DrainSocket(context, "router", Inbox())
        with pytest.raises(TransportError, match=f"cannot bind {endpoint}: another process already listens"):
            server.bind(endpoint)
        inbox = Inbox()
        client = DrainSocket(context, "dealer", inbox)
        client.connect(endpoint)
        client.send([b"still there?"])
        assert await inbox.until(1) == [[b"still there?"]]
        client.close()
        server.close()

    async def killed() -> None:
        async with joined(context, endpoint) as pair:
            await pair.to_router(b"taken over")
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    with listener(endpoint):
        asyncio.run(live())
    assert path.is_socket()  # what kill -9 leaves behind
    asyncio.run(killed())
    assert not path.exists()


def test_an_ipc_path_is_free_as_soon_as_close_returns(context: Context, tmp_path: Path) -> None:
    async def main() -> None:
        for _ in range(20):
            async with joined(context, f"ipc://{tmp_path}/again") as pair:
                await pair.to_router(b"x")

    asyncio.run(main())


SHORT = """
import os, resource, sys, zmq
from zloom.errors import TransportError
from zloom.socket_options import new_context
left = int(sys.argv[1])
free = []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        free.append(os.dup(0))
except OSError:
    for each in free[:left]:
        os.close(each)
try:
    new_context().socket(zmq.DEALER).connect("tcp://127.0.0.1:1")
except TransportError as error:
    print(error, flush=True)
else:
    print("made", flush=True)
os._exit(0)
"""


def test_g8_without_descriptors_a_process_is_told_and_not_ended() -> None:
    """libzmq calls `abort` where there are a few, but not enough for its own threads."""
    told = []
    for left in range(0, 20, 2):
        done = subprocess.run(
            [sys.executable, "-c", SHORT, str(left)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, (left, done.stderr)
        told.append(done.stdout)
    assert "cannot make a context: Too many open files" in told[0]
    assert told[-1] == "made\n"
