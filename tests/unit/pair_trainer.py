# ruff: noqa: E501
"""The trainers of a `World`, made of the real parts without their sockets and threads."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from tests.unit.pair_network import Line
from tests.unit.pair_support import CONTROL, World
from zloom import codec
from zloom.delivery import Delivery
from zloom.effects import Connect, Reconnect, Send, Subscribe, Unsubscribe
from zloom.handlers import Applied, Registry, Rejected
from zloom.mailbox import SNAPSHOT, Mailbox
from zloom.messages import Confirm, Outcomes, Prepare, Snapshot
from zloom.metrics import MetricBuffer
from zloom.model import Outcome, OutcomeKind, Replica, Revision, Value
from zloom.promises import Promises
from zloom.restoring import Restore
from zloom.rounds import Round
from zloom.session import Session
from zloom.session_effects import Closed, CollectStatus, Concluded, Decided, Deliver, Effect, Prepared
from zloom.session_state import State
from zloom.status_source import StatusSource
from zloom.training import Training

RATE = 0.5
DEPTH = 4
TINT = 0
"""Baselines."""

TOO_DEEP = 8
"""Depths from here on raise in the handler: the schema allows them."""


@dataclass(frozen=True)
class Step:
    """One revision as it reached a trainer, or the snapshot that gave it its place."""

    number: int
    chain: bytes
    before: bytes | None
    """Digest of the revision that the trainer held before; None when this is the place of a snapshot."""


@dataclass(frozen=True)
class Decision:
    """What a trainer decided about a revision."""

    number: int
    chain: bytes
    """Digest of the trainer's newest revision when its safe point began: it tells which history is meant."""
    outcome: OutcomeKind | None
    snapshot: bool


@dataclass(frozen=True)
class Application:
    """One try to change values."""

    changes: Mapping[str, Value]
    applied: bool
    before: dict[str, Value]
    after: dict[str, Value]


class WatchedRegistry(Registry):
    """A registry that remembers what was tried."""

    def __init__(self) -> None:
        super().__init__()
        self.applications: list[Application] = []

    def apply(self, changes: Mapping[str, Value]) -> Applied | Rejected:
        """Change values."""
        before = self.values
        result = super().apply(changes)
        self.applications.append(Application(changes, isinstance(result, Applied), before, self.values))
        return result


