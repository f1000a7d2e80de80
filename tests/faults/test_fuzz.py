"""The decoders and both cores against noise: no exception but ours, no growth, nothing that cannot be sent.

A seed that fails is named in the assertion, and fails again by itself.
"""

import gc
import itertools
import time
import tracemalloc
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tests.faults.noise import Noise
from tests.faults.table import Tally
from tests.unit.broker_support import fold, replica
from zloom import codec
from zloom import messages as m
from zloom.effects import Send as SessionSend
from zloom.errors import LocalProtocolError, RemoteProtocolError
from zloom.model import Outcome
from zloom.session import Session
from zloom_broker.core import Core
from zloom_broker.effects import Commit, Effect, Publish, Send
from zloom_broker.hub import CoreSettings
from zloom_broker.records import decode_image, encode
from zloom_broker.state import State

SECONDS = {False: 2.0, True: 200.0}
"""For each of the three, in the short and in the long form."""

OPERATORS, WEAVELETS, STRANGER = (b"op", b"op2"), (b"a", b"b"), b"x"
EVENTS = 150
"""In one life: enough for a change to be agreed upon, and few enough to read what led to a failure."""


def lives(long_form: bool) -> Iterator[int]:
    """Yield seeds until the time is up."""
    end = time.monotonic() + SECONDS[long_form]
    for seed in itertools.count():
        if time.monotonic() >= end:
            return
        yield seed


