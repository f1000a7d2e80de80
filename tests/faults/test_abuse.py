"""Misuse of a broker's two ports: nobody else notices, nothing grows, and who can be told is told."""

import asyncio
import contextlib
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq

from tests.faults.oracles import (
    assert_consecutive,
    assert_kept,
    assert_once,
    assert_served,
    counters,
    cpu_seconds,
    descriptors,
    memory,
    needs_proc,
    round_trips,
    until,
    whole_history,
)
from tests.faults.table import Tally
from tests.shell.scripted_peer import Peer, connected, replica
from tests.support import DEADLINE, BrokerProcess, broker_process, free_endpoint
from zloom import codec
from zloom import messages as m
from zloom.socket_options import new_context

pytestmark = [needs_proc, pytest.mark.alone]

MIB = 1024 * 1024
MILLION_DELAY = 1.0
"""Seconds of p99 while a peer makes a million subscriptions."""

_numbers = itertools.count()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with broker_process(tmp_path_factory.mktemp("abuse") / "data", "tcp://127.0.0.1:*") as broker:
        yield broker


@dataclass
class Scene:
    """A broker, with peers that do nothing wrong.

    Attributes:
        broker: Its process.
        operator: In step, and the one whose round trips are measured.
        weavelet: Of run `run`.
        calm: Its p99 before the misuse, in seconds.
    """

    broker: BrokerProcess
    operator: Peer
    weavelet: Peer
    calm: float = 0.0

    @property
    def pid(self) -> int:
        return self.broker.process.pid

    async def still_works(self) -> None:
        """A change goes through, from an operator to the weavelet."""
        request = f"works-{next(_numbers)}"
        changes: m.SetConfig = m.SetConfig(id=request, run="run", changes={"learning_rate": 0.5}, mode="next")
        state = await self.operator.ask(changes)
        assert isinstance(state, m.RevisionState), state
        await self.weavelet.until(
            lambda peer: any(
                isinstance(each, m.Revised) and each.revision.revision == state.revision
                for each in peer.updates
            )
        )


@contextlib.asynccontextmanager
async def scene(broker: BrokerProcess, *, measured: bool = True) -> AsyncIterator[Scene]:
    context = new_context()
    try:
        with (
            connected(context, broker.endpoint) as operator,
            connected(context, broker.endpoint) as weavelet,
        ):
            await operator.hello()
            number = next(_numbers)
            name = f"healthy-{number}"
            await weavelet.hello(replica(name, number % 8))
            here = Scene(broker, operator, weavelet)
            if measured:
                here.calm = await round_trips(operator)
            yield here
            weavelet.send(m.Goodbye())
            await operator.until(lambda peer: has_left(peer, name))  # its rank is free for the next
    finally:
        context.destroy(linger=200)


def has_left(peer: Peer, name: str) -> bool:
    told = [each.event for each in peer.updates if isinstance(each, m.Happened)]
    return any(event.kind in ("finished", "lost") and name in event.replicas for event in told)


@contextlib.asynccontextmanager
async def abuse(mode: str, here: Scene, number: int = 0) -> AsyncIterator["asyncio.Future[int]"]:
    """Run the abuser as long as the block lasts; the future is what it counted."""
    command = [sys.executable, "-m", "tests.faults.abuser", mode]
    endpoints = here.broker.endpoint, here.broker.updates
    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, *endpoints, str(number), stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        counted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        yield counted
        process.stdin.close()
        counted.set_result(int(await process.stdout.readline()))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.fault("abuse: garbage, cut-off frames and lengths of 2^63 on both ports")
async def test_garbage_on_both_ports(broker: BrokerProcess, tally: Tally, long_form: bool) -> None:
    async with scene(broker) as here:
        before, files = memory(here.pid), descriptors(here.pid)
        async with abuse("garbage", here) as connections:
            for _ in range(10 if long_form else 1):
                assert_served(here.calm, await round_trips(here.operator), alone=long_form)
                tally.held("served")
        await here.still_works()
        await until(lambda: descriptors(here.pid) <= files + 4, "the broker closes what was opened")
        assert memory(here.pid) - before < 64 * MIB
        tally.held("bounded", connections.result())
    assert "Traceback" not in broker.log.read_text()


