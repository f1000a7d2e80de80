"""The operator's conversation with a broker, event by event."""

import itertools

import pytest

from zloom.client.effects import Confirmed, Connected, Deliver, Rejected, Silent
from zloom.client.requests import Answered
from zloom.client.session import HELLO_INTERVAL, HELLOS, MISSED_BEATS, OperatorSession, State
from zloom.effects import Connect, Reconnect, Send, Subscribe
from zloom.messages import (
    Beat,
    Credit,
    Declared,
    Echo,
    Error,
    GetRuns,
    Happened,
    Hello,
    HelloRequired,
    Ping,
    Pong,
    Publish,
    Revised,
    Runs,
    Wait,
    Welcome,
)
from zloom.model import Event, Revision

ENDPOINT = "tcp://gpu-1:5555"
WELCOME = Welcome(protocol=1, epoch="e1", updates="tcp://*:5556", beat=1.0, credit=8, max_message_size=2**20)
HAPPENED = Happened(seq=1, event=Event("joined", "lm"))


def hello(nonce: str) -> Send:
    return Send(
        Hello(
            protocols=[1],
            role="operator",
            user="me@here",
            software="zloom 1",
            endpoint=ENDPOINT,
            nonce=nonce,
        )
    )


def a_session() -> OperatorSession:
    ids = itertools.count(1)
    return OperatorSession("me@here", "zloom 1", ENDPOINT, lambda: f"n{next(ids)}")


@pytest.fixture
def connecting() -> OperatorSession:
    session = a_session()
    assert session.start(0.0) == [hello("n1")]
    return session


@pytest.fixture
def session(connecting: OperatorSession) -> OperatorSession:
    assert connecting.receive(WELCOME, 0.1) == [Connected(epoch_changed=False)]
    return connecting


# --- hello ---------------------------------------------------------------------------------------


def test_hello_is_repeated_and_then_the_sockets_are_made_anew(connecting: OperatorSession) -> None:
    for round_ in range(1, HELLOS):
        assert connecting.next_timer() == round_ * HELLO_INTERVAL
        assert connecting.on_timer(round_ * HELLO_INTERVAL) == [hello("n1")]
    assert connecting.on_timer(HELLOS * HELLO_INTERVAL) == [Reconnect(), hello("n2")]
    assert connecting.counters["reconnects"] == 1


def test_an_error_instead_of_a_welcome_is_final(connecting: OperatorSession) -> None:
    error = Error(code="protocol_version", text="too new")
    assert connecting.receive(error, 0.1) == [Rejected("protocol_version", "too new")]
    assert connecting.state is State.REFUSED
    assert connecting.next_timer() is None
    assert connecting.on_timer(99.0) == []


def test_wait_puts_the_next_hello_off(connecting: OperatorSession) -> None:
    assert connecting.receive(Wait(reason="busy", retry=2.5), 0.1) == []
    assert connecting.on_timer(1.5) == []
    assert connecting.next_timer() == 2.6
    assert connecting.on_timer(2.6) == [hello("n1")]
    assert connecting.last_error == "busy"


def test_a_second_welcome_changes_nothing(session: OperatorSession) -> None:
    assert session.receive(WELCOME, 0.2) == []


def test_a_broker_that_forgot_this_peer_gets_a_hello_and_the_open_requests(session: OperatorSession) -> None:
    request = GetRuns(id="r1")
    session.request(request, 1.0)
    assert session.receive(HelloRequired(), 1.1) == [hello("n2")]
    assert session.receive(HelloRequired(), 1.1) == []  # the answer to another message
    assert session.receive(WELCOME, 1.2) == [Connected(epoch_changed=False), Send(request)]
    assert session.requests.resent == 1


def test_another_life_of_the_broker_is_told(session: OperatorSession) -> None:
    session.receive(HelloRequired(), 1.0)
    other = Welcome(protocol=1, epoch="e2", updates="", beat=1.0, credit=8, max_message_size=1)
    assert session.receive(other, 1.1) == [Connected(epoch_changed=True)]