class NoisyBroker:
    """A core whose peers say anything, and whose disk confirms late or fails."""

    def __init__(self, seed: int) -> None:
        self.noise = Noise(seed)
        self.random = self.noise.random
        self.now = 0.0
        self.journal: list[bytes] = []
        self._begin()
        self.feed(b"a", m.Hello(protocols=[1], role="weavelet", nonce="n-a", replica=replica("a")))

    def _begin(self) -> None:
        self.waiting: deque[Commit] = deque()
        settings = CoreSettings(epoch="epoch")
        self.core = Core(fold(self.journal), settings, len(self.journal), self.now, 1000.0 + self.now)
        for peer, user in zip(OPERATORS, ("alice", "bob"), strict=True):
            self.feed(peer, m.Hello(protocols=[1], role="operator", user=user))

    def live(self) -> None:
        for _ in range(EVENTS):
            self.act()
        self.confirm(len(self.waiting))
        # As bytes, because what a peer says may hold NaN, which equals nothing.
        image = encode(self.core.state.image())
        assert image == encode(fold(self.journal).image())
        assert image == encode(State.restore(decode_image(image), self.core.state.parts()).image())
        self.core.numbers(self.now)

    def act(self) -> None:
        match self.random.choices(range(6), [80, 10, 2, 3, 1, 1])[0]:
            case 0:
                self.receive()
            case 1:
                self.advance(self.random.choice([0.1, 1.0, 1.0, 7.0]))
            case 2:
                self.carry(self.core.unroutable(self.someone(), self.now))
            case 3:
                topic = self.random.choice(
                    [b"echo/n-a/", b"echo/n-b/", b"echo//", b"echo/\xff/", b"\xff", b""]
                )
                present = self.random.random() < 0.5
                self.carry(self.core.subscription(topic, self.now, present=present))
            case 4 if self.waiting:
                failed = self.waiting[0].seq
                self.waiting.clear()
                self.carry(self.core.commit_failed(failed, "the disk is full", self.now))
            case 5:
                self._begin()  # killed: what was not confirmed is gone
        if self.random.random() < 0.7:
            self.confirm(self.random.randint(0, 3))

    def someone(self, message: m.Message | None = None) -> bytes:
        if self.random.random() < 0.1:
            return self.random.choice([*OPERATORS, *WEAVELETS, STRANGER])
        return self.random.choice(OPERATORS if isinstance(message, m.Request) else WEAVELETS)

    def receive(self) -> None:
        kind = self.random.random()
        message = self.noise.change() if kind < 0.15 else self.noise.message(m.ToBroker)
        payload = encoded(message)
        if payload is not None:
            self.hear(self.someone(message), self.noise.mutate(payload) if kind > 0.9 else payload)

    def hear(self, peer: bytes, payload: bytes) -> None:
        try:
            message = codec.to_broker.decode(payload)
        except RemoteProtocolError as error:
            self.carry(self.core.bad_message(peer, "bad_message", str(error)))
        else:
            self.feed(peer, message)

    def feed(self, peer: bytes, message: m.ToBroker) -> None:
        self.carry(self.core.receive(peer, message, self.now))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.core.next_timer()) <= end:
            self.now = max(self.now, due)
            self.carry(self.core.on_timer(self.now, 1000.0 + self.now, {}, {}))
        self.now = end

    def confirm(self, count: int) -> None:
        for _ in range(min(count, len(self.waiting))):
            self.journal += self.waiting.popleft().payloads
            self.carry(self.core.committed(len(self.journal), self.now))

    def carry(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Commit():
                    assert effect.seq == 1 + len(self.journal) + sum(len(c.payloads) for c in self.waiting)
                    self.waiting.append(effect)
                case Send() | Publish():
                    assert encoded(effect.message) is not None, f"cannot be sent: {effect}"


def encoded(message: m.Message) -> bytes | None:
    try:
        return codec.encode(message)
    except LocalProtocolError:
        return None


@pytest.mark.fault("noise at the broker's core")
def test_noise_at_the_brokers_core(tally: Tally, long_form: bool) -> None:
    for seed in lives(long_form):
        try:
            NoisyBroker(seed).live()
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        tally.held("told", EVENTS)
        tally.held("consecutive")


class NoisySession:
    """A weavelet's session whose broker says anything."""

    def __init__(self, seed: int) -> None:
        self.noise = Noise(seed)
        self.random = self.noise.random
        numbers = itertools.count(1)
        self.session = Session(replica("a"), "tcp://host:5555", "test", lambda: f"n{next(numbers)}")
        self.now = 0.0
        self.look(self.session.start(0.0))

    def live(self) -> None:
        for _ in range(EVENTS):
            self.act()
            self.now += self.random.choice([0.0, 0.01, 1.0])

    def act(self) -> None:
        match self.random.choices(range(7), [10, 40, 30, 10, 4, 3, 3])[0]:
            case 0:
                self.control(self.welcome())
            case 1:
                self.control(self.noise.message(m.FromBroker))
            case 2:
                topic = self.random.choice([b"steer/run/one/", b"beat/", b"echo/n1/", b"own/net/", b""])
                self.update(topic, self.noise.message(m.Published))
            case 3:
                self.update(b"echo/n1/", m.Echo(nonce=f"n{self.random.randint(1, 3)}"))
            case 4:
                self.look(self.session.on_timer(self.now))
            case 5:
                outcome = Outcome("a", outcome="applied", step=3)
                self.look(self.session.answer(self.random.randint(1, 5), outcome, self.now))
            case 6:
                status = m.Status(seq=0, step=self.random.randint(0, 9))
                self.look(self.session.status(status, self.now))

    def welcome(self) -> m.Welcome:
        updates, size = "tcp://*:5556", codec.MAX_MESSAGE_SIZE
        return m.Welcome(
            protocol=1, epoch="epoch", updates=updates, beat=1.0, credit=100, max_message_size=size
        )

    def control(self, message: m.FromBroker) -> None:
        payload = encoded(message)
        try:
            decoded = codec.from_broker.decode(payload or b"")
        except RemoteProtocolError:
            self.session.receive_unreadable(unknown_type=False)
        else:
            self.look(self.session.receive_control(decoded, self.now))

    def update(self, topic: bytes, message: m.Published) -> None:
        payload = encoded(message)
        try:
            decoded = codec.published.decode(payload or b"")
        except RemoteProtocolError:
            self.session.receive_unreadable(unknown_type=False, control=False)
        else:
            self.look(self.session.receive_update(topic, decoded, self.now))

    def look(self, effects: Iterable[Any]) -> None:
        for effect in effects:
            if isinstance(effect, SessionSend):
                assert encoded(effect.message) is not None, f"cannot be sent: {effect}"


@pytest.mark.fault("noise at a weavelet's session")
def test_noise_at_a_weavelets_session(tally: Tally, long_form: bool) -> None:
    for seed in lives(long_form):
        try:
            NoisySession(seed).live()
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        tally.held("told", EVENTS)


GROWTH = 64 * 1024
"""Bytes that may remain of any amount of noise: of names, of which msgspec keeps some hundreds."""

OURS = [tracemalloc.Filter(True, pattern) for pattern in ("*/zloom/*", "*/tests/faults/*")]
"""Where what counts was allocated; other threads of the tests' process are at work too."""


@pytest.mark.fault("noise at the decoders")
def test_noise_at_the_decoders(tally: Tally, long_form: bool) -> None:
    decode(0)
    tracemalloc.start()
    try:
        for seed in lives(long_form):
            decode(seed)
            tally.held("told", EVENTS)
        gc.collect()
        snapshot = tracemalloc.take_snapshot().filter_traces(OURS)
        grown = sum(trace.size for trace in snapshot.traces)
    finally:
        tracemalloc.stop()
    assert grown < GROWTH
    tally.held("bounded")


def decode(seed: int) -> None:
    noise = Noise(seed)
    for number in range(EVENTS):
        union = (m.ToBroker, m.FromBroker, m.Published)[number % 3]
        decoder = (codec.to_broker, codec.from_broker, codec.published)[number % 3]
        payload = encoded(noise.message(union)) or b""
        for data in (payload, noise.mutate(payload), noise.random.randbytes(60)):
            try:
                decoder.decode(data)
            except RemoteProtocolError as error:
                assert len(str(error)) < 400  # noqa: PT017 - any other error fails the test
