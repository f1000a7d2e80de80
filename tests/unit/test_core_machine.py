"""The broker alone against a random world: losses, repeats, held and failed commits, restarts."""

from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.broker_support import BATCH_SIZE, GPU, LEARNING_RATE, Bench, fold
from zloom import messages as m
from zloom.model import DeviceStatus, Key, Outcome
from zloom_broker import ledgers
from zloom_broker.attempt import Attempt
from zloom_broker.effects import Effect, Publish, Send
from zloom_broker.records import Image, decode_image, encode
from zloom_broker.state import State

NAMES = ("a", "b", "c")
"""Replicas; `c` claims the rank of `a`."""
RANKS = {"a": 0, "b": 1, "c": 0}

names = st.sampled_from(("a", *NAMES))
request_ids = st.integers(0, 5).map("q{}".format)
ages = st.integers(0, 2)
"""How many revisions back, because old ones are settled."""
outcome_kinds = st.sampled_from(["applied", "rejected", "cancelled"])
rates = st.sampled_from([0.25, 0.5, 2.0])


@pytest.fixture(scope="module", autouse=True)
def _small_blocks() -> Iterator[None]:
    """Let a block of history be full after three revisions, or two long ones."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(ledgers, "BLOCK_SIZE", 3)
        monkeypatch.setattr(ledgers, "BLOCK_BYTES", 400)
        yield


class Broker(RuleBasedStateMachine):
    """Feeds a core; `told` is what the world was told and may rely on."""

    @initialize()
    def start(self) -> None:
        self.lives = 1
        self.bench = Bench()
        self.packing = self.bench.core.state.pack()
        self.made: dict[str, int] = {}
        self.finals: dict[tuple[int, str], Outcome] = {}
        self.bench.operator()
        self.bench.active("a", rank=0, world_size=2)

    # --- the world -------------------------------------------------------------------------------

    @rule(name=names, sync=st.booleans())
    def join(self, name: str, sync: bool) -> None:
        self.look(self.bench.join(name, rank=RANKS[name], world_size=2))
        if sync:
            self.look(self.bench.sync(name))

    @rule(name=names, keys=st.sampled_from([[], [BATCH_SIZE], [LEARNING_RATE, BATCH_SIZE]]))
    def declare(self, name: str, keys: list[Key]) -> None:
        self.look(self.bench.receive(name.encode(), m.Declare(seq=1, keys=keys, commands=[])))

    @rule(name=names, step=st.integers(0, 9), xid=st.none() | st.just(79))
    def report(self, name: str, step: int, xid: int | None) -> None:
        devices = [DeviceStatus(GPU.id, xid=xid)]
        self.look(self.bench.receive(name.encode(), m.Status(seq=step, step=step, devices=devices)))

    @rule(name=names)
    def say_goodbye(self, name: str) -> None:
        self.look(self.bench.receive(name.encode(), m.Goodbye()))

    @rule(name=names)
    def vanish(self, name: str) -> None:
        self.look(self.bench.subscription(f"echo/n-{name}/".encode(), present=False))
        self.look(self.bench.unroutable(name.encode()))

    @rule(seconds=st.sampled_from([0.5, 2.0, 7.0]))
    def wait(self, seconds: float) -> None:
        self.look(self.bench.advance(seconds))

    @rule(request_id=request_ids, rate=rates, ahead=st.none() | st.integers(-1, 2))
    def set(self, request_id: str, rate: float, ahead: int | None) -> None:
        expected = None if ahead is None else self.newest + ahead
        changes: dict[str, Any] = {"learning_rate": rate}
        self.ask(
            m.SetConfig(id=request_id, run="run", changes=changes, mode="next", expected_revision=expected)
        )

    @rule(request_id=request_ids, step=st.integers(0, 9))
    def set_at_step(self, request_id: str, step: int) -> None:
        changes: dict[str, Any] = {"batch_size": 8, "learning_rate": 0.125}
        self.ask(m.SetConfig(id=request_id, run="run", changes=changes, mode="at_step", at_step=step))

    @rule(request_id=request_ids, age=ages)
    def cancel(self, request_id: str, age: int) -> None:
        self.ask(m.Cancel(id=request_id, run="run", revision=self.newest - age))

    @rule(request_id=request_ids, age=ages)
    def roll_back(self, request_id: str, age: int) -> None:
        request = m.Rollback(id=request_id, run="run", to_revision=max(0, self.newest - age), mode="next")
        self.ask(request)

    @rule(request_id=st.sampled_from(["f0", "f1"]))
    def forget(self, request_id: str) -> None:
        self.look(self.bench.receive(b"op", m.Forget(id=request_id, run="run")))
        if self.attempt is None:
            self.made.clear()
            self.finals.clear()

    @rule(request_id=st.sampled_from(["d0", "d1"]))
    def fail_device(self, request_id: str) -> None:
        self.look(self.bench.receive(b"op", m.FailDevice(id=request_id, device="GPU-1")))

    @rule(name=names, age=ages, kind=outcome_kinds)
    def answer(self, name: str, age: int, kind: str) -> None:
        self.look(self.bench.answer(self.newest - age, name, kind))

    @rule()
    def hold_commits(self) -> None:
        self.bench.hold = True

    @precondition(lambda self: self.bench.hold)
    @rule(count=st.none() | st.integers(0, 3))
    def confirm_commits(self, count: int | None) -> None:
        self.look(self.bench.confirm(count))

    @precondition(lambda self: self.bench.waiting)
    @rule()
    def fail_commits(self) -> None:
        self.look(self.bench.fail())

    @rule(count=st.integers(1, 5))
    def pack(self, count: int) -> None:
        """A snapshot is prepared a bit further, beside all else: what rests is kept packed."""
        for _ in range(count):
            if next(self.packing, self) is self:
                self.packing = self.bench.core.state.pack()

    @rule(written=st.integers(0, 3), from_image=st.booleans())
    def restart(self, written: int, from_image: bool) -> None:
        """Kill the broker; some of what it had not confirmed yet is on disk all the same."""
        journal = self.bench.journal + [p for c in self.bench.waiting[:written] for p in c.payloads]
        self.lives += 1
        state = fold(journal)
        if from_image:
            state = State.restore(decode_image(encode(state.image())), state.parts())
        self.bench = Bench(journal, state, epoch=f"epoch{self.lives}")
        self.packing = self.bench.core.state.pack()
        self.bench.operator()
        if self.attempt is None:
            self.made.clear()
            self.finals.clear()

    # --- what must hold ----------------------------------------------------------------------------

    @property
    def attempt(self) -> Attempt | None:
        return self.bench.core.state.attempts.get(("run", "one"))

    @property
    def newest(self) -> int:
        return self.attempt.revision if self.attempt else 0

    def ask(self, request: m.Request) -> None:
        for message in self.look(self.bench.receive(b"op", request)):  # type: ignore[arg-type]
            assert message.id != request.id or isinstance(message, m.RevisionState | m.Refusal)

    def look(self, effects: list[Effect]) -> list[Any]:
        """Check what was told, and return the answers to the operator."""
        newest = self.newest
        for effect in effects:
            if isinstance(effect, Publish) and isinstance(effect.message, m.Revised):
                assert effect.message.revision.revision <= newest
            elif isinstance(effect, Publish) and effect.topic == b"steer/run/one/":
                assert isinstance(effect.message, m.Beat)
                assert effect.message.revision is not None
                assert effect.message.revision <= newest
            elif isinstance(effect, Send) and isinstance(effect.message, m.Snapshot):
                assert effect.message.revision <= newest
            elif isinstance(effect, Send) and isinstance(effect.message, m.RevisionState):
                self.see_accepted(effect.message)
        return [
            e.message for e in effects if isinstance(e, Send) and e.peer == b"op" and hasattr(e.message, "id")
        ]

    def see_accepted(self, state: m.RevisionState) -> None:
        attempt = fold(self.bench.journal).attempts["run", "one"]
        ledger = attempt.ledger(state.revision)
        assert ledger is not None, "accepted and not in the journal"
        assert ledger.revision.request_id == state.id
        assert self.made.setdefault(state.id, state.revision) == state.revision, "two effects of one request"

    # Nothing here may pack, as an image does: what a half prepared snapshot did wrong would not show.
    @invariant()
    def the_state_is_the_fold_of_the_journal(self) -> None:
        assert contents_of(self.bench.core.state) == contents_of(fold(self.bench.journal))

    @rule()
    def an_image_restores_the_state(self) -> None:
        state = self.bench.core.state
        restored = State.restore(decode_image(encode(state.image())), state.parts())
        assert image_of(restored) == image_of(state)
        assert made_by_requests(restored) == made_by_requests(state)
        assert (restored.errands, restored.homes) == (state.errands, state.homes)
        if self.attempt is not None:
            other = restored.attempts["run", "one"]
            assert other.config.now() == self.attempt.config.now()
            assert other.config.now() == self.attempt.config.at(self.attempt.revision)
            assert (other.losses, other.doubtful) == (self.attempt.losses, self.attempt.doubtful)
            assert list(other.open) == list(self.attempt.open)
            assert list(other.deferred) == list(self.attempt.deferred)
            assert all(other.ledgers[number] is ledger for number, ledger in other.open.items())

    @invariant()
    def revisions_are_consecutive(self) -> None:
        if self.attempt is not None:
            numbers = [ledger.revision.revision for ledger in self.attempt.ledgers]
            assert numbers == list(range(1, len(numbers) + 1))

    @invariant()
    def an_outcome_is_final_unless_it_was_lost(self) -> None:
        for ledger in self.attempt.ledgers if self.attempt else ():
            for replica, outcome in ledger.outcomes.items():
                key = ledger.revision.revision, replica
                before = self.finals.setdefault(key, outcome)
                assert before == outcome or before.outcome == "lost", "an outcome changed"
                self.finals[key] = outcome

    @invariant()
    def only_who_is_there_owes_an_answer(self) -> None:
        if self.attempt is not None:
            present = {replica.id for replica in self.attempt.present()}
            for number in self.attempt.open:
                ledger = self.attempt.ledgers[number]
                missing = {name for name in ledger.targets if name not in ledger.outcomes}
                assert missing
                assert missing <= present

    @invariant()
    def a_rank_has_one_holder(self) -> None:
        ranks = [replica.rank for replica in self.attempt.present()] if self.attempt else []
        assert len(ranks) == len(set(ranks))


def contents_of(state: State) -> object:
    """Return what a state holds, without a look at how."""
    attempts = [
        (
            *(attempt.started, attempt.replicas, attempt.left, attempt.config.now()),
            *(attempt.losses, attempt.doubtful, attempt.noted, list(attempt.open), list(attempt.deferred)),
            [(ledger.revision, ledger.row()) for ledger in attempt.ledgers],
        )
        for attempt in state.attempts.values()
    ]
    return state.epoch, attempts, state.failed_devices, state.errands


def image_of(state: State) -> Image:
    return decode_image(encode(state.image()))


def made_by_requests(state: State) -> dict[tuple[str, str], int | None]:
    """Return the revision of each request."""
    requests = [(user, request) for user, made in state.requests.items() for request in made]
    found = {request: state.made_by(request) for request in requests}
    return {request: made and made[1] for request, made in found.items()}


TestBroker = Broker.TestCase
TestBroker.settings = settings(
    max_examples=2 * settings().max_examples,
    stateful_step_count=50,
    suppress_health_check=[HealthCheck.too_slow],
)
