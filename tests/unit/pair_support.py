# ruff: noqa: E501
"""The real cores joined in memory, on a network and a disk that do what they are told to.

`World` holds one broker, its journal and its peers. Nothing moves by itself: a test delivers, loses and
repeats messages, has commits reach the disk and be confirmed, and lets time pass.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from tests.unit.broker_support import fold
from tests.unit.pair_network import Control, Line, Network, Updates
from zloom import codec
from zloom_broker.addresses import Addresses, Bound
from zloom_broker.core import Core
from zloom_broker.effects import Commit, Effect, Publish, Send
from zloom_broker.hub import CoreSettings
from zloom_broker.records import RevisionAccepted, decode_image, decode_record, encode
from zloom_broker.recovery import next_epoch
from zloom_broker.state import State

CONTROL = "inproc://broker"
ADDRESSES = Addresses((Bound(CONTROL, f"{CONTROL}.updates"),))

BEAT = 1.0
"""Seconds between two beats of the broker."""

WALL = 1_000_000.0
"""The wall clock at second 0 of the world."""

MAX_MOVES = 20_000
"""Messages after which peers that have nothing new to say must be silent."""


class Peer(Protocol):
    """A pure session with its shell's work."""

    line: Line

    def receive_control(self, payload: bytes) -> None:
        """Take a message from control."""

    def receive_update(self, topic: bytes, payload: bytes) -> None:
        """Take a message from updates."""

    def next_timer(self) -> float | None:
        """Return when `on_timer` wants to be called."""

    def on_timer(self) -> None:
        """Do what is due."""


class Disk:
    """A journal in memory: commits wait, are written in order, then confirmed; or they fail."""

    def __init__(self, rows: list[bytes]) -> None:
        self.rows = rows
        self.state = fold(rows)
        """What the rows tell of, whether that was confirmed or not."""
        self.waiting: deque[Commit] = deque()
        self.unconfirmed = False

    def write(self) -> list[RevisionAccepted]:
        """Write the first commit that waits; return the revisions in it."""
        commit = self.waiting.popleft()
        assert commit.seq == len(self.rows) + 1
        self.rows += commit.payloads
        self.unconfirmed = True
        records = [decode_record(payload) for payload in commit.payloads]
        for record in records:
            self.state.apply(record)
        return [record for record in records if isinstance(record, RevisionAccepted)]