@pytest.mark.fault("abuse: connections that never shake hands")
async def test_connections_that_never_shake_hands(
    broker: BrokerProcess, tally: Tally, long_form: bool
) -> None:
    number = 1000 if long_form else 200
    async with scene(broker) as here:
        before, files = memory(here.pid), descriptors(here.pid)
        async with abuse("silence", here, number) as closed:
            assert_served(here.calm, await round_trips(here.operator), alone=long_form)
            tally.held("served")
            await here.still_works()
            await until(lambda: descriptors(here.pid) <= files + 4, "all are given up, 3 s each", 10.0)
        assert closed.result() == number
        tally.held("detected", number)
        assert memory(here.pid) - before < 64 * MIB
        tally.held("bounded")


@pytest.mark.fault("abuse: requests as fast as they go, and no answer read")
async def test_a_flood_of_requests(broker: BrokerProcess, tally: Tally, long_form: bool) -> None:
    async with scene(broker) as here:
        before, counted = memory(here.pid), (await counters(here.operator))["dropped_for_credit"]
        async with abuse("flood", here) as sent:
            for _ in range(5 if long_form else 1):
                assert_served(here.calm, await round_trips(here.operator, 100), alone=long_form)
                tally.held("served")
        await here.still_works()
        assert memory(here.pid) - before < 128 * MIB
        tally.held("bounded", sent.result())
        assert (await counters(here.operator))["dropped_for_credit"] > counted
        tally.held("counted")


@pytest.mark.fault("abuse: a great many subscriptions of one peer")
async def test_a_great_many_subscriptions(broker: BrokerProcess, tally: Tally, long_form: bool) -> None:
    """A million delay others by more than the factor of 3: libzmq takes in all that are there in one go."""
    number = 1_000_000 if long_form else 50_000
    async with scene(broker) as here:
        before = memory(here.pid)
        async with abuse("subscriptions", here, number):
            slowest = await round_trips(here.operator, 200)
            if long_form:
                assert slowest < MILLION_DELAY
            else:
                assert_served(here.calm, slowest, alone=False)
                tally.held("served")
            await here.still_works()
            assert memory(here.pid) - before < 32 * MIB + number * 600
            tally.held("bounded", number)


@pytest.mark.fault("abuse: a subscriber that stops reading")
async def test_a_subscriber_that_stops_reading(broker: BrokerProcess, tally: Tally, long_form: bool) -> None:
    number = 20_000 if long_form else 3_000
    async with scene(broker) as here:
        before = memory(here.pid)
        here.weavelet.watch(first_welcome(here.weavelet), b"own/net/")
        await here.still_works()
        async with abuse("deaf", here):
            for seq in range(1, number + 1):
                here.operator.send(m.Publish(topic="net/", payload=bytes(1000), seq=seq))
                if seq % 100 == 0:
                    await here.operator.ask(m.GetRuns(id=f"turn-{next(_numbers)}"))
            await here.weavelet.until(lambda peer: any(seq_of(each) == number for each in peer.updates))
            heard = [seq_of(each) for each in here.weavelet.updates if isinstance(each, m.Own)]
            assert heard == list(range(1, number + 1))
            tally.held("served", number)
            assert memory(here.pid) - before < 64 * MIB
            tally.held("bounded")


def seq_of(message: object) -> int:
    return message.sender_seq if isinstance(message, m.Own) else 0


def first_welcome(peer: Peer) -> m.Welcome:
    return next(each for each in peer.inbox if isinstance(each, m.Welcome))


# --- being told ------------------------------------------------------------------------------------


@pytest.mark.fault("abuse: a wrong protocol version, wrong frames, unknown types, bombs")
async def test_what_is_wrong_is_told(broker: BrokerProcess, tally: Tally) -> None:
    newer = m.Hello(protocols=[2, 3], role="operator", user="future")
    magic = codec.MAGIC
    wrong: list[tuple[list[bytes], str, str]] = [
        (codec.control_frames(newer), "protocol_version", "speaks protocol 1, the hello offers 2, 3"),
        ([magic], "bad_message", "1 frames; expected two"),
        ([magic, b"", b""], "bad_message", "3 frames; expected two"),
        ([b"GET / HTTP/1.1", b"\x80"], "bad_message", "the first being b'zloom'"),
        ([magic, b"\x81\xa4type\xa5dance"], "unknown_type", "'dance'"),
        ([magic, b"\x81\xa4type\xa4pong"], "bad_message", "missing required field"),
        ([magic, b"\x91" * 100_000], "bad_message", "not a message"),
        ([magic, b"\xdf\xff\xff\xff\xff"], "bad_message", "not a message"),
        ([magic, codec.encode(newer)[:-1]], "bad_message", "truncated"),
    ]
    async with scene(broker, measured=False) as here:
        for frames, code, text in wrong:
            with connected(here.operator.context, broker.endpoint) as stranger:
                stranger.send_frames(*frames)
                error = await stranger.get(m.Error)
                assert error.code == code
                assert text in error.text
                tally.held("told")
        await here.still_works()
        counted = await counters(here.operator)
        assert counted["bad_message"] >= 7
        assert counted["unknown_type"] >= 1
        tally.held("counted", len(wrong))


