"""What the guard counts: the training thread's calls, a session, and a broker's core with many weavelets.

Without sockets, journal, clock or codec, so that each does the same each time.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator

import zloom
from bench.parts import shared_context
from bench.trainer import ATTEMPT, KEY, RUN
from zloom import messages as m
from zloom.codec import echo_topic, steer_topic
from zloom.effects import Send
from zloom.model import Key, Mode, Outcome, Replica, Revision, Schema, Value
from zloom.series import Series
from zloom.session import Session
from zloom.settings import WeaveletSettings
from zloom_broker.core import Core
from zloom_broker.effects import Commit, Effect
from zloom_broker.effects import Send as SendTo
from zloom_broker.hub import CoreSettings
from zloom_broker.state import State

EPOCH = "one"
OPERATOR = b"operator"
LEARNING_RATE = Key(KEY, Schema(["number"], exclusive_minimum=0, maximum=1), 0.1, immediate=True)

Work = Callable[[], object]


@contextlib.contextmanager
def training_calls() -> Iterator[tuple[Work, Work]]:
    """Yield an idle `tick()` and a `report(loss=0.5)`, as a training calls them.

    There is no broker, which makes no difference to the thread that calls them.
    """
    quiet = WeaveletSettings(hold_watch=None)
    with (
        shared_context() as context,
        zloom.Weavelet(
            RUN,
            broker="inproc://nobody",
            rank=0,
            world_size=1,
            attempt=ATTEMPT,
            context=context,
            settings=quiet,
        ) as weavelet,
    ):
        tick, report = weavelet.tick, functools.partial(weavelet.report, loss=0.5)
        tick()  # the first looks at what came with the start
        report()
        yield tick, report


class OneSession:
    """The session of a weavelet that is active and takes revisions, each of which it applies."""

    def __init__(self) -> None:
        self._session = Session(_replica(0, 1), "tcp://host:5555", "guard", lambda: "n0")
        self._numbers = itertools.count(1)
        self._heard = 2  # the hello and the question for its history
        welcome = m.Welcome(
            protocol=1, epoch=EPOCH, updates="tcp://*:5556", beat=1.0, credit=100, max_message_size=1 << 20
        )
        self._session.start(0.0)
        self._session.receive_control(welcome, 0.0)
        self._session.receive_update(echo_topic("n0"), m.Echo(nonce="n0"), 0.0)
        self._session.receive_control(m.Snapshot(epoch=EPOCH, revision=0, chain=b""), 0.0)
        self._session.on_timer(0.0)

    def take_one(self) -> None:
        """Take a revision, answer it, and have the answer acknowledged; each comes well after the last."""
        number = next(self._numbers)
        now = number / 10
        revision = Revision(number, "config", {KEY: 0.5}, chain=b"%d" % number)
        revised = m.Revised(epoch=EPOCH, run=RUN, attempt=ATTEMPT, revision=revision, seq=number)
        self._session.receive_update(steer_topic(RUN, ATTEMPT), revised, now)
        outcome = Outcome("", outcome="applied", step=number, chain=revision.chain)
        effects = self._session.answer(number, outcome, now) + self._session.on_timer(now)
        sent = [each.message for each in effects if isinstance(each, Send)]
        assert [list(each.outcomes) for each in sent if isinstance(each, m.Outcomes)] == [[number]], sent
        self._heard += len(sent) + 1  # its answer to this ping too
        self._session.receive_control(m.Ping(id=number, received=self._heard, recorded=[number]), now)


class Fleet:
    """A broker's core with so many weavelets of one attempt, and an operator; its commits succeed at once."""

    def __init__(self, size: int) -> None:
        self._core = Core(State(), CoreSettings(epoch=EPOCH), 0, 0.0, 0.0)
        self._committed = 0
        self._numbers = itertools.count(1)
        self._ranks = [b"%d" % rank for rank in range(size)]
        self._feed(OPERATOR, m.Hello(protocols=[1], role="operator", user="guard"))
        for rank, peer in enumerate(self._ranks):
            nonce, replica = f"n{rank}", _replica(rank, size)
            self._feed(peer, m.Hello(protocols=[1], role="weavelet", nonce=nonce, replica=replica))
            self._feed(peer, m.Sync(nonce=nonce, revision=-1, chain=b""))

    def beat(self) -> None:
        """Have each weavelet tell its status, with a metric of two steps."""
        number = next(self._numbers)
        metrics = {"loss": Series.of([number, number + 1], [0.5, 0.25])}
        self._from_each(lambda _: m.Status(seq=number, step=number + 1, step_time=0.1, metrics=metrics))

    def change(self, mode: Mode, *, store: bool = True) -> None:
        """Make a change, until the operator is told that each weavelet has applied it.

        Args:
            mode: Of the change.
            store: Whether the ranks have one of their own to agree in; else the broker concludes.
        """
        number = next(self._numbers)
        changes: dict[str, Value] = {KEY: 0.2 + number % 2 / 10}
        request = m.SetConfig(id=f"q{number}", run=RUN, changes=changes, mode=mode)
        for prepare in _prepares(self._feed(OPERATOR, request)):
            self._agree(prepare, store)

        def outcome(rank: int) -> m.Outcomes:
            return m.Outcomes(
                epoch=EPOCH, outcomes={number: Outcome(str(rank), outcome="applied", step=number)}
            )

        told = [each for each in self._from_each(outcome) if isinstance(each, SendTo)]
        (state,) = [each.message for each in told if isinstance(each.message, m.RevisionState)]
        assert state.settled, state
        assert [each.outcome for each in state.outcomes] == ["applied"] * len(self._ranks), state

    def _agree(self, prepare: m.Prepare, store: bool) -> None:
        number, round, step = prepare.revision.revision, prepare.round, prepare.step
        promise = m.Promise(epoch=EPOCH, revision=number, round=round, step=step, store=store)
        self._from_each(lambda _: promise)
        if not store:
            confirm = m.Confirm(epoch=EPOCH, revision=number, round=round, step=step)
            self._from_each(lambda _: confirm)

    def _from_each(self, message: Callable[[int], m.FromWeavelet]) -> list[Effect]:
        """Have each rank send a message, all of which come in one turn of the loop; returns the effects."""
        effects: list[Effect] = []
        for rank, peer in enumerate(self._ranks):
            effects += self._core.receive(peer, message(rank), 0.0)
        return self._end_turn(effects)

    def _feed(self, peer: bytes, message: m.ToBroker) -> list[Effect]:
        return self._end_turn(self._core.receive(peer, message, 0.0))

    def _end_turn(self, effects: list[Effect]) -> list[Effect]:
        effects += self._core.end_turn()
        for effect in effects:  # those of the confirmed commits too, which come after it
            if isinstance(effect, Commit):
                self._committed += len(effect.payloads)
                effects += self._core.committed(self._committed, 0.0)
        return effects


def _prepares(effects: list[Effect]) -> list[m.Prepare]:
    """Return what the weavelets are asked to promise, which is the same of each: none or one."""
    sent = [each.message for each in effects if isinstance(each, SendTo)]
    return [each for each in sent if isinstance(each, m.Prepare)][:1]


def _replica(rank: int, size: int) -> Replica:
    return Replica(str(rank), RUN, ATTEMPT, rank=rank, world_size=size, keys=[LEARNING_RATE])
