"""Credit, sequence numbers and commits."""

from collections.abc import Callable

import pytest

from tests.unit.broker_support import Bench, sent
from zloom import messages as m
from zloom.messages import Beat
from zloom.series import Series
from zloom_broker.effects import Commit, Publish
from zloom_broker.hub import Connections, CoreSettings, Hub, Peer
from zloom_broker.records import EpochStarted
from zloom_broker.state import State


def hub() -> Hub:
    return Hub(State(), CoreSettings(epoch="epoch"), 7)


def record(counter: int) -> EpochStarted:
    return EpochStarted(counter=counter, epoch="epoch", at=0.0)


def note(log: list[str], text: str) -> Callable[[], None]:
    return lambda: log.append(text)


def test_a_connection_is_found_by_the_newest_nonce_of_its_replica() -> None:
    connections = Connections()
    first, second, other = Peer(b"1", "", nonce="n1"), Peer(b"2", "", nonce="n2"), Peer(b"3", "", nonce="n3")
    connections["a"], connections["b"] = first, other
    connections["a"] = second
    assert [connections.of_nonce(nonce) for nonce in ("n1", "n2", "n3")] == [None, second, other]
    assert connections.pop("a") is second
    assert connections.pop("a", None) is None
    assert [connections.of_nonce(nonce) for nonce in ("n2", "n3")] == [None, other]


def test_each_topic_counts_for_itself() -> None:
    shared = hub()
    for topic in (b"beat/", b"beat/", b"steer/run/one/"):
        shared.publish(topic, Beat(epoch="epoch"))
    told = [(e.topic, e.message) for e in shared.take() if isinstance(e, Publish)]
    assert told == [
        (b"beat/", Beat(epoch="epoch", seq=1)),
        (b"beat/", Beat(epoch="epoch", seq=2)),
        (b"steer/run/one/", Beat(epoch="epoch", seq=1)),
    ]


def test_g1_records_are_taken_in_once_all_of_their_commit_is_on_disk() -> None:
    shared, log = hub(), list[str]()
    shared.commit(record(1), record(2), then=note(log, "two"))
    shared.commit(record(3), then=note(log, "one"))
    commits = [effect for effect in shared.take() if isinstance(effect, Commit)]
    assert [(commit.seq, len(commit.payloads)) for commit in commits] == [(8, 2), (10, 1)]
    shared.committed(8)
    assert (shared.state.epoch, log) == (None, [])
    shared.committed(9)
    assert (shared.state.epoch, log) == (record(2), ["two"])
    shared.committed(10)
    assert log == ["two", "one"]


def test_g1_a_failure_takes_back_the_numbers_of_all_that_followed() -> None:
    shared, log = hub(), list[str]()
    for counter in (1, 2, 3):
        shared.commit(record(counter), failed=log.append)
    shared.committed(8)
    shared.commit_failed(9, "disk full")
    assert (shared.state.epoch, log) == (record(1), ["disk full"] * 2)
    shared.take()
    shared.commit(record(4))
    (commit,) = shared.take()
    assert isinstance(commit, Commit)
    assert commit.seq == 9


def test_what_there_is_no_credit_for_is_dropped_and_counted() -> None:
    bench = Bench(credit=8)
    bench.operator()
    answers = [sent(bench.receive(b"op", m.GetRuns(id=f"q{n}"))) for n in range(20)]
    assert any(isinstance(message, m.Runs) for message in answers[0])
    assert not any(isinstance(message, m.Runs) for message in answers[-1])
    bench.receive(b"op", m.Credit(received=2**60))
    stats = [x for x in sent(bench.receive(b"op", m.GetStats(id="s"))) if isinstance(x, m.Stats)]
    assert stats[0].counters["dropped_for_credit"] > 0
    answers = [sent(bench.receive(b"op", m.GetRuns(id=f"p{n}"))) for n in range(20)]
    assert not any(isinstance(message, m.Runs) for message in answers[-1]), (
        "nobody has more credit than was sent"
    )


def test_a_peer_is_told_how_far_it_was_heard() -> None:
    bench = Bench(credit=8)
    bench.operator()
    told = [sent(bench.receive(b"op", m.Credit(received=1))) for _ in range(4)]
    assert told == [[], [m.Credit(received=3)], [], [m.Credit(received=5)]]


def test_each_second_status_is_answered_with_credit_whatever_else_came() -> None:
    """A weavelet that hears nothing on control for six beats gives it up."""
    bench = Bench()
    bench.active()
    told = []
    for seq in range(1, 17, 2):
        bench.receive(b"a", m.Pong(id=0, received=0))  # of no meaning, but counted
        told.append(bool(sent(bench.receive(b"a", m.Status(seq=seq, step=seq)), b"a")))
    assert told == [False, True] * 4


def test_a_stream_of_points_is_answered_with_credit_for_each_two() -> None:
    bench = Bench()
    bench.active()
    points = {"loss": Series.of(steps=[1], values=[0.5])}
    statuses = [m.Status(seq=seq, step=1, metrics=points) for seq in (1, 3, 5, 7)]
    assert [len(sent(bench.receive(b"a", status), b"a")) for status in statuses] == [1, 0, 1, 0]


def test_g1_a_record_that_cannot_be_written_is_never_taken_in() -> None:
    shared, log = hub(), list[str]()
    with pytest.raises(OverflowError):
        shared.commit(record(2**64), then=note(log, "lost"))
    shared.commit(record(1), then=note(log, "written"))
    shared.committed(8)
    assert (shared.state.epoch, log) == (record(1), ["written"])
