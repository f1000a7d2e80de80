"""The weavelet's session by example: messages and time in, effects out."""

import itertools

import pytest
from msgspec.structs import replace

from zloom import codec
from zloom import messages as m
from zloom.codec import echo_topic, own_topic, steer_topic
from zloom.credit import STREAMED
from zloom.effects import Connect, Reconnect, Send, Subscribe, Unsubscribe
from zloom.errors import LocalProtocolError
from zloom.history import BUFFER_LIMIT
from zloom.model import Command, Device, Key, Outcome, Replica, Revision, Schema
from zloom.outcome_table import BATCH, KEPT, TEXT_LIMIT, OutcomeTable
from zloom.restoring import Restore
from zloom.session import Session
from zloom.session_effects import Closed, CollectStatus, Deliver, Effect, Failed, Hand, Say, Warn
from zloom.session_state import State

CONTROL = "tcp://gpu-1:5555"
STEER = steer_topic("run", "one")
REPLICA = Replica("a", "run", "one", rank=1, world_size=2)
WELCOME = m.Welcome(
    protocol=1, epoch="e1", updates="tcp://*:5556", beat=1.0, credit=100, max_message_size=1 << 20
)
LEARNING_RATE = Key("learning_rate", Schema(["number"]), 0.1)
STATUS = m.Status(seq=0, step=7)
GOES_ON = "the training goes on, and it is tried again"


def make_session(inherit: bool = False) -> Session:
    numbers = itertools.count(1)
    return Session(REPLICA, CONTROL, "test", lambda: f"n{next(numbers)}", inherit=inherit)


def hello(nonce: str = "n1", replica: Replica = REPLICA) -> Send:
    return Send(
        m.Hello(
            protocols=[1], role="weavelet", software="test", endpoint=CONTROL, nonce=nonce, replica=replica
        )
    )


def sync(nonce: str = "n1", revision: int = -1, epoch: str = "") -> Send:
    return Send(m.Sync(nonce=nonce, epoch=epoch, revision=revision, chain=chain(revision)))


def chain(revision: int) -> bytes:
    return b"c%d" % revision if revision > 0 else b""


def change(number: int) -> Revision:
    return Revision(number, "config", {"learning_rate": number / 10}, chain=chain(number))


def revised(number: int, epoch: str = "e1") -> m.Revised:
    return m.Revised(epoch=epoch, run="run", attempt="one", revision=change(number), seq=number)


def is_active(session: Session) -> bool:
    return session.state is State.ACTIVE


def applied(step: int = 5) -> Outcome:
    return Outcome("", outcome="applied", step=step)


def syncing(now: float = 0.0, welcome: m.Welcome = WELCOME) -> Session:
    """A session whose echo has come."""
    session = make_session()
    session.start(now)
    session.receive_control(welcome, now)
    session.receive_update(echo_topic("n1"), m.Echo(nonce="n1"), now)
    return session


def active(revision: int = 0, now: float = 0.0, welcome: m.Welcome = WELCOME) -> Session:
    """A session that stands at a revision and has sent its first status."""
    session = syncing(now, welcome)
    session.receive_control(m.Snapshot(epoch="e1", revision=revision, chain=chain(revision)), now)
    assert is_active(session)
    assert session.on_timer(now) == [CollectStatus()]
    return session


def sent(effects: list[Effect]) -> list[m.Message]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


# --- connecting ----------------------------------------------------------------------------------


def test_start_says_hello() -> None:
    session = make_session()
    assert session.next_timer() is None
    assert session.start(10.0) == [hello()]
    assert session.state is State.CONNECTING
    assert session.next_timer() == 11.0


def test_hello_tells_that_the_attempt_inherits() -> None:
    effects = make_session(inherit=True).start(0.0)
    assert [message.inherit for message in sent(effects) if isinstance(message, m.Hello)] == [True]


def test_hello_is_said_three_times_then_the_sockets_are_made_anew() -> None:
    session = make_session()
    session.start(0.0)
    assert session.on_timer(0.5) == []
    assert session.on_timer(1.0) == [hello()]
    assert session.on_timer(2.0) == [hello()]
    said = Say(f"no broker answers at {CONTROL}; {GOES_ON}")
    assert session.on_timer(3.0) == [Reconnect(), hello("n2"), said]
    assert session.counters.reconnects == 1
    assert session.next_timer() == 4.0


def test_hello_is_said_more_seldom_to_nobody_until_somebody_has_answered() -> None:
    session, said = make_session(), []
    session.start(0.0)
    while (now := session.next_timer()) is not None and now < 24.0:
        session.on_timer(now)
        said.append(now)
    assert said == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0]
    session.receive_control(WELCOME, 24.0)
    session.receive_control(m.HelloRequired(), 25.0)
    assert session.next_timer() == 26.0


