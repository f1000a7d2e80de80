"""One revision's outcomes."""

from zloom.model import Outcome, OutcomeKind, Revision
from zloom_broker.ledger import Ledger


def outcome(replica: str, kind: OutcomeKind) -> Outcome:
    return Outcome(replica, outcome=kind)


def make_ledger(*outcomes: Outcome) -> Ledger:
    return Ledger(Revision(1, "config", {"learning_rate": 0.5}), ["a", "b", "c"], outcomes, b"")


def test_the_first_refusal_is_of_those_that_still_refuse() -> None:
    ledger = make_ledger()
    ledger.answer(outcome("a", "applied"))
    assert ledger.first_refusal is None
    ledger.answer(lost := outcome("b", "lost"))
    ledger.answer(rejected := outcome("c", "rejected"))
    assert ledger.first_refusal == lost
    ledger.answer(outcome("b", "applied"))
    ledger.answer(rejected)
    assert ledger.first_refusal == rejected
    ledger.answer(outcome("c", "applied"))
    assert ledger.first_refusal is None


def test_a_restored_ledger_knows_who_refused() -> None:
    lost = outcome("a", "lost")
    ledger = make_ledger(lost, outcome("b", "applied"))
    assert ledger.first_refusal == lost
    ledger.answer(outcome("a", "applied"))
    assert ledger.first_refusal is None
