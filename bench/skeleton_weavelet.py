"""The weavelet of the skeleton, on a loop: alone beside a training (`bench.skeleton_trainer`), or in a crowd.

It does with a change what zloom promises: it sees that no revision is missing, converts each value to what
its handler takes, has the handlers called where they belong, and keeps the outcome until the broker has
acknowledged it; and at each beat it tells its status. Nothing is sent again, and it has nothing of what only
connects, declares, restores, agrees or measures.
"""

import itertools
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import Annotated, Any

import zmq

import zloom
from bench.echo import Context, open_socket
from bench.floor_fanout import SEPARATOR
from bench.skeleton_parts import Frames, Port, port
from bench.trainer import ATTEMPT, KEY, RUN
from zloom import codec
from zloom import messages as m
from zloom.declarations import DeclaredKey, declare_key
from zloom.model import Outcome, Revision

LOAD = "load"
"""The key that says what the steps of the training are: one of `bench.results.LOADS`."""

EPOCH = "0" * 16
"""As long as zloom's are."""

Keys = dict[str, DeclaredKey]

Changes = list[tuple[DeclaredKey, Any]]
"""Keys, each with the value for its handler."""

Done = Callable[[int], object]
"""Called on the weavelet's loop with the step at which changes were made."""

Apply = Callable[[Changes, Done], object]
"""Has changes made where the handlers belong."""


def declared_keys(switch: Callable[[str], None] = lambda load: None) -> Keys:
    """Return the keys of a weavelet.

    Args:
        switch: Called with the value of `LOAD`.
    """

    def set_learning_rate(value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> None:
        """Do nothing, as the handler of zloom's weavelets here."""

    keys = (
        declare_key(KEY, set_learning_rate, initial=0.1),
        declare_key(LOAD, switch, initial="idle", type=str),
    )
    return {each.key.name: each for each in keys}


def replica_id(rank: int) -> str:
    """Return the id of a rank's weavelet."""
    return f"{rank:016x}"


def make(changes: Changes) -> None:
    """Call the handlers, in order."""
    for key, value in changes:
        key.handler(value)
        key.value = value


def at_once(changes: Changes, done: Done) -> None:
    """Make changes on the loop itself; an `Apply`."""
    make(changes)
    done(1)


class Weavelet:
    """Applies whatever is published, and tells of itself at each beat.

    Args:
        rank: Its own.
        keys: Those that it declared.
        apply: See `Apply`.
    """

    control: Port
    """To the broker."""

    def __init__(self, rank: int, keys: Keys, apply: Apply) -> None:
        self._rank = rank
        self._keys = keys
        self._apply = apply
        self._statuses = itertools.count(1)
        self._revision = 0
        self._kept: dict[int, Outcome] = {}
        """Outcomes until their acknowledgement."""

    def receive(self, frames: Frames) -> None:
        """Take a publication."""
        match codec.published.decode(frames[-1]):
            case m.Revised(revision=revision):
                self._begin(revision)
            case m.Beat():
                self._send(m.Status(seq=next(self._statuses), step=1))

    def pinged(self, frames: Frames) -> None:
        """Take a ping."""
        ping = codec.from_broker.decode(codec.control_payload(frames))
        assert isinstance(ping, m.Ping)
        for revision in ping.recorded:
            self._kept.pop(revision, None)
        self._send(m.Pong(id=ping.id, received=0))

    def _begin(self, revision: Revision) -> None:
        assert revision.revision == self._revision + 1
        self._revision = revision.revision
        keys = self._keys
        changes = [(keys[name], keys[name].read(value)) for name, value in revision.changes.items()]
        self._apply(changes, lambda step: self._answer(revision, step))

    def _answer(self, revision: Revision, step: int) -> None:
        outcome = Outcome(replica_id(self._rank), self._rank, "applied", step, chain=revision.chain)
        self._kept[revision.revision] = outcome
        self._send(m.Outcomes(epoch=EPOCH, outcomes={revision.revision: outcome}))

    def _send(self, message: m.ToBroker) -> None:
        self.control.send(codec.control_frames(message))


def join(context: Context, endpoints: str, weavelets: Iterable[Weavelet], stack: AsyncExitStack) -> None:
    """Connect weavelets with the broker, each with sockets of its own, as long as the stack lasts.

    Args:
        endpoints: As `bench.skeleton_broker` tells them.
    """
    control, updates = endpoints.split(SEPARATOR)
    for each in weavelets:
        dealer = stack.enter_context(open_socket(context, zmq.DEALER, control))
        subscriber = stack.enter_context(open_socket(context, zmq.SUB, updates))
        subscriber.subscribe(codec.steer_topic(RUN, ATTEMPT))
        each.control = stack.enter_context(port(dealer, each.pinged))
        stack.enter_context(port(subscriber, each.receive))