def test_welcome_subscribes_the_nonce_last() -> None:
    session = make_session()
    session.start(0.0)
    assert session.receive_control(WELCOME, 0.1) == [
        Connect("tcp://gpu-1:5556"),
        Subscribe(STEER),
        Subscribe(echo_topic("n1")),
    ]
    assert session.state is State.SYNCING


def test_updates_are_where_the_broker_says_when_it_says() -> None:
    session = make_session()
    session.start(0.0)
    effects = session.receive_control(replace(WELCOME, updates="ipc:///tmp/updates"), 0.1)
    assert effects[0] == Connect("ipc:///tmp/updates")


def test_only_the_echo_of_its_own_nonce_leads_to_the_question() -> None:
    session = make_session()
    session.start(0.0)
    session.receive_control(WELCOME, 0.0)
    assert session.receive_update(echo_topic("n0"), m.Echo(nonce="n0"), 0.1) == []
    assert session.receive_update(echo_topic("n1"), m.Echo(nonce="n1"), 0.1) == [sync()]
    assert session.receive_update(echo_topic("n1"), m.Echo(nonce="n1"), 0.2) == []


def test_an_echo_that_does_not_come_is_asked_for_again() -> None:
    session = make_session()
    session.start(0.0)
    session.receive_control(WELCOME, 0.0)
    topic = echo_topic("n1")
    assert session.on_timer(1.0) == [Unsubscribe(topic), Subscribe(topic)]
    assert session.on_timer(2.0) == [Unsubscribe(topic), Subscribe(topic)]


def test_a_question_without_an_answer_is_asked_again() -> None:
    session = syncing()
    assert session.on_timer(1.0) == [sync()]
    assert session.counters.syncs == 2


def test_wait_says_hello_again_when_it_was_told_to() -> None:
    session = make_session()
    session.start(0.0)
    effects = session.receive_control(m.Wait(reason="rank 1 is taken", retry=5.0), 0.1)
    assert effects == [Warn("waiting", "the broker does not take this replica yet: rank 1 is taken")]
    assert session.on_timer(5.0) == []
    assert session.on_timer(5.1) == [hello()]


def test_waiting_does_not_make_the_sockets_anew() -> None:
    session = make_session()
    session.start(0.0)
    for now in range(1, 10):
        session.receive_control(m.Wait(reason="taken", retry=1.0), float(now) - 0.5)
        assert session.on_timer(now + 0.5) == [hello()]


def test_a_refusal_ends_the_session_and_not_the_training() -> None:
    session = make_session()
    session.start(0.0)
    effects = session.receive_control(m.Error(code="protocol_version", text="this broker speaks 2"), 0.1)
    assert isinstance(effects[0], Warn)
    assert "this broker speaks 2" in effects[0].text
    assert effects[1:] == [Closed(farewell=False)]
    assert session.state is State.CLOSED
    assert session.next_timer() is None
    assert session.receive_control(WELCOME, 0.2) == []


def test_a_complaint_later_is_only_told() -> None:
    session = active()
    effects = session.receive_control(m.Error(code="too_large", text="too much"), 0.1)
    assert effects == [Warn("error too_large", "the broker complains: too much")]
    assert is_active(session)


def test_a_broker_that_does_not_know_this_peer_is_told_on_the_same_sockets() -> None:
    session = active(revision=4)
    assert session.receive_control(m.HelloRequired(), 1.0) == [hello("n2")]
    assert session.receive_control(m.HelloRequired(), 1.0) == []
    effects = session.receive_control(WELCOME, 1.1)
    assert effects == [Unsubscribe(echo_topic("n1")), Subscribe(echo_topic("n2"))]
    effects = session.receive_update(echo_topic("n2"), m.Echo(nonce="n2"), 1.2)
    assert effects == [sync("n2", 4, "e1")]


def test_another_epoch_says_hello_again() -> None:
    session = active(revision=4)
    assert session.receive_update(STEER, m.Beat(epoch="e2", seq=1), 0.5) == [hello("n2")]


def test_a_revision_of_another_epoch_is_not_delivered() -> None:
    session = active(revision=4)
    assert session.receive_update(STEER, revised(5, epoch="e2"), 0.5) == [hello("n2")]


def test_a_welcome_from_another_life_while_welcome_says_hello_again() -> None:
    session = active()
    assert session.receive_control(WELCOME, 0.1) == []
    assert session.receive_control(replace(WELCOME, epoch="e2"), 0.2) == [hello("n2")]


def test_three_beats_of_silence_make_the_sockets_anew() -> None:
    session = active()
    session.receive_update(STEER, m.Beat(epoch="e1", seq=1), 1.0)
    assert Reconnect() not in session.on_timer(3.9)
    assert session.on_timer(4.0)[:2] == [Reconnect(), hello("n2")]
    assert session.receive_control(WELCOME, 4.1)[0] == Connect("tcp://gpu-1:5556")