# --- requests ------------------------------------------------------------------------------------


def test_a_request_before_the_welcome_waits_for_it(connecting: OperatorSession) -> None:
    request = GetRuns(id="r1")
    assert connecting.request(request, 0.0) == []
    assert connecting.receive(WELCOME, 0.1) == [Connected(epoch_changed=False), Send(request)]


def test_an_answer_is_handed_over(session: OperatorSession) -> None:
    assert session.request(GetRuns(id="r1"), 1.0) == [Send(GetRuns(id="r1"))]
    answer = Runs(id="r1", runs=[])
    assert session.receive(answer, 1.1) == [Answered("r1", answer, last=True)]
    assert session.next_timer() is None
    assert session.receive(answer, 1.2) == [Send(Credit(received=3))]  # and nothing is handed over
    assert session.counters["late_answers"] == 1


def test_a_request_is_sent_again_each_second(session: OperatorSession) -> None:
    session.request(GetRuns(id="r1"), 1.0)
    assert session.next_timer() == 2.0
    assert session.on_timer(2.0) == [Send(GetRuns(id="r1"))]


def test_a_broker_that_is_silent_over_a_request_costs_the_sockets(session: OperatorSession) -> None:
    session.request(GetRuns(id="r1"), 10.0)
    session.on_timer(11.0)
    session.on_timer(12.0)
    assert session.next_timer() == 10.0 + MISSED_BEATS
    assert session.on_timer(10.0 + MISSED_BEATS) == [Silent(10.0), Reconnect(), hello("n2")]


def test_silence_is_said_once_and_its_length_when_the_broker_is_back(session: OperatorSession) -> None:
    session.request(GetRuns(id="r1"), 10.0)
    assert session.on_timer(13.0)[0] == Silent(10.0)
    for now in (14.0, 15.0):
        session.on_timer(now)
    assert session.on_timer(16.0)[0] == Reconnect()
    back = session.receive(WELCOME, 17.5)
    assert back[0] == Connected(epoch_changed=False, silence=7.5)
    session.receive(Ping(id=1, received=1), 20.0)
    assert session.on_timer(23.0)[0] == Silent(20.0)


def test_a_longer_beat_is_waited_for(session: OperatorSession) -> None:
    session.request(GetRuns(id="r1"), 10.0)
    session.receive(Ping(id=1, received=2, beat=1.25), 10.0)
    assert not isinstance(session.on_timer(13.7)[0], Reconnect)
    assert session.on_timer(13.75) == [Silent(10.0), Reconnect(), hello("n2")]


def test_without_a_request_silence_is_nothing(session: OperatorSession) -> None:
    assert session.next_timer() is None
    assert session.on_timer(1000.0) == []


def test_a_dropped_request_is_not_sent_again(session: OperatorSession) -> None:
    session.request(GetRuns(id="r1"), 1.0)
    session.drop("r1")
    assert session.on_timer(2.0) == []


def test_what_the_broker_complains_of_is_kept_for_the_time_out(session: OperatorSession) -> None:
    assert session.receive(Error(code="bad_message", text="bad set_config"), 1.0) == []
    assert session.last_error == "bad set_config"
    assert session.counters["errors"] == 1


def test_a_message_for_a_weavelet_is_counted(session: OperatorSession) -> None:
    assert session.receive(Declared(seq=1), 1.0) == []
    assert session.counters["unexpected_messages"] == 1


# --- credit --------------------------------------------------------------------------------------


def test_beyond_the_credit_requests_wait_until_the_broker_has_read_on(session: OperatorSession) -> None:
    sent = [session.request(GetRuns(id=f"r{n}"), 1.0) for n in range(10)]
    assert [len(effects) for effects in sent] == [1] * 8 + [0, 0]
    assert session.receive(Credit(received=3), 1.1) == [Send(GetRuns(id="r8")), Send(GetRuns(id="r9"))]


