# ruff: noqa: E501
"""The guarantees, as what must be true at each moment of a world of joined cores."""

from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant

from tests.unit.pair_operators import Operator, Parrot
from tests.unit.pair_support import World
from tests.unit.pair_trainer import Decision, Trainer
from zloom import messages as m
from zloom.codec import steer_topic
from zloom.model import Revision, Value
from zloom_broker.attempt import Attempt
from zloom_broker.effects import Effect, Publish, Send
from zloom_broker.records import RevisionAccepted

STEER = steer_topic("run", "one")

THEFT: dict[str, Value] = {"rate": 0.0625}
"""What nobody else asks for."""

VALID: dict[str, Callable[[Any], bool]] = {
    "rate": lambda value: 0 < value <= 1,
    "depth": lambda value: isinstance(value, int) and value >= 1,
    "tint": lambda value: isinstance(value, int) and value >= 0,
}
"""What the trainers' schemas allow."""


class Guarantees(RuleBasedStateMachine):
    """A world that is watched: each invariant and each thing that the broker tells, by the guarantee's name."""

    def build(self, credit: int) -> None:
        """Make a world without trainers."""
        self.world = World(credit)
        self.world.told = self.look
        self.world.written = self.note
        self.trainers: list[Trainer] = []
        self.everyone: list[Trainer] = []
        self.requests: dict[str, m.FromOperator] = {}
        self.parents: dict[bytes, bytes] = {}
        self.numbers: dict[bytes, int] = {b"": 0}
        self.revisions: dict[bytes, Revision] = {}
        """All that ever reached the disk, by digest; `parents` and `numbers` go with it."""
        self.accepted: dict[str, Revision] = {}
        self.made: Counter[str] = Counter()
        """Revisions of each request: more than one only where a restored backup had forgotten it."""
        self.finals: dict[tuple[bytes, str], str] = {}
        self.backups = 0
        self.ahead: dict[str, bytes] = {}
        self.events: list[str] = []
        self.operator = Operator(self.world)
        self.parrot = Parrot(self.world)
        self.thief = Parrot(self.world)
        """Says something else under ids that others have used."""

    # --- what is seen -----------------------------------------------------------------------------

    @property
    def attempt(self) -> Attempt | None:
        """What the disk holds of the attempt."""
        return self.world.disk.state.attempts.get(("run", "one"))

    @property
    def history(self) -> list[Revision]:
        return [ledger.revision for ledger in self.attempt.ledgers] if self.attempt else []

    def note(self, record: RevisionAccepted) -> None:
        """A revision reached the disk."""
        revision = record.revision
        assert self.attempt is not None
        self.parents[revision.chain] = self.attempt.chain_at(revision.revision - 1)
        self.numbers[revision.chain] = revision.revision
        self.revisions[revision.chain] = revision
        self.made[revision.request_id] += 1
        for key, value in revision.changes.items():
            assert VALID[key](value), "G6: a value that nobody allows is on disk"
        assert revision.request_id not in self.accepted, "G5: a request had two effects"
        self.accepted[revision.request_id] = revision

    def look(self, effect: Effect) -> None:
        """The broker tells something; it must be true on disk already."""
        match effect:
            case Publish(message=m.Revised() as revised):
                self.g1_the_journal_has(revised.revision)
            case Publish(message=m.Beat() as beat):
                assert (beat.revision or 0) <= len(self.history), "G1: a beat tells of what is not on disk"
            case Publish(message=m.Happened() as happened):
                self.events.append(happened.event.kind)
            case Send(message=m.Log() as log):
                for revision in log.revisions:
                    self.g1_the_journal_has(revision)
            case Send(message=m.Snapshot() as snapshot):
                self.g3_a_snapshot_is_the_broker_s_state(snapshot)
            case Send(message=m.Ping() as ping):
                self.g1_outcomes_are_on_disk(effect.peer, ping)
            case Send(message=m.RevisionState() as state):
                self.g1_what_was_accepted_is_on_disk(state)
                if effect.peer == self.thief.line.control.identity:
                    made = self.history[state.revision - 1]
                    assert made.changes == THEFT, "G5: another body was answered under a used id"

    def g1_the_journal_has(self, revision: Revision) -> None:
        assert revision in self.history, "G1: a revision is told of and not on disk"

    def g1_what_was_accepted_is_on_disk(self, state: m.RevisionState) -> None:
        assert state.revision <= len(self.history), "G1: accepted and not on disk"
        request = self.requests.get(state.id)
        if request is not None:
            made = self.history[state.revision - 1]
            assert made.request_id == state.id, "G5: an answer names the revision of another request"
        ledger = self.attempt.ledgers[state.revision] if self.attempt else None
        assert ledger is not None
        for outcome in state.outcomes:
            assert outcome.outcome is None or outcome.replica in ledger.outcomes, (
                "G1: an outcome is not on disk"
            )

    def g1_outcomes_are_on_disk(self, identity: bytes, ping: m.Ping) -> None:
        names = [t.name for t in self.everyone if t.line.control.identity == identity]
        for number in ping.recorded:
            ledger = self.attempt.ledger(number) if self.attempt else None
            for name in names:
                if ledger is not None and name in ledger.targets:
                    assert name in ledger.outcomes, "G1: an outcome is acknowledged and not on disk"

    def g3_a_snapshot_is_the_broker_s_state(self, snapshot: m.Snapshot) -> None:
        assert snapshot.revision <= len(self.history), "G1: a snapshot shows what is not on disk"
        for revision in snapshot.pending:
            self.g1_the_journal_has(revision)
        assert self.attempt is not None
        later = {revision.revision for revision in snapshot.pending}
        expected: dict[str, Value] = {}
        for ledger in islice(self.attempt.ledgers, snapshot.revision):
            if ledger.revision.revision not in later and not ledger.void:
                expected |= ledger.revision.changes
        assert snapshot.config == expected, "G3: a snapshot is not the broker's config"

    # --- the guarantees ---------------------------------------------------------------------------

    @invariant()
    def g1_what_was_accepted_stays(self) -> None:
        held = {revision.request_id: revision for revision in self.history}
        for answered in self.operator.answers:
            answer = answered.answer
            if isinstance(answer, m.RevisionState) and not self.backups:
                assert answer.id != answered.request or answer.id in held, "G1: accepted and forgotten"
        assert held == self.accepted, "G1: the journal has lost a revision"

    @invariant()
    def g2_every_revision_in_order_and_once(self) -> None:
        for trainer in self.everyone:
            for step in trainer.steps:
                assert step.chain in self.numbers, "G1: delivered and never on disk"
                assert self.numbers[step.chain] == step.number
                if step.before is not None:
                    assert step.before == self.parents[step.chain], "G2: a gap, or out of order"
            trainer.steps.clear()

    @invariant()
    def g2_decided_once(self) -> None:
        for trainer in self.everyone:
            for token, times in Counter(trainer.marks).items():
                assert times <= self.made[token], "G2: a command was carried out twice"
            if trainer.rollbacks:
                continue
            numbers = [decision.number for decision in trainer.decisions if not decision.snapshot]
            assert len(numbers) == len(set(numbers)), "G2: a revision was carried out twice"
            for key in ("rate", "depth", "tint"):
                applied = [
                    d.number for d in trainer.decisions if d.outcome == "applied" and self.sets(d, key)
                ]
                assert applied == sorted(applied), "G2: a later value was overtaken by an earlier one"

    def sets(self, decision: Decision, key: str) -> bool:
        revision = self.revision_of(decision)
        return not decision.snapshot and revision is not None and key in revision.changes

    def revision_of(self, decision: Decision) -> Revision | None:
        """Return what was decided about; None for the baseline."""
        return self.revisions.get(self.chain_of(decision))

    def chain_of(self, decision: Decision) -> bytes:
        chain = decision.chain
        while self.numbers[chain] > decision.number:
            chain = self.parents[chain]
        return chain

    @invariant()
    def g3_subscribed_before_it_asks(self) -> None:
        for trainer in self.trainers:
            updates = trainer.line.updates
            if trainer.active and updates is not None and not (updates.cut or updates.remade):
                assert STEER in updates.arrived, "G3: active and not subscribed"

    @invariant()
    def g4_an_outcome_is_final_unless_it_was_lost(self) -> None:
        for ledger in self.attempt.ledgers if self.attempt else ():
            for name, outcome in ledger.outcomes.items():
                key = ledger.revision.chain, name
                before = self.finals.setdefault(key, outcome.outcome or "")
                assert before in (outcome.outcome, "lost"), "G4: an outcome changed"
                self.finals[key] = outcome.outcome or ""

    @invariant()
    def g4_an_outcome_is_what_the_replica_decided(self) -> None:
        for ledger in self.attempt.ledgers if self.attempt else ():
            for name, outcome in ledger.outcomes.items():
                if outcome.outcome not in ("lost", "not_reached"):
                    decided = self.decided(name, ledger.revision)
                    assert outcome.outcome in decided, f"G4: {name} decided {decided}, not {outcome.outcome}"

    @invariant()
    def g4_what_was_taken_back_is_not_applied(self) -> None:
        for trainer in self.everyone:
            taken_back: set[int] = set()
            for decision in trainer.decisions if not trainer.rollbacks else ():
                revision = self.revision_of(decision)
                if revision is not None and not decision.snapshot:
                    applied = decision.outcome == "applied"
                    assert not (applied and decision.number in taken_back), "G4: applied after its cancel"
                    taken_back |= {revision.cancels} if revision.kind == "cancel" else set()

    def decided(self, name: str, revision: Revision) -> list[str | None]:
        trainer = next(trainer for trainer in self.everyone if trainer.name == name)
        mine = [decision for decision in trainer.decisions if decision.number == revision.revision]
        return [decision.outcome for decision in mine if self.chain_of(decision) == revision.chain]

    @invariant()
    def g6_all_or_nothing(self) -> None:
        for trainer in self.everyone:
            assert trainer.effective == trainer.registry.values, (
                "G6: the trainer is not what the registry says"
            )
            for each in trainer.registry.applications:
                after = {**each.before, **each.changes} if each.applied else each.before
                assert each.after == after, "G6: a part was applied, or something is left of what failed"