def test_six_beats_without_a_word_on_control_make_the_sockets_anew() -> None:
    """Its statuses leave for nowhere, though beats still come: only its control has died."""
    session = active()
    session.receive_control(m.Credit(received=2), 2.0)
    for second in range(1, 9):
        session.receive_update(STEER, m.Beat(epoch="e1", seq=second), float(second))
        assert (Reconnect() in session.on_timer(float(second))) is (second == 8)


def test_a_broker_that_can_answer_no_sync_yet_is_asked_on_over_the_same_sockets() -> None:
    session = syncing()
    effects: list[Effect] = []
    for second in range(1, 30):
        effects += session.receive_update(STEER, m.Beat(epoch="e1", seq=second), float(second))
        effects += session.receive_control(m.Credit(received=second + 1), float(second))
        effects += session.on_timer(float(second))
    assert len([each for each in sent(effects) if isinstance(each, m.Sync)]) > 20
    assert Reconnect() not in effects


@pytest.mark.parametrize("once_active", [False, True])
def test_control_that_dies_while_syncing_makes_the_sockets_anew(once_active: bool) -> None:
    session = active() if once_active else syncing()
    if once_active:
        session.receive_update(STEER, revised(3), 0.0)
    assert not is_active(session)
    for second in range(1, 7):
        session.receive_update(STEER, m.Beat(epoch="e1", seq=second), float(second))
        assert (Reconnect() in session.on_timer(float(second))) is (second == 6)


def test_a_longer_beat_means_more_patience_and_a_status_less_often() -> None:
    session = active()
    session.receive_update(STEER, m.Beat(epoch="e1", seq=1, beat=1.25), 1.0)
    session.on_timer(1.0)
    assert session.next_timer() == 2.25, "the next status"
    session.receive_update(STEER, m.Beat(epoch="e1", seq=1, revision=0), 1.0)
    assert Reconnect() not in session.on_timer(4.7), "a beat that tells no length changes nothing"
    assert Reconnect() in session.on_timer(4.75)


def test_an_outage_is_said_once_and_its_end_too() -> None:
    session = make_session()
    session.start(1.0)
    assert said(time_passes(session, 1.0, 60.0)) == [f"no broker answers at {CONTROL}; {GOES_ON}"]
    assert said(session.receive_control(WELCOME, 61.5)) == [f"the broker at {CONTROL} answers after 60.5 s"]
    session.receive_update(STEER, m.Beat(epoch="e1", seq=1), 62.0)
    assert said(time_passes(session, 62.0, 90.0)) == [f"no broker answers at {CONTROL}; {GOES_ON}"]
    session.receive_control(m.Wait(reason="rank 1 is taken", retry=1.0), 90.0)
    back = session.receive_control(replace(WELCOME, epoch="e2"), 92.0)
    assert said(back) == [f"the broker at {CONTROL} answers again after 30.0 s"]


def test_of_a_broker_that_has_refused_the_connection_it_is_not_said_that_none_answers() -> None:
    session = make_session()
    session.start(1.0)
    session.refused()
    assert said(time_passes(session, 1.0, 60.0)) == []
    assert said(session.receive_control(WELCOME, 61.5)) == [f"the broker at {CONTROL} answers after 60.5 s"]


def test_a_process_that_was_stopped_does_not_blame_the_broker() -> None:
    session = active()
    [stopped] = said(session.on_timer(30.0))
    assert stopped.startswith("zloom could not run in this process for 29.0 s: it was stopped, or")
    assert said(session.receive_control(WELCOME, 30.1)) == [
        f"the broker at {CONTROL} answers again after 30.1 s"
    ]


def test_a_broker_that_does_not_answer_after_a_stop_either_is_blamed_then() -> None:
    session = active()
    assert len(said(session.on_timer(30.0))) == 1
    assert said(time_passes(session, 30.0, 90.0)) == [f"no broker answers at {CONTROL}; {GOES_ON}"]


def test_a_restart_without_an_outage_is_not_said() -> None:
    session = active()
    effects = session.receive_update(STEER, m.Beat(epoch="e2", seq=1), 0.5)
    assert said(effects + session.receive_control(replace(WELCOME, epoch="e2"), 0.6)) == []


def time_passes(session: Session, now: float, until: float) -> list[Effect]:
    effects: list[Effect] = []
    while (due := session.next_timer()) is not None and due <= until:
        now = max(now, due)
        effects += session.on_timer(now)
    return effects


def said(effects: list[Effect]) -> list[str]:
    return [effect.text for effect in effects if isinstance(effect, Say)]


def test_devices_found_late_need_another_hello() -> None:
    gpu = Device("GPU-1", "A GPU", "gpu", 0)
    session = make_session()
    assert session.found_devices([], 0.0) == []
    session.start(0.0)
    again = session.found_devices([gpu], 1.0)
    assert again == [hello("n2", replace(REPLICA, devices=[gpu]))]


