"""One revision's outcomes."""

from zloom.model import Outcome, OutcomeKind, Revision
from zloom_broker.ledger import Ledger


def outcome(replica: str, kind: OutcomeKind) -> Outcome:
    return Outcome(replica, outcome=kind)


def make_ledger(*outcomes: Outcome) -> Ledger:
    return Ledger(Revision(1, "config", {"learning_rate": 0.5}), ["a", "b", "c"], outcomes, b"")


def test_the_first_refusal_is_of_those_that_still_refuse() -> None:
    ledger, firsts = make_ledger(), []
    lost, rejected = outcome("b", "lost"), outcome("c", "rejected")
    for said in (outcome("a", "applied"), lost, rejected, outcome("b", "applied"), rejected):
        ledger.answer(said)
        firsts.append(ledger.first_refusal)
    ledger.answer(outcome("c", "applied"))

    assert [*firsts, ledger.first_refusal] == [None, lost, lost, rejected, rejected, None]


def test_a_restored_ledger_knows_who_refused() -> None:
    lost = outcome("a", "lost")
    restored, came_back = (make_ledger(lost, outcome("b", "applied")) for _ in range(2))
    came_back.answer(outcome("a", "applied"))

    assert (restored.first_refusal, came_back.first_refusal) == (lost, None)