def test_credit_that_was_lost_is_restored_by_a_hello(session: OperatorSession) -> None:
    for n in range(9):
        session.request(GetRuns(id=f"r{n}"), 1.0)
    session.receive(Runs(id="r0", runs=[]), 2.0)
    assert session.next_timer() == 1.0 + MISSED_BEATS
    assert session.on_timer(1.0 + MISSED_BEATS) == [hello("n2")]


def test_the_broker_is_told_how_far_it_was_heard(session: OperatorSession) -> None:
    for n in range(2):
        session.request(GetRuns(id=f"r{n}"), 1.0)
    first, second = (Runs(id=f"r{n}", runs=[]) for n in range(2))
    assert session.receive(first, 1.1) == [Answered("r0", first, last=True)]
    assert session.receive(second, 1.1) == [Answered("r1", second, last=True), Send(Credit(received=3))]


def test_ping_is_answered_at_once(session: OperatorSession) -> None:
    assert session.receive(Ping(id=4, received=1), 1.0) == [Send(Pong(id=4, received=2))]


# --- own topics ----------------------------------------------------------------------------------


def test_a_payload_is_numbered_for_its_topic(session: OperatorSession) -> None:
    session.publish("net/a", b"1")
    assert session.publish("net/b", b"2") == [Send(Publish(topic="net/b", payload=b"2", seq=1))]
    assert session.publish("net/a", b"3") == [Send(Publish(topic="net/a", payload=b"3", seq=2))]


def test_what_cannot_be_published_is_dropped_counted_and_seen_as_a_gap(connecting: OperatorSession) -> None:
    assert connecting.publish("net/a", b"1") == []
    connecting.receive(WELCOME, 0.1)
    assert connecting.publish("net/a", b"2") == [Send(Publish(topic="net/a", payload=b"2", seq=2))]
    for _ in range(8):
        connecting.publish("net/a", b"3")
    assert connecting.counters["publish_dropped"] == 2


# --- updates -------------------------------------------------------------------------------------


def test_a_subscription_goes_where_the_broker_was_reached(session: OperatorSession) -> None:
    assert session.subscribe(b"watch/lm/", 1.0) == [
        Connect("tcp://gpu-1:5556"),
        Subscribe(b"beat/"),
        Subscribe(b"watch/lm/"),
        Subscribe(b"echo/n1/"),
    ]
    confirmed = [Confirmed(frozenset({b"watch/lm/"}))]
    assert session.receive_update(b"echo/n1/", Echo(nonce="n1"), 1.1) == confirmed
    assert session.receive_update(b"watch/lm/", HAPPENED, 1.2) == [Deliver(b"watch/lm/", HAPPENED)]
    assert session.receive_update(b"beat/", Beat(seq=1, epoch="e1"), 1.3) == []


def test_updates_that_fall_silent_cost_both_sockets_and_come_back(session: OperatorSession) -> None:
    session.subscribe(b"watch/lm/", 1.0)
    session.receive_update(b"beat/", Beat(seq=1, epoch="e1"), 5.0)
    session.on_timer(7.9)
    assert session.next_timer() == 8.0
    assert session.on_timer(8.0) == [Silent(5.0), Reconnect(), hello("n2")]
    effects = session.receive(WELCOME, 8.0)
    assert effects[:2] == [Connected(epoch_changed=False, silence=3.0), Connect("tcp://gpu-1:5556")]
    assert effects[-1] == Subscribe(b"echo/n2/")


@pytest.mark.parametrize(
    "message",
    [
        Beat(seq=1, epoch="e2"),
        Revised(seq=1, epoch="e2", run="run", attempt="one", revision=Revision(1, "config")),
    ],
)
def test_another_epoch_on_updates_asks_for_a_new_welcome(
    session: OperatorSession, message: Beat | Revised
) -> None:
    session.subscribe(b"watch/lm/", 1.0)
    assert hello("n2") in session.receive_update(b"watch/lm/", message, 2.0)
    assert hello("n3") not in session.receive_update(b"watch/lm/", message, 2.1)