class Trainer:
    """A trainer with the keys rate, depth (whose handler may raise) and tint (immediate), and the command mark.

    What is decided is posted to the session by `post` only, as between two threads.
    """

    def __init__(
        self, world: World, name: str, rank: int, world_size: int, *, together: bool = False
    ) -> None:
        self.world = world
        self.name = name
        self.rank = rank
        self.line = Line(world.network)
        self.ready = True
        self.meanwhile: Callable[[], object] = lambda: None
        """Called while a handler runs, which is when the loop's thread goes on."""
        self.effective: dict[str, Value] = {"rate": RATE, "depth": DEPTH, "tint": TINT}
        self.marks: list[str] = []
        self.steps: list[Step] = []
        self.decisions: list[Decision] = []
        self.rollbacks = 0
        self.outcomes_sent = 0
        """Messages."""
        self._posted: list[Callable[[], object]] = []
        self.chain = b""
        """Digest of the newest revision that was delivered."""
        self._drained = b""
        self._snapshot_chain = b""
        self._revisions: list[Revision] = []
        nonces = (f"{name}.{number}" for number in itertools.count(1))
        self.registry = WatchedRegistry()
        mailbox = Mailbox(self.registry, self._decide, self._confirm)
        self._declare()
        replica = Replica(name, "run", "one", rank, world_size, host="host", pid=1)
        self.session = Session(replica, CONTROL, "test", lambda: next(nonces))
        self.training = Training(self.registry, mailbox, MetricBuffer())
        self.promises = Promises(mailbox, self._read_step)
        self._delivery = Delivery(self.training, self._decide_now, together=together)
        self._status = StatusSource(self.training, 100, together=False, clock=lambda: world.now)
        world.peers.append(self)

    def _declare(self) -> None:
        def rate(value: Annotated[float, Meta(gt=0, le=1)]) -> None:
            self._while_handling("rate", value)

        def depth(value: Annotated[int, Meta(ge=1)]) -> None:
            if value >= TOO_DEEP + self.rank:
                raise ValueError("too deep")
            self._while_handling("depth", value)

        def tint(value: Annotated[int, Meta(ge=0)]) -> None:
            self.effective["tint"] = value

        def mark(token: str) -> None:
            self.marks.append(token)

        self.registry.add_key("rate", rate, initial=RATE)
        self.registry.add_key("depth", depth, initial=DEPTH, ready=lambda _: self.is_ready())
        self.registry.add_key("tint", tint, initial=TINT, immediate=True)
        self.registry.add_command("mark", mark)

    def _while_handling(self, key: str, value: Value) -> None:
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        self.effective[key] = value

    def is_ready(self) -> bool:
        """Whether depth may change at this safe point."""
        return self.ready

    def _read_step(self) -> int:
        return self.training.step

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Open control and say hello."""
        self.line.connect()
        self.declare()
        self._run(self.session.start(self.world.now))

    def declare(self) -> None:
        """Tell the session what the registry declares."""
        keys, commands = self.registry.keys(), self.registry.commands()
        self._run(self.session.declare(keys, commands, self.world.now))

    def die(self, *, arriving: bool = False) -> None:
        """Be killed, without a word; what is on its way may still arrive."""
        self.line.close(farewell=arriving)
        self.world.peers.remove(self)

    def leave(self) -> None:
        """Say goodbye."""
        self.post()
        self._run(self.session.close("finished", self.training.step, self.world.now))
        self.world.peers.remove(self)

    @property
    def active(self) -> bool:
        """Whether it gets every revision in order."""
        return self.session.state is State.ACTIVE

    # --- the training thread --------------------------------------------------------------------

    def safe_point(self) -> None:
        """Begin a step, and carry out what is due."""
        self.training.step += 1
        if not self.training.mailbox.waiting:
            return
        self._drained = self.chain
        self.training.serving = True
        try:
            self.training.mailbox.run(self.training.step, self.world.now)
        finally:
            self.training.serving = False

    def post(self) -> None:
        """Let the session learn what was decided."""
        posted, self._posted = self._posted, []
        for call in posted:
            call()

    @property
    def refused_a_snapshot(self) -> bool:
        """Whether a handler raised on the values of a snapshot, which are taken all or none."""
        revisions = {id(revision.changes) for revision in self._revisions}
        tries = self.registry.applications
        return any(not each.applied and id(each.changes) not in revisions for each in tries)

    def _decide_now(self, number: int, outcome: Outcome) -> None:
        self._note(number, outcome, self.chain)
        self._answer(number, outcome)

    def _decide(self, number: int, outcome: Outcome) -> None:
        self._note(number, outcome, self._drained)
        self._posted.append(lambda: self._answer(number, outcome))

    def _answer(self, number: int, outcome: Outcome) -> None:
        self.promises.answered(number, outcome.chain)
        self._run(self.session.answer(number, outcome, self.world.now))

    def _confirm(self, round: Round, step: int) -> None:
        number = round.revision.revision
        confirm = Confirm(epoch=round.epoch, revision=number, round=round.number, step=step)
        self._posted.append(lambda: self._run(self.session.insist(confirm, self.world.now)))

    def _note(self, number: int, outcome: Outcome, chain: bytes) -> None:
        self.decisions.append(Decision(number, chain, outcome.outcome, outcome.detail == SNAPSHOT))

    # --- the session ----------------------------------------------------------------------------

    def receive_control(self, payload: bytes) -> None:
        """Take a message from control."""
        message = codec.from_broker.decode(payload)
        if isinstance(message, Snapshot):
            self._snapshot_chain = message.chain
        self._run(self.session.receive_control(message, self.world.now))

    def receive_update(self, topic: bytes, payload: bytes) -> None:
        """Take a message from updates."""
        message = codec.published.decode(payload)
        self._run(self.session.receive_update(topic, message, self.world.now))

    def next_timer(self) -> float | None:
        """Return when `on_timer` wants to be called."""
        return self.session.next_timer()

    def on_timer(self) -> None:
        """Do what is due."""
        self._run(self.session.on_timer(self.world.now))

    def _run(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self.outcomes_sent += isinstance(effect.message, Outcomes)
                    self.line.send(effect.message)
                case Deliver():
                    self._deliver(effect.revision)
                case Restore():
                    self._restore(effect)
                case Prepared():
                    self._prepare(effect.prepare)
                case Decided():
                    self.promises.decided(effect.decision)
                case Concluded():
                    self.promises.concluded(effect.conclusion)
                case CollectStatus():
                    now = self.world.now
                    if self.session.may_collect(now, look=effect.look):
                        self._run(self.session.status(self._status.collect(now), now))
                case Closed():
                    self.line.close(farewell=effect.farewell)
                case Reconnect():
                    self.line.reconnect()
                case Connect():
                    self.line.open_updates()
                case Subscribe():
                    self.line.subscribe(effect.topic)
                case Unsubscribe():
                    self.line.unsubscribe(effect.topic)

    def _prepare(self, prepare: Prepare) -> None:
        promise = self.promises.prepare(prepare)
        self._run(self.session.insist(promise, self.world.now))

    def _deliver(self, revision: Revision) -> None:
        self.steps.append(Step(revision.revision, revision.chain, self.chain))
        self.chain = revision.chain
        self._revisions.append(revision)
        self._delivery.deliver(revision)

    def _restore(self, restore: Restore) -> None:
        self.chain = self._snapshot_chain
        self.steps.append(Step(restore.revision, self.chain, None))
        self.rollbacks += restore.rolled_back
        self._revisions += restore.pending
        self._delivery.restore(restore)
