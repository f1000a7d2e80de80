"""A broker's core joined in memory with the real safe points of several ranks, which step by hand."""

from collections.abc import Callable
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from tests.unit.broker_support import Bench
from zloom import messages as m
from zloom.codec import steer_topic
from zloom.delivery import Delivery
from zloom.handlers import Registry
from zloom.mailbox import Mailbox
from zloom.metrics import MetricBuffer
from zloom.model import Outcome, RampState, Revision, Value
from zloom.promises import Promises
from zloom.rounds import Round
from zloom.training import Training
from zloom_broker.attempt import Attempt
from zloom_broker.effects import Effect, Publish, Send
from zloom_broker.ledger import Ledger

STEER = steer_topic("run", "one")


class Rank:
    """One rank: its registry, mailbox and promises, and the messages that it wants to send."""

    def __init__(self, number: int) -> None:
        self.name = f"r{number}"
        self.number = number
        self.registry = Registry()
        self.outbox: list[m.ToBroker] = []
        self.log: list[str] = []
        self.bad: set[float] = set()
        self.pace: float | None = 0.1
        """Seconds a step, as it tells the broker."""
        self.mailbox = Mailbox(self.registry, self._answer, self._confirm, self.log.append)
        self.training = Training(self.registry, self.mailbox, MetricBuffer(10))
        self.promises = Promises(self.mailbox, lambda: self.training.step)
        self.delivery = Delivery(self.training, self._answer)
        self.registry.add_key("rate", self._set_rate, initial=1.0)
        self.registry.add_key("count", lambda value: None, initial=0)
        self.registry.add_command("checkpoint", lambda: "/step.ckpt")

    def _set_rate(self, value: Annotated[float, Meta(gt=0, le=100)]) -> None:
        if value in self.bad:
            raise ValueError("too hot")

    def _answer(self, number: int, outcome: Outcome) -> None:
        self.promises.answered(number)
        said = replace(outcome, replica=self.name, rank=self.number)
        self.outbox.append(m.Outcomes(epoch="epoch", outcomes={number: said}))

    def _confirm(self, round: Round, step: int) -> None:
        number = round.revision.revision
        self.outbox.append(m.Confirm(epoch=round.epoch, revision=number, round=round.number, step=step))

    @property
    def rate(self) -> Value:
        return self.registry.values["rate"]

    def take(self, message: object) -> None:
        """Take a message of the broker."""
        match message:
            case m.Prepare():
                self.outbox.append(self.promises.prepare(message))
            case m.Decision():
                self.promises.decided(message)
            case m.Conclusion():
                self.promises.concluded(message)

    def status(self) -> None:
        """Tell the broker where this rank is."""
        self.outbox.append(
            m.Status(
                seq=1,
                step=self.training.step,
                step_time=self.pace,
                paused=self.mailbox.pause.active,
                lacks_config=self.mailbox.lacks_config,
                ramps=self.mailbox.ramps.states,
            )
        )


class Ranks:
    """A bench with so many ranks in step, and an operator. Messages arrive at once."""

    def __init__(self, count: int = 2, journal: list[bytes] | None = None) -> None:
        self.bench = Bench(journal)
        self.ranks = [Rank(number) for number in range(count)]
        self.told: list[m.Message] = []
        """What the operator was sent."""
        self.events: list[m.Happened] = []
        for rank in self.ranks:
            keys, commands = rank.registry.keys(), rank.registry.commands()
            self.bench.join(
                rank.name, rank=rank.number, world_size=count, keys=keys, commands=commands, devices=[]
            )
            self.bench.sync(rank.name)
        self.bench.operator()
        self.told.clear()

    @property
    def attempt(self) -> Attempt:
        return self.bench.core.state.attempts["run", "one"]

    @property
    def ledger(self) -> Ledger:
        """The newest revision."""
        return self.attempt.ledgers[self.attempt.revision]

    @property
    def rates(self) -> list[Value]:
        return [rank.rate for rank in self.ranks]

    @property
    def ramps(self) -> list[dict[str, RampState]]:
        return [rank.mailbox.ramps.states for rank in self.ranks]

    def ask(self, request: m.ToBroker) -> m.Message:
        """Send a request of the operator, let all messages arrive, and return the first answer."""
        before = len(self.told)
        self._carry(self.bench.receive(b"op", request))
        return self.told[before]

    def set(self, request_id: str, changes: dict[str, Value], **more: object) -> m.Message:
        """Ask for a config update."""
        return self.ask(m.SetConfig(id=request_id, run="run", changes=changes, **more))  # type: ignore[arg-type]

    def step(self, count: int = 1, until: Callable[[], bool] = lambda: False) -> None:
        """Let all ranks begin so many steps, each when it may leave the one before; fewer once `until`."""
        for _ in range(count):
            for rank in self.ranks:
                rank.training.step += 1
            self.serve()
            if until() or any(rank.mailbox.must_wait for rank in self.ranks):
                return

    def serve(self) -> None:
        """Run the safe point at which the ranks are until nothing is left to be said."""
        for rank in self.ranks:
            rank.mailbox.run(rank.training.step, self.bench.now)
            rank.status()
        while self._exchange():
            for rank in self.ranks:
                rank.mailbox.run(rank.training.step, self.bench.now)

    def outcomes(self, number: int) -> list[str]:
        """Return what became of a revision, by rank, in short."""
        return [
            f"{o.outcome}" + ("" if o.step is None else f"@{o.step}")
            for o in self.attempt.outcomes(self.attempt.ledgers[number])
        ]

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and what the broker does with it."""
        self._carry(self.bench.advance(seconds))

    def _exchange(self) -> bool:
        said = [(rank, message) for rank in self.ranks for message in rank.outbox]
        for rank in self.ranks:
            rank.outbox.clear()
        for rank, message in said:
            self._carry(self.bench.receive(rank.name.encode(), message))
        return bool(said)

    def _carry(self, effects: list[Effect]) -> None:
        by_name = {rank.name.encode(): rank for rank in self.ranks}
        for effect in effects:
            match effect:
                case Send(peer, message) if peer in by_name:
                    by_name[peer].take(message)
                case Send(_, message):
                    self.told.append(message)
                case Publish(topic, m.Revised() as revised) if topic == STEER:
                    self._deliver(revised.revision)
                case Publish(_, m.Happened() as happened):
                    self.events.append(happened)
        if any(rank.outbox for rank in self.ranks):
            self._exchange()

    def _deliver(self, revision: Revision) -> None:
        for rank in self.ranks:
            rank.delivery.deliver(revision)
