"""Telling replicas of failures until they say that they heard."""

from tests.unit.broker_support import Bench, events, sent
from zloom import messages as m
from zloom_broker.effects import Effect

FAIL = m.FailDevice(id="f", device="GPU-1", reason="xid 79")


def failures(effects: list[Effect], peer: bytes = b"a") -> list[m.Message]:
    return [message for message in sent(effects, peer) if isinstance(message, m.Failure)]


def two_of_three_cut_off() -> Bench:
    """Return a bench with ranks a, b and c, of which the connections of b and c are closed."""
    bench = Bench()
    bench.active("a", rank=0, world_size=3)
    bench.active("b", rank=1, world_size=3)
    bench.active("c", rank=2, world_size=3)
    for name in ("b", "c"):
        bench.unroutable(name.encode())
    return bench


def test_each_replica_on_a_device_is_told_until_it_heard() -> None:
    bench = Bench()
    bench.active("a", rank=0, world_size=2)
    bench.active("b", rank=1, world_size=2, devices=[])
    bench.operator()
    told = bench.receive(b"op", FAIL)
    failure = m.Failure(id=1, kind="device", device="GPU-1", reason="xid 79")
    assert (failures(told), failures(told, b"b")) == ([failure], [])
    assert events(told) == ["device_failed"]
    assert failures(bench.advance(2.5)) == [failure] * 2
    bench.receive(b"a", m.FailureReceived(id=1))
    assert failures(bench.advance(5.0)) == []


def test_the_others_of_a_run_are_told_who_was_lost() -> None:
    bench = Bench()
    bench.active("a", rank=0, world_size=2)
    bench.active("b", rank=1, world_size=2)
    bench.unroutable(b"b")
    reason = "the connection was closed"
    failure = m.Failure(id=1, kind="replica", replica="b", rank=1, reason=reason)
    assert failures(bench.advance(1.0)) == [failure]


def test_nobody_is_told_of_one_that_finished() -> None:
    bench = Bench()
    bench.active("a", rank=0, world_size=2)
    bench.active("b", rank=1, world_size=2)
    assert failures(bench.receive(b"b", m.Goodbye())) == []


def test_one_that_was_away_is_told_when_it_is_back() -> None:
    first = Bench()
    first.active()
    bench = Bench(first.journal, epoch="next")
    bench.operator()
    bench.receive(b"op", FAIL)
    bench.advance(1.0)
    assert len(failures(bench.join())) == 1


def test_one_that_left_is_told_nothing_more() -> None:
    bench = Bench()
    bench.active()
    bench.operator()
    bench.receive(b"op", FAIL)
    bench.receive(b"a", m.Goodbye())
    assert failures(bench.join()) == []


def test_those_that_may_be_gone_themselves_are_not_told() -> None:
    """Or a job of a thousand ranks that dies would make a million messages."""
    bench = two_of_three_cut_off()
    told = bench.advance(1.5)
    assert events(told) == ["lost", "lost"]
    assert (len(failures(told, b"a")), failures(told, b"b"), failures(told, b"c")) == (2, [], [])


def test_those_that_are_lost_together_are_not_told_of_each_other() -> None:
    """Of a thousand that died at once, each was to be told of each: the broker stood still for seconds."""
    bench = two_of_three_cut_off()
    bench.advance(1.5)
    bench.join("b", rank=1, world_size=3)
    assert failures(bench.advance(2.0), b"b") == []