@pytest.mark.parametrize("use", ["start", "close"])
def test_what_no_state_allows_raises(use: str) -> None:
    session = make_session()
    session.start(0.0)
    if use == "start":
        with pytest.raises(LocalProtocolError, match="STARTED cannot happen in a session that is connecting"):
            session.start(0.0)
    else:
        session.close("finished", 0, 0.0)
        with pytest.raises(LocalProtocolError, match="LEFT cannot happen in a session that is closed"):
            session.close("finished", 0, 0.0)


# --- history -------------------------------------------------------------------------------------


def test_a_snapshot_restores_and_activates() -> None:
    session = syncing()
    pending = replace(change(6), mode="at_step", at_step=100)
    snapshot = m.Snapshot(
        epoch="e1", revision=7, chain=chain(7), config={"learning_rate": 0.5}, pending=[pending]
    )
    assert session.receive_control(snapshot, 0.1) == [Restore(7, {"learning_rate": 0.5}, [pending], "e1")]
    assert is_active(session)
    assert session.revision == 7


def test_what_comes_before_the_snapshot_is_kept_and_what_it_holds_is_dropped() -> None:
    session = syncing()
    for number in (6, 7, 8, 9):
        assert session.receive_update(STEER, revised(number), 0.1) == []
    effects = session.receive_control(m.Snapshot(epoch="e1", revision=7, chain=chain(7)), 0.2)
    assert effects == [Restore(7, epoch="e1"), Deliver(change(8)), Deliver(change(9))]
    assert session.revision == 9


def test_a_snapshot_behind_what_was_kept_asks_for_the_rest() -> None:
    session = syncing()
    session.receive_update(STEER, revised(9), 0.1)
    effects = session.receive_control(m.Snapshot(epoch="e1", revision=7, chain=chain(7)), 0.2)
    assert effects == [Restore(7, epoch="e1"), sync(revision=7, epoch="e1")]
    assert session.state is State.SYNCING
    effects = session.receive_control(m.Log(epoch="e1", revisions=[change(8), change(9)]), 0.3)
    assert effects == [Deliver(change(8)), Deliver(change(9))]
    assert is_active(session)


def test_revisions_are_delivered_in_order_and_once() -> None:
    session = active(revision=4)
    assert session.receive_update(STEER, revised(5), 0.1) == [Deliver(change(5))]
    assert session.receive_update(STEER, revised(5), 0.1) == []
    assert session.receive_update(STEER, revised(6), 0.1) == [Deliver(change(6))]


def test_a_gap_is_filled_from_the_log() -> None:
    session = active(revision=4)
    assert session.receive_update(STEER, revised(7), 0.1) == [sync(revision=4, epoch="e1")]
    assert session.state is State.SYNCING
    assert session.receive_update(STEER, revised(8), 0.1) == []
    log = m.Log(epoch="e1", revisions=[change(5), change(6), change(7)])
    assert session.receive_control(log, 0.2) == [Deliver(change(n)) for n in (5, 6, 7, 8)]
    assert is_active(session)


def test_a_beat_that_is_ahead_asks_for_the_log() -> None:
    session = active(revision=4)
    assert session.receive_update(STEER, m.Beat(epoch="e1", revision=4), 0.1) == []
    effects = session.receive_update(STEER, m.Beat(epoch="e1", revision=5), 0.2)
    assert effects == [sync(revision=4, epoch="e1")]
    effects = session.receive_control(m.Log(epoch="e1", revisions=[change(5)]), 0.3)
    assert effects == [Deliver(change(5))]
    assert is_active(session)


def test_a_log_in_parts_is_asked_for_part_by_part() -> None:
    session = active(revision=0)
    session.receive_update(STEER, m.Beat(epoch="e1", revision=2), 0.1)
    effects = session.receive_control(m.Log(epoch="e1", revisions=[change(1)], more=True), 0.2)
    assert effects == [Deliver(change(1)), sync(revision=1, epoch="e1")]
    effects = session.receive_control(m.Log(epoch="e1", revisions=[change(2)]), 0.3)
    assert effects == [Deliver(change(2))]


def test_one_that_was_active_catches_up_from_the_log() -> None:
    session = active(revision=4)
    session.receive_control(m.HelloRequired(), 1.0)
    session.receive_control(WELCOME, 1.1)
    assert session.receive_update(STEER, revised(5), 1.1) == [], "its history is not compared yet"
    session.receive_update(echo_topic("n2"), m.Echo(nonce="n2"), 1.2)
    effects = session.receive_control(m.Log(epoch="e1", revisions=[change(5)]), 1.3)
    assert effects == [Deliver(change(5))]


def test_another_history_replaces_this_one() -> None:
    session = active(revision=9)
    session.answer(9, applied(), 0.5)
    session.receive_update(STEER, m.Beat(epoch="e2"), 1.0)
    session.receive_control(replace(WELCOME, epoch="e2"), 1.1)
    session.receive_update(echo_topic("n2"), m.Echo(nonce="n2"), 1.2)
    snapshot = m.Snapshot(epoch="e2", revision=5, chain=b"other", rolled_back=True)
    assert session.receive_control(snapshot, 1.3) == [Restore(5, epoch="e2", rolled_back=True)]
    assert session.revision == 5
    assert session.on_timer(1.3) == [CollectStatus()], "the outcome of the other history's 9 is not told"
    assert session.receive_control(snapshot, 1.4) == [], "one that was sent twice rolls back once"
    session.receive_update(STEER, m.Beat(epoch="e2", revision=6), 1.5)
    assert session.receive_control(snapshot, 1.6) == [], "nor does it after a gap"


