# ruff: noqa: E501
"""The network between cores that are joined in memory: connections break when a test says so, never by themselves."""

import itertools
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from zloom.codec import control_frames
from zloom.messages import Message


@dataclass(eq=False)
class Control:
    """A connection of a DEALER with the ROUTER: frames on their way, first in first out."""

    identity: bytes
    up: deque[list[bytes]] = field(default_factory=deque)
    down: deque[list[bytes]] = field(default_factory=deque)
    cut: bool = False
    """What the broker sends vanishes."""
    closed: bool = False
    """The broker's socket knows, so that sending fails."""


@dataclass(eq=False)
class Updates:
    """A connection of a SUB with the XPUB: subscriptions on their way up, publications on their way down."""

    up: deque[tuple[bytes, bool]] = field(default_factory=deque)
    down: deque[tuple[bytes, bytes]] = field(default_factory=deque)
    arrived: set[bytes] = field(default_factory=set)
    """Topics that the broker has."""
    cut: bool = False
    remade: bool = False
    """It follows one that broke, so nobody knows when its subscriptions arrive."""


class Network:
    """The broker's sockets: a connection stays known until `notice_cuts`, as with a peer that is just gone."""

    def __init__(self) -> None:
        self.listening = False
        self.controls: dict[bytes, Control] = {}
        self.outlets: list[Updates] = []
        self._identities = itertools.count(1)

    def connect(self) -> Control:
        """Return a new connection, with a routing id that was never used; without a broker it leads nowhere."""
        control = Control(b"c%d" % next(self._identities), cut=not self.listening)
        if self.listening:
            self.controls[control.identity] = control
        return control

    def connect_updates(self) -> Updates:
        """Return a new connection of updates."""
        updates = Updates(cut=not self.listening)
        if self.listening:
            self.outlets.append(updates)
        return updates

    def gone(self) -> None:
        """The broker's sockets are no more."""
        self.listening = False
        connections: list[Control | Updates] = [*self.controls.values(), *self.outlets]
        for connection in connections:
            connection.cut = True
            connection.up.clear()
        self.controls.clear()
        self.outlets.clear()

    def uplinks(self) -> Iterator[Control]:
        """Yield the connections, broken ones too, on which something is on its way to the broker."""
        return (control for control in list(self.controls.values()) if control.up)

    def subscribing(self) -> Iterator[Updates]:
        """Yield the connections on which a subscription is on its way to the broker."""
        return (outlet for outlet in list(self.outlets) if outlet.up and not outlet.cut)

    def is_subscribed(self, topic: bytes) -> bool:
        """Whether the XPUB has a topic, from whomever."""
        return any(topic in outlet.arrived for outlet in self.outlets)

    def publish(self, topic: bytes, payload: bytes) -> None:
        """Send to each connection that has a prefix of the topic."""
        for outlet in self.outlets:
            if not outlet.cut and any(topic.startswith(prefix) for prefix in outlet.arrived):
                outlet.down.append((topic, payload))

    def notice_cuts(self) -> Iterator[bytes]:
        """Have the sockets see which connections are gone; yield the topics that nobody subscribes any more."""
        for control in self.controls.values():
            control.closed |= control.cut and not control.up
        for outlet in [outlet for outlet in self.outlets if outlet.cut]:
            self.outlets.remove(outlet)
            yield from (topic for topic in sorted(outlet.arrived) if not self.is_subscribed(topic))


class Line:
    """The two sockets of one peer. As libzmq does, they connect anew by themselves, and subscribe anew."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._topics: Counter[bytes] = Counter()
        self.open = False
        self.control = Control(b"", cut=True)
        self.updates: Updates | None = None

    def connect(self) -> None:
        """Open control."""
        self.open = True
        self.control = self._network.connect()

    def send(self, message: Message) -> None:
        """Send on control; where there is no connection it is lost."""
        if not self.control.cut:
            self.control.up.append(control_frames(message))

    def reconnect(self) -> None:
        """Close both sockets and open control again."""
        self.close()
        self.connect()

    def close(self, *, farewell: bool = False) -> None:
        """Close both sockets. What was sent arrives after a farewell; of anything else a part may."""
        self.open = False
        self.control.cut = True
        if not farewell:
            self.control.up.clear()
        self.control.down.clear()
        self._topics.clear()
        self._cut_updates()

    def open_updates(self) -> None:
        """Open updates, in place of the one before."""
        self._cut_updates()
        self._topics.clear()
        self.updates = self._network.connect_updates()

    def subscribe(self, topic: bytes) -> None:
        """Subscribe updates; only the first subscription of a topic travels."""
        self._topics[topic] += 1
        if self.updates is not None and self._topics[topic] == 1:
            self.updates.up.append((topic, True))

    def unsubscribe(self, topic: bytes) -> None:
        """Undo one `subscribe`; only the last one travels."""
        self._topics[topic] -= 1
        if self.updates is not None and self._topics[topic] == 0:
            self.updates.up.append((topic, False))

    def cut_control(self, up: int, down: int) -> None:
        """Break the connection; of what is on its way the first `up` and `down` messages arrive all the same."""
        old, self.control = self.control, self._network.connect()
        old.cut = True
        while len(old.up) > up:
            old.up.pop()
        self.control.down.extend(list(old.down)[:down])

    def cut_updates(self, down: int) -> None:
        """Break the connection of updates; the first `down` publications on their way arrive."""
        if self.updates is not None:
            arriving = list(self.updates.down)[:down]
            self._cut_updates()
            self.updates = self._network.connect_updates()
            self.updates.remade = True
            self.updates.down.extend(arriving)
            self.updates.up.extend((topic, True) for topic, count in self._topics.items() if count)

    def found(self) -> None:
        """A broker is there; what an earlier one sent and libzmq has received is still to be read."""
        self.cut_control(0, len(self.control.down))
        self.cut_updates(len(self.updates.down) if self.updates is not None else 0)

    def _cut_updates(self) -> None:
        if self.updates is not None:
            self.updates.cut, self.updates = True, None
