# ruff: noqa: E501
"""The guarantees, as what must be true of a world of joined cores in the end."""

from collections.abc import Iterator

from tests.unit.pair_guarantees import Guarantees
from tests.unit.pair_support import BEAT
from tests.unit.pair_trainer import Trainer
from zloom.model import Revision
from zloom.session_reports import RESEND_BEATS

SETTLING = 12.0
"""Seconds until all is said: 6 until one that is absent is lost, 1 until who waits for its rank asks again, and
the repetitions of what was lost."""


class Ends(Guarantees):
    """A world that can be brought to rest, and what holds then."""

    def settle(self) -> None:
        """Everybody who lives gets all that is on its way, and time."""
        if self.world.broker is None:
            self.world.start_broker()
        for trainer in self.trainers:
            trainer.ready = True
            trainer.meanwhile = lambda: None
        self.calm()
        self.world.advance(SETTLING, self.calm)
        self.check_settled()

    def calm(self) -> None:
        self.world.notice_cuts()
        self.world.flush()
        for trainer in self.trainers:
            trainer.safe_point()
            trainer.post()
        self.world.flush()

    def check_settled(self) -> None:
        joined = list(self.joined())
        self.g2_all_have_all(joined)
        self.g3_all_hold_the_desired_config(joined)
        self.g4_nothing_is_pending_for_ever()
        self.g4_nobody_who_is_here_is_lost(joined)
        self.g2_who_was_ahead_was_rolled_back(joined)
        self.g4_what_was_answered_is_not_answered_for_ever()

    def joined(self) -> Iterator[Trainer]:
        """Yield who holds a rank; others wait for it."""
        present = {replica.id for replica in self.attempt.present()} if self.attempt else set()
        for trainer in self.trainers:
            if trainer.name in present:
                yield trainer
            else:
                assert any(other.rank == trainer.rank for other in self.trainers if other.name in present)

    def g2_all_have_all(self, joined: list[Trainer]) -> None:
        for trainer in joined:
            assert trainer.active, f"G2: {trainer.name} is {trainer.session.state}"
            assert self.attempt is not None
            assert trainer.chain == self.attempt.chain, f"G2: {trainer.name} has another history"

    def g2_who_was_ahead_was_rolled_back(self, joined: list[Trainer]) -> None:
        held = {revision.chain for revision in self.history} | {b""}
        for trainer in joined:
            behind = self.ahead.get(trainer.name, b"") in held
            assert behind or trainer.rollbacks, f"G2: {trainer.name} was ahead and was not rolled back"
        rollbacks = sum(trainer.rollbacks for trainer in self.everyone)
        assert rollbacks <= self.events.count("rolled_back"), "G2: a rollback was not told of"

    def g3_all_hold_the_desired_config(self, joined: list[Trainer]) -> None:
        config = self.attempt.config.now() if self.attempt else {}
        for trainer in joined:
            if trainer.refused_a_snapshot:
                continue
            for key, setting in config.items():
                revision = self.history[setting.revision - 1] if setting.revision else None
                if revision is None or self.took(trainer, revision):
                    assert trainer.effective[key] == setting.value, f"G3: {trainer.name} differs in {key}"

    def took(self, trainer: Trainer, revision: Revision) -> bool:
        decided = self.decided(trainer.name, revision)
        return all(each == "applied" for each in decided)

    def g4_nothing_is_pending_for_ever(self) -> None:
        for ledger in self.attempt.ledgers if self.attempt else ():
            missing = [name for name in ledger.targets if name not in ledger.outcomes]
            assert not missing, f"G4: {missing} never answer revision {ledger.revision.revision}"
        assert not self.operator.session.requests, "G4: the operator waits for ever"

    def g4_nobody_who_is_here_is_lost(self, joined: list[Trainer]) -> None:
        here = {trainer.name for trainer in joined}
        for ledger in self.attempt.ledgers if self.attempt else ():
            lost = {name for name, outcome in ledger.outcomes.items() if outcome.outcome == "lost"}
            assert not lost & here, "G4: one that came back has not amended its outcome"

    def g4_what_was_answered_is_not_answered_for_ever(self) -> None:
        told = [trainer.outcomes_sent for trainer in self.trainers]
        self.world.advance(2 * RESEND_BEATS * BEAT, self.calm)
        now = [trainer.outcomes_sent for trainer in self.trainers]
        assert told == now, "G4: an outcome is sent for ever"