def test_g4_an_answer_of_a_history_that_was_replaced_is_not_taken_for_its_namesake_s() -> None:
    session = active(revision=9)
    session.receive_update(STEER, m.Beat(epoch="e2"), 1.0)
    session.receive_control(replace(WELCOME, epoch="e2"), 1.1)
    session.receive_update(echo_topic("n2"), m.Echo(nonce="n2"), 1.2)
    snapshot = m.Snapshot(epoch="e2", revision=5, chain=chain(5), pending=[change(5)], rolled_back=True)
    session.receive_control(snapshot, 1.3)
    session.receive_update(STEER, revised(6, "e2"), 1.3)
    effects = []
    for number, digest in ((5, chain(5)), (6, chain(6)), (4, b"old"), (5, b"old"), (6, b"old")):
        effects += session.answer(number, replace(applied(), chain=digest), 1.4)
    assert session.counters.stale == 3
    told = [each for each in sent(effects + session.on_timer(1.5)) if isinstance(each, m.Outcomes)]
    assert [{number: each.chain for number, each in one.outcomes.items()} for one in told] == [
        {5: chain(5)},
        {6: chain(6)},
    ]


def test_an_answer_to_a_revision_that_a_rollback_took_away_is_dropped() -> None:
    session = active(revision=5)
    assert session.answer(6, applied(), 0.1) == []
    assert session.counters.stale == 1
    assert session.on_timer(0.2) == []


def test_history_of_another_epoch_is_not_taken() -> None:
    session = syncing()
    assert session.receive_control(m.Snapshot(epoch="e0", revision=7, chain=b""), 0.1) == []
    assert session.state is State.SYNCING
    assert session.counters.stale == 1


def test_the_buffer_is_bounded_and_the_log_makes_up_for_it() -> None:
    session = syncing()
    for number in range(2, BUFFER_LIMIT + 4):
        session.receive_update(STEER, revised(number), 0.1)
    effects = session.receive_control(m.Snapshot(epoch="e1", revision=1, chain=chain(1)), 0.2)
    assert effects == [Restore(1, epoch="e1"), sync(revision=1, epoch="e1")]
    log = [change(number) for number in range(2, BUFFER_LIMIT + 4)]
    effects = session.receive_control(m.Log(epoch="e1", revisions=log), 0.3)
    assert effects == [Deliver(each) for each in log]


# --- what it tells -------------------------------------------------------------------------------


def test_an_outcome_is_sent_at_once_and_those_of_the_same_moment_together() -> None:
    session = active(revision=5)
    first = Outcome("a", 1, "applied", 5)
    assert session.answer(3, applied(), 0.1) == [Send(m.Outcomes(epoch="e1", outcomes={3: first}))]
    assert session.answer(4, Outcome("", outcome="rejected", error="no"), 0.1) == []
    assert session.answer(5, applied(), 0.1005) == []
    assert session.next_timer() == pytest.approx(0.101)
    told = {4: Outcome("a", 1, "rejected", error="no"), 5: first}
    assert session.on_timer(0.102) == [Send(m.Outcomes(epoch="e1", outcomes=told))]


def test_outcomes_are_sent_until_they_are_received() -> None:
    session = active(revision=4)
    session.answer(3, applied(), 0.1)
    session.answer(4, applied(), 0.2)
    session.receive_control(m.Ping(id=1, received=3, recorded=[3]), 0.5)
    for second in (2.0, 4.0, 6.0):
        session.receive_update(STEER, m.Beat(epoch="e1"), second)
    assert not [each for each in sent(session.on_timer(6.1)) if isinstance(each, m.Outcomes)]
    again = [each for each in sent(session.on_timer(6.3)) if isinstance(each, m.Outcomes)]
    assert again == [m.Outcomes(epoch="e1", outcomes={4: Outcome("a", 1, "applied", 5)})]
    session.receive_control(m.Ping(id=2, received=4, recorded=[4]), 3.4)
    session.receive_update(STEER, m.Beat(epoch="e1"), 6.0)
    assert not [each for each in sent(session.on_timer(8.0)) if isinstance(each, m.Outcomes)]
    assert session.counters.resent == 1


def test_g4_who_leaves_says_again_what_the_broker_may_not_have_written() -> None:
    session = active(revision=4)
    session.answer(4, applied(), 0.1)
    told = sent(session.close("finished", 9, 0.2))
    assert [type(each) for each in told] == [m.Outcomes, m.Goodbye]


