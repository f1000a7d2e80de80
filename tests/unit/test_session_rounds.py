"""What a session says and hears of consistent revisions: messages and time in, effects out."""

import pytest

from tests.unit.test_session import REPLICA, STEER, active, applied, chain, sent
from zloom import messages as m
from zloom.model import Outcome, Revision
from zloom.session import Session
from zloom.session_effects import Concluded, Decided, Deliver, Prepared
from zloom.session_link import INTERVAL
from zloom.session_state import State

NOW = 0.5


def revision(number: int = 1) -> Revision:
    return Revision(number, "config", {"learning_rate": 0.5}, mode="consistent", chain=chain(number))


def prepare(number: int = 1, *, round: int = 1, epoch: str = "e1") -> m.Prepare:
    return m.Prepare(epoch=epoch, round=round, step=9, revision=revision(number))


def promise(*, round: int = 1, promised: bool = True, epoch: str = "e1") -> m.Promise:
    return m.Promise(epoch=epoch, revision=1, round=round, step=9, promised=promised)


def confirm(round: int = 1) -> m.Confirm:
    return m.Confirm(epoch="e1", revision=1, round=round, step=9)


def decision(round: int = 1, epoch: str = "e1") -> m.Decision:
    return m.Decision(epoch=epoch, revision=1, round=round, commit=True)


def conclusion(round: int = 1) -> m.Conclusion:
    return m.Conclusion(epoch="e1", revision=1, round=round, keep=True)


def said(session: Session, now: float) -> list[m.Message]:
    """Let the timers ring; return what was said of rounds."""
    return [message for message in sent(session.on_timer(now)) if isinstance(message, m.Promise | m.Confirm)]


# --- said until it is answered -------------------------------------------------------------------


def test_a_promise_is_said_at_once_and_each_second_until_the_decision() -> None:
    session = active(1)
    session.insist(promise(), NOW)
    assert said(session, NOW) == [promise()]
    assert said(session, NOW + INTERVAL - 0.1) == []
    assert said(session, NOW + INTERVAL) == [promise()]
    assert session.receive_control(decision(), NOW + 1.1) == [Decided(decision())]
    assert said(session, NOW + 2 * INTERVAL) == []


def test_a_promise_to_another_life_of_the_broker_takes_no_confirmations_place() -> None:
    """That life may lack what was confirmed, and the training waits to hear so."""
    session = active(1)
    session.insist(confirm(), NOW)
    session.insist(promise(epoch="e2"), NOW)
    assert said(session, NOW) == said(session, NOW + INTERVAL) == [confirm(), promise(epoch="e2")]
    session.receive_control(conclusion(), NOW + 1.1)
    assert said(session, NOW + 2 * INTERVAL) == [promise(epoch="e2")]


def test_a_promise_to_another_life_takes_a_promises_place() -> None:
    session = active(1)
    session.insist(promise(), NOW)
    session.insist(promise(epoch="e2"), NOW)
    assert said(session, NOW) == [promise(epoch="e2")]


@pytest.mark.parametrize("other", [decision(round=2), decision(epoch="e0"), conclusion()])
def test_another_answer_does_not_end_it(other: m.Decision | m.Conclusion) -> None:
    session = active(1)
    session.insist(promise(), NOW)
    session.on_timer(NOW)
    session.receive_control(other, NOW)
    assert said(session, NOW + INTERVAL) == [promise()]


def test_what_promises_nothing_is_said_once() -> None:
    session = active(1)
    session.insist(promise(promised=False), NOW)
    assert said(session, NOW) == [promise(promised=False)]
    assert said(session, NOW + INTERVAL) == []


def test_a_later_round_s_promise_takes_the_place_of_the_earlier_one() -> None:
    session = active(1)
    session.insist(promise(round=1), NOW)
    session.insist(promise(round=2), NOW)
    assert said(session, NOW) == [promise(round=2)]


def test_g9_a_late_prepare_does_not_end_what_is_said_of_a_later_round() -> None:
    session = active(1)
    session.insist(promise(round=2), NOW)
    session.on_timer(NOW)
    session.insist(promise(round=1, promised=False), NOW)
    assert said(session, NOW + INTERVAL) == [promise(round=2)]
    session.insist(confirm(round=2), NOW + INTERVAL)
    session.insist(promise(round=2), NOW + INTERVAL)
    assert said(session, NOW + 2 * INTERVAL) == [confirm(round=2)]