@pytest.mark.fault("abuse: somebody else's routing id")
async def test_a_routing_id_is_not_hijacked(broker: BrokerProcess, tally: Tally) -> None:
    """The second to claim one is shut out; the first gets its answers, and all of them."""
    with zmq.Context() as context:
        sockets = [context.socket(zmq.DEALER) for _ in range(2)]
        try:
            for dealer in sockets:
                dealer.set(zmq.LINGER, 0)
                dealer.set(zmq.ROUTING_ID, b"the same")
                dealer.set(zmq.RCVTIMEO, int(DEADLINE * 1000))
            first, second = sockets
            first.connect(broker.endpoint)
            hello = m.Hello(protocols=[1], role="operator", user="alice", endpoint=broker.endpoint)
            first.send_multipart(codec.control_frames(hello))
            assert b"welcome" in (await asyncio.to_thread(first.recv_multipart))[1]
            second.connect(broker.endpoint)
            second.send_multipart(codec.control_frames(hello))
            for number in range(20):
                first.send_multipart(codec.control_frames(m.GetRuns(id=f"mine-{number}")))
                while f"mine-{number}".encode() not in (await asyncio.to_thread(first.recv_multipart))[1]:
                    pass  # a ping
                tally.held("served")
            assert second.poll(0) == 0
        finally:
            for dealer in sockets:
                dealer.close()


@pytest.mark.fault("abuse: requests replayed, also by others and after a restart")
async def test_replayed_requests(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    number = 500 if long_form else 50
    requests = [
        m.SetConfig(id=f"q{each}", run="run", changes={"learning_rate": 1 / (each + 1)}, mode="next")
        for each in range(number)
    ]
    accepted: dict[str, int] = {}
    with free_endpoint("ipc") as endpoint:
        for life in range(3):
            with broker_process(tmp_path / "data", endpoint) as broker:
                async with scene(broker, measured=False) as here:
                    with connected(here.operator.context, endpoint) as thief:
                        await thief.hello(user="alice")
                        for request in requests:
                            for peer in (here.operator, thief):
                                state = await peer.ask(request)
                                assert accepted.setdefault(request.id, state.revision) == state.revision
                                assert state.duplicate == (life > 0 or peer is thief)
                                tally.held("once")
                    entries = await whole_history(here.operator)
                    assert_kept(entries, accepted)
                    assert_once(entries)
                    assert_consecutive(entries)
                    tally.held("kept", len(accepted))
                    tally.held("consecutive", len(entries))


# --- descriptors -----------------------------------------------------------------------------------

FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
"""


@pytest.mark.fault("abuse: more peers than a limit of 64 descriptors allows")
async def test_a_limit_of_64_descriptors(tmp_path: Path, tally: Tally, long_form: bool) -> None:
    """Those who are there are served; those who find no room come in when it is there again."""
    with broker_process(tmp_path / "data", "tcp://127.0.0.1:*", prelude=FEW_FILES) as broker:
        async with scene(broker) as here:
            context = new_context()
            try:
                crowd = [Peer(context, broker.endpoint) for _ in range(80)]
                await until(lambda: descriptors(here.pid) >= 64, "the broker has no descriptor left")
                before = cpu_seconds(here.pid)
                assert_served(here.calm, await round_trips(here.operator), alone=long_form)
                await here.still_works()
                tally.held("served")
                spent = cpu_seconds(here.pid) - before
                print(f"cpu seconds at the limit: {spent}")
                for peer in crowd:
                    peer.close()
            finally:
                context.destroy(linger=0)
            await until(lambda: descriptors(here.pid) < 50, "descriptors are free again")
            with connected(here.operator.context, broker.endpoint) as late:
                await late.hello()
            tally.held("bounded")