def test_g4_the_newest_outcomes_are_kept_in_whatever_order_they_are_acknowledged() -> None:
    table = OutcomeTable()
    for number in range(1, 3 * KEPT + 1):
        table.add(number, applied(), 0.0)
    table.acknowledge(list(range(3 * KEPT, 0, -1)))
    table.doubt()
    assert sorted(table.due(0.0, 1.0)) == list(range(2 * KEPT + 1, 3 * KEPT + 1))


@pytest.mark.parametrize(("epoch", "again"), [("e1", []), ("e2", [4])])
def test_g4_another_life_of_the_broker_is_told_again_what_a_restored_backup_may_lack(
    epoch: str, again: list[int]
) -> None:
    session = active(revision=4)
    session.answer(4, applied(), 0.1)
    session.on_timer(0.1)
    session.receive_control(m.Ping(id=1, received=3, recorded=[4]), 0.2)
    session.receive_control(m.HelloRequired(), 0.3)
    session.receive_control(replace(WELCOME, epoch=epoch), 0.4)
    session.receive_update(echo_topic("n2"), m.Echo(nonce="n2"), 0.5)
    session.receive_control(m.Log(epoch=epoch, revisions=[]), 0.6)
    told = [each.outcomes for each in sent(session.on_timer(0.6)) if isinstance(each, m.Outcomes)]
    assert [number for outcomes in told for number in outcomes] == again


def test_outcomes_wait_until_the_histories_are_one() -> None:
    session = active(revision=4)
    session.answer(4, applied(), 0.1)
    session.on_timer(0.1)
    session.receive_control(m.HelloRequired(), 0.2)
    session.answer(3, applied(), 0.2)
    session.receive_control(WELCOME, 0.3)
    session.receive_update(echo_topic("n2"), m.Echo(nonce="n2"), 0.4)
    assert session.on_timer(0.5) == []
    session.receive_control(m.Log(epoch="e1", revisions=[]), 0.6)
    outcomes = dict.fromkeys((4, 3), Outcome("a", 1, "applied", 5))
    assert session.on_timer(0.6) == [Send(m.Outcomes(epoch="e1", outcomes=outcomes)), CollectStatus()]


def test_many_outcomes_take_several_messages_with_short_texts() -> None:
    session = active(revision=BATCH + 1)
    session.receive_control(m.HelloRequired(), 0.0)
    for number in range(1, BATCH + 2):
        session.answer(number, Outcome("", outcome="rejected", error="x" * 10 * TEXT_LIMIT), 0.1)
    session.receive_control(WELCOME, 0.3)
    session.receive_update(echo_topic("n2"), m.Echo(nonce="n2"), 0.4)
    session.receive_control(m.Log(epoch="e1", revisions=[]), 0.6)
    first, second = sent(session.on_timer(0.6))
    assert isinstance(first, m.Outcomes)
    assert isinstance(second, m.Outcomes)
    assert [len(first.outcomes), len(second.outcomes)] == [BATCH, 1]
    assert len(first.outcomes[1].error) == TEXT_LIMIT


def test_declarations_are_told_until_the_broker_has_them() -> None:
    session = active()
    replica = replace(REPLICA, keys=[LEARNING_RATE])
    assert session.declare([LEARNING_RATE], [], 0.1) == []
    declare = Send(m.Declare(seq=1, keys=[LEARNING_RATE], commands=[]))
    assert session.on_timer(0.1) == [declare]
    assert declare in session.on_timer(1.1)
    session.receive_control(m.Declared(seq=1), 1.2)
    assert declare not in session.on_timer(2.2)
    assert session.receive_control(m.HelloRequired(), 2.3) == [hello("n2", replica)]


def test_a_status_follows_what_was_declared_before_it() -> None:
    session = active()
    session.declare([LEARNING_RATE], [], 0.1)
    told = [type(each) for each in sent(session.status(STATUS, 0.1))]
    assert told == [m.Declare, m.Status]
    assert [type(each) for each in sent(session.status(STATUS, 0.2))] == [m.Status]
    assert m.Declare not in [type(each) for each in sent(session.on_timer(0.9))]


def test_a_declaration_that_is_due_with_a_status_goes_first() -> None:
    session = active()
    session.on_timer(0.1)
    session.declare([LEARNING_RATE], [], 1.2)  # the status has been due for longer
    assert [type(each) for each in session.on_timer(1.2)] == [Send, CollectStatus]


def test_an_older_declaration_that_arrived_is_not_the_newest() -> None:
    session = active()
    session.declare([LEARNING_RATE], [], 0.1)
    session.on_timer(0.1)
    session.declare([], [Command("probe", Schema(["object"]))], 0.2)
    session.on_timer(0.2)
    session.receive_control(m.Declared(seq=1), 0.3)
    again = [each for each in sent(session.on_timer(1.2)) if isinstance(each, m.Declare)]
    assert [each.seq for each in again] == [2]