def test_a_confirmation_is_said_until_the_conclusion_and_no_decision_ends_it() -> None:
    session = active(1)
    session.insist(promise(), NOW)
    session.insist(confirm(), NOW)
    assert said(session, NOW) == [confirm()]
    session.receive_control(decision(), NOW)
    assert said(session, NOW + INTERVAL) == [confirm()]
    assert session.receive_control(conclusion(), NOW + 1.1) == [Concluded(conclusion())]
    assert said(session, NOW + 2 * INTERVAL) == []


def test_an_outcome_says_more_than_either() -> None:
    session = active(1)
    session.insist(confirm(), NOW)
    assert sent(session.answer(1, applied(9), NOW)) == [
        m.Outcomes(epoch="e1", outcomes={1: Outcome("a", 1, "applied", step=9)})
    ]
    assert said(session, NOW) == []


def test_a_promise_outlives_the_connection_and_is_said_again_once_the_history_is_complete() -> None:
    session = active(1)
    session.insist(promise(), NOW)
    session.on_timer(NOW)
    session.receive_control(m.HelloRequired(), 1.0)
    assert said(session, 2.0) == []
    session.receive_control(
        m.Welcome(protocol=1, epoch="e2", updates="tcp://*:5556", beat=1.0, credit=90, max_message_size=9999),
        2.0,
    )
    assert said(session, 2.5) == []
    session.receive_update(b"echo/n2/", m.Echo(nonce="n2"), 2.6)
    session.receive_control(m.Log(epoch="e2", revisions=[]), 2.7)
    assert session.state is State.ACTIVE
    assert said(session, 2.7) == [promise()]
    assert session.receive_control(decision(epoch="e1"), 2.8) == [Decided(decision())]


def test_decisions_are_heard_while_the_history_is_incomplete() -> None:
    session = active(1)
    session.receive_update(STEER, m.Beat(epoch="e1", revision=5, seq=1), NOW)
    assert session.state is State.SYNCING
    assert session.receive_control(decision(), NOW) == [Decided(decision())]


# --- prepare -------------------------------------------------------------------------------------


def test_a_prepare_is_handed_over() -> None:
    session = active(1)
    assert session.receive_control(prepare(1), NOW) == [Prepared(prepare(1))]


def test_a_prepare_of_another_epoch_is_not() -> None:
    session = active(1)
    assert session.receive_control(prepare(1, epoch="e0"), NOW) == []
    assert session.counters.stale == 1


def test_a_prepare_that_comes_before_its_revision_brings_it() -> None:
    session = active(1)
    assert session.receive_control(prepare(2), NOW) == [Deliver(revision(2)), Prepared(prepare(2))]
    published = m.Revised(epoch="e1", run="run", attempt="one", revision=revision(2), seq=1)
    assert session.receive_update(STEER, published, NOW) == []
    assert session.answer(2, applied(9), NOW), "the outcome was dropped"


def test_a_prepare_after_a_gap_asks_for_what_is_missing_and_leaves_the_round() -> None:
    session = active(1)
    effects = session.receive_control(prepare(3), NOW)
    assert sent(effects) == [m.Sync(nonce="n1", epoch="e1", revision=1, chain=b"c1")]
    assert not any(isinstance(effect, Prepared) for effect in effects)
    session.receive_control(m.Log(epoch="e1", revisions=[revision(2)]), NOW)
    assert session.state is State.ACTIVE
    assert session.revision == 3
    assert session.receive_control(prepare(3, round=2), NOW) == [Prepared(prepare(3, round=2))]


def test_a_prepare_is_not_handed_over_while_the_history_is_incomplete() -> None:
    session = active(1)
    session.receive_update(STEER, m.Beat(epoch="e1", revision=5, seq=1), NOW)
    assert session.receive_control(prepare(1), NOW) == []


def test_the_replica_s_own_name_goes_with_an_outcome_of_a_round() -> None:
    session = active(1)
    (outcomes,) = sent(session.answer(1, Outcome("", outcome="aborted", error="rank 0: lost"), NOW))
    assert isinstance(outcomes, m.Outcomes)
    assert outcomes.outcomes[1].replica == REPLICA.id
