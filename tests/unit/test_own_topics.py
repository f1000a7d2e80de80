"""Payloads on users' own topics. Who may publish on which is in test_permissions.py."""

from tests.unit.broker_support import Bench, published, sent
from zloom import messages as m
from zloom_broker.own_topics import MAX_TOPIC, MAX_TOPICS


def bench() -> Bench:
    """Return a bench with a weavelet and an operator."""
    made = Bench()
    made.active()
    made.operator()
    return made


def missed(bench: Bench) -> int:
    (stats,) = sent(bench.receive(b"op", m.GetStats(id="s")))
    assert isinstance(stats, m.Stats)
    return stats.counters.get("own_missed", 0)


def test_payloads_are_passed_on_and_gaps_counted() -> None:
    broker = bench()
    broker.receive(b"a", m.Publish(topic="net/x", payload=b"1", seq=1))
    (own,) = published(broker.receive(b"a", m.Publish(topic="net/x", payload=b"3", seq=3)), b"own/net/x")
    assert own == m.Own(topic="net/x", payload=b"3", sender="a", sender_seq=3)
    assert missed(broker) == 1
    (own,) = published(broker.receive(b"op", m.Publish(topic="net/x", payload=b"9", seq=9)), b"own/net/x")
    assert own == m.Own(topic="net/x", payload=b"9", sender="alice", sender_seq=9)
    assert missed(broker) == 1, "each sender counts for itself"


def test_a_topics_name_has_an_end() -> None:
    broker = bench()
    longest = "x" * MAX_TOPIC
    assert published(
        broker.receive(b"a", m.Publish(topic=longest, payload=b"", seq=1)), b"own/" + longest.encode()
    )
    (error,) = sent(broker.receive(b"a", m.Publish(topic=longest + "x", payload=b"", seq=1)), b"a")
    assert isinstance(error, m.Error)
    assert (error.code, error.text) == (
        "bad_name",
        "the topic has 1025 characters; at most 1024 may be published on",
    )


def test_of_very_many_topics_the_newest_are_counted() -> None:
    broker = bench()
    for number in range(MAX_TOPICS + 1):
        broker.receive(b"a", m.Publish(topic=f"t{number}", payload=b"", seq=1))
    broker.receive(b"a", m.Publish(topic="t0", payload=b"", seq=9))
    assert missed(broker) == 0
    broker.receive(b"a", m.Publish(topic=f"t{MAX_TOPICS}", payload=b"", seq=3))
    assert missed(broker) == 1