def test_declarations_before_the_start_are_in_the_hello_alone() -> None:
    session = make_session()
    session.declare([LEARNING_RATE], [], 0.0)
    assert session.start(0.0) == [hello(replica=replace(REPLICA, keys=[LEARNING_RATE]))]
    session.receive_control(WELCOME, 0.1)
    assert session.on_timer(0.2) == []


def test_declarations_after_the_hello_follow_the_welcome() -> None:
    session = make_session()
    session.start(0.0)
    session.declare([LEARNING_RATE], [], 0.1)
    session.receive_control(WELCOME, 0.2)
    assert session.on_timer(0.2) == [Send(m.Declare(seq=1, keys=[LEARNING_RATE], commands=[]))]


def test_a_status_is_collected_each_beat() -> None:
    session = active(revision=4)
    assert session.status(STATUS, 0.0) == [Send(m.Status(seq=1, step=7, revision=4))]
    assert session.on_timer(0.9) == []
    assert session.on_timer(1.0) == [CollectStatus()]
    assert session.status(STATUS, 1.0) == [Send(m.Status(seq=2, step=7, revision=4))]


def test_a_change_of_phase_is_told_soon_but_not_more_often_than_every_50_ms() -> None:
    session = active()
    session.status(STATUS, 0.0)
    session.status_changed(0.01)
    assert session.next_timer() == 0.05
    session.on_timer(0.05)
    session.status(STATUS, 0.05)
    session.status_changed(0.5)
    assert session.on_timer(0.5) == [CollectStatus()]


def test_many_points_are_told_before_the_beat_with_time_for_all_else_between() -> None:
    session = active()
    session.status(STATUS, 0.0)
    session.more_to_report(0.0)
    assert session.on_timer(0.001) == []
    assert session.on_timer(0.002) == [CollectStatus(look=False)]
    assert session.on_timer(1.0) == [CollectStatus()], "the beat's comes all the same, and looks"


