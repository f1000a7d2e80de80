# ruff: noqa: E501
"""The operators of a `World`: one of the real parts without their sockets, and one that says what it is told to."""

import itertools

from tests.unit.pair_network import Line
from tests.unit.pair_support import CONTROL, World
from zloom import codec
from zloom.client.effects import Effect as OperatorEffect
from zloom.client.requests import Answered
from zloom.client.session import OperatorSession
from zloom.effects import Reconnect
from zloom.effects import Send as OperatorSend
from zloom.messages import PROTOCOL, FromOperator, Hello, Message


class Operator:
    """An operator that follows each change that it makes until that is settled."""

    def __init__(self, world: World, user: str = "alice") -> None:
        self.world = world
        self.line = Line(world.network)
        self.answers: list[Answered] = []
        ids = (f"{user}-{number}" for number in itertools.count(1))
        self.session = OperatorSession(user, "test", CONTROL, lambda: next(ids))
        world.peers.append(self)
        self.line.connect()
        self._run(self.session.start(world.now))

    def request(self, message: FromOperator) -> None:
        """Make a request."""
        self._run(self.session.request(message, self.world.now))

    def receive_control(self, payload: bytes) -> None:
        """Take a message from control."""
        message = codec.from_broker.decode(payload)
        self._run(self.session.receive(message, self.world.now))

    def receive_update(self, topic: bytes, payload: bytes) -> None:
        """Take a message from updates."""
        raise AssertionError("this operator subscribes nothing")

    def next_timer(self) -> float | None:
        """Return when `on_timer` wants to be called."""
        return self.session.next_timer()

    def on_timer(self) -> None:
        """Do what is due."""
        self._run(self.session.on_timer(self.world.now))

    def _run(self, effects: list[OperatorEffect]) -> None:
        for effect in effects:
            match effect:
                case OperatorSend():
                    self.line.send(effect.message)
                case Reconnect():
                    self.line.reconnect()
                case Answered():
                    self.answers.append(effect)


class Parrot:
    """An operator without a session, which says what it is told to and keeps what it hears."""

    def __init__(self, world: World, user: str = "alice") -> None:
        self.line = Line(world.network)
        self.heard: list[Message] = []
        self._user = user
        world.peers.append(self)
        self.line.connect()

    def say(self, message: FromOperator) -> None:
        """Say hello, then this."""
        self.line.send(Hello(protocols=[PROTOCOL], role="operator", user=self._user))
        self.line.send(message)

    def receive_control(self, payload: bytes) -> None:
        """Take a message from control."""
        self.heard.append(codec.from_broker.decode(payload))

    def receive_update(self, topic: bytes, payload: bytes) -> None:
        """Take a message from updates."""
        raise AssertionError("this operator subscribes nothing")

    def next_timer(self) -> float | None:
        """Nothing is ever due."""
        return None

    def on_timer(self) -> None:
        """Do nothing."""