class World:
    """A broker and its peers; see the module. `told` is called with each effect of the broker but commits."""

    def __init__(self, credit: int = 250) -> None:
        self.now = 0.0
        self.lives = 0
        self.network = Network()
        self.peers: list[Peer] = []
        self.told: Callable[[Effect], None] = lambda effect: None
        self.written: Callable[[RevisionAccepted], None] = lambda record: None
        self.broker: Core | None = None
        self.disk = Disk([])
        self._credit = credit
        self.start_broker()

    # --- the broker's life ----------------------------------------------------------------------

    def start_broker(self, *, from_image: bool = False) -> None:
        """Begin a life on what is on disk."""
        self.lives += 1
        record = next_epoch(self.disk.state, f"{self.lives:016x}", WALL + self.now)
        self.disk.rows.append(encode(record))
        self.disk.state.apply(record)
        state = fold(self.disk.rows)
        if from_image:
            state = State.restore(decode_image(encode(state.image())), state.parts())
        settings = CoreSettings(epoch=record.epoch, addresses=ADDRESSES, beat=BEAT, credit=self._credit)
        self.broker = Core(state, settings, len(self.disk.rows), self.now, WALL + self.now)
        self.network.listening = True
        for peer in self.peers:
            if peer.line.open:
                peer.line.found()

    def kill_broker(self) -> None:
        """End it at once; what it wrote and did not confirm stays on disk."""
        self.broker = None
        self.disk = Disk(self.disk.rows)
        self.network.gone()

    def restore_backup(self, rows: int) -> None:
        """Have a killed broker's disk hold its first rows only."""
        self.disk = Disk(self.disk.rows[:rows])

    # --- the disk -------------------------------------------------------------------------------

    def write(self, count: int) -> None:
        """Have the first waiting commits reach the disk; the broker does not know yet."""
        self._end_turn()
        for _ in range(min(count, len(self.disk.waiting))):
            for accepted in self.disk.write():
                self.written(accepted)

    def confirm(self) -> None:
        """Tell the broker what reached the disk."""
        if self.broker is not None and self.disk.unconfirmed:
            self.disk.unconfirmed = False
            self.carry_out(self.broker.committed(len(self.disk.rows), self.now))

    def _end_turn(self) -> None:
        """End the broker's turn: before the disk can have what came in it, and else at any time."""
        if self.broker is not None:
            self.carry_out(self.broker.end_turn())

    def fail_commits(self) -> None:
        """Have the waiting commits fail."""
        self.confirm()
        if self.broker is not None and self.disk.waiting:
            seq = self.disk.waiting[0].seq
            self.disk.waiting.clear()
            self.carry_out(self.broker.commit_failed(seq, "disk full", self.now))

    # --- the network ----------------------------------------------------------------------------

    def receive(self, control: Control) -> None:
        """Let the broker receive the first message of a connection."""
        frames = control.up.popleft()
        if self.broker is not None:
            message = codec.to_broker.decode(codec.control_payload(frames))
            self.carry_out(self.broker.receive(control.identity, message, self.now))

    def receive_subscription(self, updates: Updates) -> None:
        """Let the broker's socket receive the first subscription; it tells of the first and last of a topic."""
        topic, present = updates.up.popleft()
        before = self.network.is_subscribed(topic)
        (updates.arrived.add if present else updates.arrived.discard)(topic)
        if self.network.is_subscribed(topic) is not before:
            self._tell_subscription(topic, present=present)

    def notice_cuts(self) -> None:
        """Let the broker's sockets see which connections are gone."""
        for topic in list(self.network.notice_cuts()):
            self._tell_subscription(topic, present=False)

    def _tell_subscription(self, topic: bytes, *, present: bool) -> None:
        if self.broker is not None:
            self.carry_out(self.broker.subscription(topic, self.now, present=present))

    @staticmethod
    def deliver(peer: Peer) -> None:
        """Let a peer receive the first message from control."""
        peer.receive_control(codec.control_payload(peer.line.control.down.popleft()))

    @staticmethod
    def deliver_update(peer: Peer) -> None:
        """Let a peer receive the first publication."""
        if peer.line.updates is not None:
            peer.receive_update(*peer.line.updates.down.popleft())

    def deliveries(self) -> list[Callable[[], None]]:
        """Return one call for each direction of each connection in which something is on its way."""
        ups = [lambda up=up: self.receive(up) for up in self.network.uplinks()]
        subscriptions = [lambda up=up: self.receive_subscription(up) for up in self.network.subscribing()]
        downs = [lambda peer=peer: self.deliver(peer) for peer in self.peers if peer.line.control.down]
        updates = [
            lambda peer=peer: self.deliver_update(peer)
            for peer in self.peers
            if peer.line.updates is not None and peer.line.updates.down
        ]
        return [*ups, *subscriptions, *downs, *updates]

    def flush(self) -> None:
        """Have everything arrive, and each commit reach the disk and be confirmed, until nothing moves."""
        moves: list[Callable[[], None]] = []
        for _ in range(MAX_MOVES):
            self.write(len(self.disk.waiting))
            self.confirm()
            moves = self.deliveries()
            if not moves:
                return
            moves[0]()
        raise AssertionError(f"after {MAX_MOVES} messages the peers still talk")

    # --- effects and time -----------------------------------------------------------------------

    def carry_out(self, effects: list[Effect]) -> None:
        """Do what the broker asks for."""
        for effect in effects:
            match effect:
                case Commit():
                    self.disk.waiting.append(effect)
                case Send():
                    self.told(effect)
                    self._send(effect)
                case Publish():
                    self.told(effect)
                    self.network.publish(effect.topic, codec.encode(effect.message))

    def _send(self, effect: Send) -> None:
        control = self.network.controls[effect.peer]
        if control.closed and self.broker is not None:
            self.carry_out(self.broker.unroutable(effect.peer, self.now))
        elif not control.cut:
            control.down.append(codec.control_frames(effect.message))

    def advance(self, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Let time pass; timers ring when they are due, and `meanwhile` is called after each."""
        end = self.now + seconds
        while (due := self._next_timer()) <= end:
            self.now = max(self.now, due)
            self._ring()
            meanwhile()
        self.now = end

    def _next_timer(self) -> float:
        times = [peer.next_timer() for peer in self.peers]
        broker = [self.broker.next_timer()] if self.broker is not None else []
        return min([*broker, *(when for when in times if when is not None)], default=float("inf"))

    def _ring(self) -> None:
        if self.broker is not None and self.broker.next_timer() <= self.now:
            self.carry_out(self.broker.on_timer(self.now, WALL + self.now, {}, {}))
        for peer in list(self.peers):
            when = peer.next_timer()
            if when is not None and when <= self.now:
                peer.on_timer()