def test_many_points_make_nothing_wait_long_behind_them() -> None:
    session = active()
    session.receive_control(m.Credit(received=2), 0.0)  # the hello, and what it began with
    now, statuses = 0.0, 0
    while not statuses or CollectStatus(look=False) in session.on_timer(now):
        statuses += 1
        session.status(STATUS, now)
        session.more_to_report(now)
        now += 0.002
    assert statuses == STREAMED
    session.receive_control(m.Credit(received=2 + STREAMED // 2), now)
    assert session.on_timer(now) == [CollectStatus(look=False)], "it goes on as the broker reads"


def test_points_wait_for_no_messages_of_another_kind() -> None:
    session = active()
    for _ in range(2 * STREAMED):
        session.publish("net/", b"0")
    session.more_to_report(0.0)
    assert session.on_timer(0.002) == [CollectStatus(look=False)]


def test_no_status_before_it_is_active() -> None:
    session = syncing()
    session.status_changed(0.1)
    assert session.status(STATUS, 0.1) == []
    assert session.on_timer(0.2) == []


def test_payloads_are_numbered_by_topic_and_a_dropped_one_leaves_a_gap() -> None:
    session = make_session()
    assert session.publish("net/", b"0") == []
    session.start(0.0)
    session.receive_control(WELCOME, 0.1)
    assert session.publish("net/", b"1") == [Send(m.Publish(topic="net/", payload=b"1", seq=2))]
    assert session.publish("other/", b"1") == [Send(m.Publish(topic="other/", payload=b"1", seq=1))]
    assert session.counters.publish_dropped == 1


def test_own_topics_are_subscribed_now_and_after_each_reconnection() -> None:
    session = make_session()
    assert session.subscribe("net/") == []
    session.start(0.0)
    assert Subscribe(own_topic("net/")) in session.receive_control(WELCOME, 0.1)
    assert session.subscribe("other/") == [Subscribe(own_topic("other/"))]
    own = m.Own(topic="net/x", payload=b"1", sender="b", sender_seq=1)
    assert session.receive_update(own_topic("net/x"), own, 0.2) == [Hand(own)]


def test_a_failure_is_told_once_and_acknowledged_always() -> None:
    session = active()
    failure = m.Failure(id=3, kind="device", device="GPU-1")
    received = Send(m.FailureReceived(id=3))
    assert session.receive_control(failure, 0.1) == [received, Failed(failure)]
    assert session.receive_control(failure, 1.1) == [received]


def test_another_life_of_the_broker_counts_failures_anew() -> None:
    session = active()
    failure = m.Failure(id=1, kind="replica", replica="b", rank=0)
    session.receive_control(failure, 0.1)
    session.receive_control(m.HelloRequired(), 0.2)
    session.receive_control(replace(WELCOME, epoch="e2"), 0.3)
    assert Failed(failure) in session.receive_control(failure, 0.4)


# --- credit --------------------------------------------------------------------------------------


def test_a_ping_is_answered_at_once_with_what_was_received() -> None:
    session = active()  # it has received the welcome and a snapshot
    assert session.receive_control(m.Ping(id=5, received=3), 0.1) == [Send(m.Pong(id=5, received=3))]


def test_the_broker_is_told_now_and_then_how_far_it_was_heard() -> None:
    session = active(welcome=replace(WELCOME, credit=12))
    told = [session.receive_control(m.Declared(seq=0), 0.1) for _ in range(5)]
    assert told == [[], [Send(m.Credit(received=4))], [], [], [Send(m.Credit(received=7))]]


def test_what_exceeds_the_credit_waits_until_there_is_more() -> None:
    session = active(revision=4, welcome=replace(WELCOME, credit=3))  # hello and sync are under way
    session.status(STATUS, 0.0)
    session.answer(4, applied(), 0.1)
    assert session.on_timer(0.1) == []
    assert session.publish("net/", b"1") == []
    assert session.receive_control(m.Ping(id=1, received=3), 0.2) == [Send(m.Pong(id=1, received=3))]
    outcomes = {4: Outcome("a", 1, "applied", 5)}
    assert session.on_timer(0.2) == [Send(m.Outcomes(epoch="e1", outcomes=outcomes))]
    assert session.counters.starved == 1


@pytest.mark.parametrize("look", [True, False])
def test_a_status_is_not_collected_when_a_declaration_took_the_last_credit(look: bool) -> None:
    session = active(welcome=replace(WELCOME, credit=4))  # hello and sync are under way
    session.status(STATUS, 0.0)
    if look:
        session.status_changed(0.1)
    else:
        session.more_to_report(0.1)
    session.declare([LEARNING_RATE], [], 0.2)  # the status has been due for longer
    assert [type(each) for each in session.on_timer(0.2)] == [Send, CollectStatus]
    assert not session.may_collect(0.2, look=look)
    session.receive_control(m.Credit(received=4), 0.3)
    assert session.on_timer(0.3) == [CollectStatus(look=look)]
    assert session.may_collect(0.3, look=look)


def test_credit_that_never_comes_ends_in_another_hello() -> None:
    session = active(revision=4, welcome=replace(WELCOME, credit=3))
    session.status(STATUS, 0.0)
    session.answer(4, applied(), 0.1)
    assert session.on_timer(0.1) == []
    session.receive_update(STEER, m.Beat(epoch="e1"), 3.0)
    assert session.on_timer(3.1) == [hello("n2")]


# --- counters ------------------------------------------------------------------------------------


def test_publications_that_did_not_come_are_counted() -> None:
    session = active()
    for seq in (1, 2, 5):
        session.receive_update(STEER, m.Beat(epoch="e1", seq=seq), 0.1)
    for seq in (4, 6):
        own = m.Own(topic="net/", payload=b"", sender="b", sender_seq=seq)
        session.receive_update(own_topic("net/"), own, 0.1)
    assert session.counters.missed == 3


def test_what_cannot_be_read_is_counted_and_takes_its_credit() -> None:
    session = active()
    session.receive_unreadable(unknown_type=True)
    session.receive_unreadable(unknown_type=False)
    session.receive_unreadable(unknown_type=False, control=False)
    assert session.counters.unknown_types == 1
    assert session.counters.bad_messages == 2
    assert session.receive_control(m.Ping(id=1, received=1), 0.1) == [Send(m.Pong(id=1, received=5))]


def test_an_answer_to_an_operator_is_no_message_for_a_weavelet() -> None:
    session = active()
    assert session.receive_control(m.Runs(id="x", runs=[]), 0.1) == []
    assert session.counters.unknown_types == 1


# --- leaving -------------------------------------------------------------------------------------


def test_closing_tells_the_last_outcomes_and_says_goodbye() -> None:
    session = active(revision=4)
    session.answer(3, applied(), 0.1)
    session.answer(4, applied(), 0.1)
    assert session.close("finished", 7, 0.1) == [
        Send(m.Outcomes(epoch="e1", outcomes=dict.fromkeys((3, 4), Outcome("a", 1, "applied", 5)))),
        Send(m.Goodbye(reason="finished", step=7)),
        Closed(farewell=True),
    ]
    assert session.next_timer() is None
    assert session.answer(4, applied(), 0.2) == []
    assert session.next_timer() is None, "nothing is sent after the goodbye"


@pytest.mark.parametrize("started", [False, True])
def test_closing_before_the_welcome_says_nothing(started: bool) -> None:
    session = make_session()
    if started:
        session.start(0.0)
    assert session.close("finished", 0, 0.1) == [Closed(farewell=False)]


def test_g4_text_that_is_no_unicode_still_reaches_the_operator() -> None:
    table = OutcomeTable()
    table.add(1, Outcome("", outcome="rejected", error="no such file: /data/\udcff.ckpt"), 0.0)
    (outcome,) = table.due(0.0, 1.0).values()
    assert codec.encode(m.Outcomes(epoch="e", outcomes={1: outcome}))
    assert outcome.error == "no such file: /data/?.ckpt"
