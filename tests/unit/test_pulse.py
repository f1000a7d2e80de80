"""Beats, pings and the losses that they show."""

import pytest

from tests.unit.broker_support import (
    BATCH_SIZE,
    LEARNING_RATE,
    PAUSE,
    Bench,
    events,
    published,
    replica,
    sent,
)
from zloom import messages as m
from zloom.model import Key, Outcome, Schema
from zloom_broker import pulse
from zloom_broker.effects import Effect
from zloom_broker.liveness import Vitals


def pings(bench: Bench, seconds: float, peer: bytes = b"a") -> list[m.Message]:
    return [message for message in sent(bench.advance(seconds), peer) if isinstance(message, m.Ping)]


def state_of(bench: Bench, name: str = "a") -> str:
    """Return the state of a replica as operators see it."""
    bench.operator()
    (replicas,) = sent(bench.receive(b"op", m.GetReplicas(id="r")))
    assert isinstance(replicas, m.Replicas)
    (state,) = [each.state for each in replicas.replicas if each.replica == name]
    return state


def stats(bench: Bench) -> dict[str, int]:
    """Return the counters as operators see them."""
    (stats,) = [x for x in sent(bench.receive(b"op", m.GetStats(id="s"))) if isinstance(x, m.Stats)]
    return stats.counters


def settled(bench: Bench) -> Bench:
    """Return the bench with `a` in step, its echo topic subscribed, and the first beat over."""
    bench.active()
    bench.subscription(b"echo/n-a/", present=True)
    return bench


def test_every_beat_is_told_to_all_and_to_each_attempt() -> None:
    bench = settled(Bench())
    told = bench.advance(2.0)
    assert published(told, b"beat/") == [m.Beat(epoch="epoch", seq=n, beat=1.0) for n in (1, 2, 3)]
    beats = [m.Beat(epoch="epoch", revision=0, seq=n, beat=1.0) for n in (1, 2, 3)]
    assert published(told, b"steer/run/one/") == beats


def test_a_restarted_broker_beats_for_those_who_may_come_back_until_they_are_lost() -> None:
    before = settled(Bench())
    reborn = Bench(before.journal, epoch="another")
    told = published(reborn.advance(1.0), b"steer/run/one/")
    assert told[0] == m.Beat(epoch="another", revision=0, seq=1, beat=1.0)
    reborn.advance(60.0)
    assert published(reborn.advance(2.0), b"steer/run/one/") == []


def test_the_beat_grows_with_the_fleet_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "SMALL_FLEET", 2)
    bench = Bench()
    bench.operator()
    for rank in range(3):
        bench.active(f"r{rank}", rank=rank, world_size=3)
    grown = [beat.beat for beat in published(bench.advance(6.0), b"beat/") if isinstance(beat, m.Beat)]
    assert grown == [1.25, 1.5, 1.5, 1.5, 1.5], "by a quarter at most, up to what three of two are"
    joined = sent(bench.join("r3", rank=3, world_size=4), b"r3")
    (welcome,) = [each for each in joined if isinstance(each, m.Welcome)]
    assert welcome.beat == 1.5
    for rank in range(4):
        bench.receive(b"r%d" % rank, m.Goodbye(reason="finished", step=1))
    shrunk = [beat.beat for beat in published(bench.advance(3.6), b"beat/") if isinstance(beat, m.Beat)]
    assert shrunk == [1.2, 1.0, 1.0]


def test_g11_nobody_is_taken_for_dead_because_others_left_and_the_beat_shrank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulse, "SMALL_FLEET", 1)
    bench = Bench()
    for rank in range(6):
        bench.active(f"r{rank}", rank=rank, world_size=6)
        bench.subscription(b"echo/n-r%d/" % rank, present=True)
    states: set[str] = set()
    beat = next_status = 0.0
    number = 0
    for quarter in range(400):
        if quarter == 200:
            assert beat == pulse.MAX_STRETCH
            for rank in range(1, 6):
                bench.receive(b"r%d" % rank, m.Goodbye(reason="finished", step=1))
        told = bench.advance(0.25)
        beat = next(
            (each.beat or 0.0 for each in published(told, b"beat/") if isinstance(each, m.Beat)), beat
        )
        states.add(state_of(bench, "r0"))
        for message in sent(told, b"r0"):
            if isinstance(message, m.Ping):
                bench.receive(b"r0", m.Pong(id=message.id, received=0))
        if bench.now >= next_status:
            number += 1
            next_status = bench.now + beat
            bench.receive(b"r0", m.Status(seq=number, step=number))
    assert beat == 1.0
    assert states == {"live"}


def test_the_beat_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "SMALL_FLEET", 0.1)
    bench = settled(Bench(beat=2.0))
    beats = published(bench.advance(100.0), b"beat/")
    assert isinstance(beats[-1], m.Beat)
    assert beats[-1].beat == 2.0 * pulse.MAX_STRETCH


def test_a_stopped_broker_does_not_beat_for_the_time_it_missed() -> None:
    bench = Bench()
    bench.advance(0.0)
    bench.now = 60.0
    assert len(published(bench.advance(0.0), b"beat/")) <= 2


def test_g10_a_closed_connection_is_lost_within_two_seconds() -> None:
    bench = settled(Bench())
    bench.advance(0.5)
    bench.subscription(b"echo/n-a/", present=False)
    bench.unroutable(b"a")
    assert events(bench.advance(0.9)) == []
    assert events(bench.advance(0.2)) == ["lost"]


def test_g10_a_connection_that_a_forked_child_holds_is_lost_soon_after_its_heartbeat() -> None:
    bench = settled(Bench())
    told = bench.subscription(b"echo/n-a/", present=False)
    assert [type(message) for message in sent(told, b"a")] == [m.Ping]
    assert events(bench.advance(1.4)) == []
    assert events(bench.advance(0.2)) == ["lost"]


def test_g10_one_whose_control_alone_was_reset_is_not_lost_however_late_it_says_hello() -> None:
    """As when it holds the GIL: libzmq's thread has control back, under a routing id that nobody knows."""
    bench = settled(Bench())
    bench.advance(2.0)
    bench.unroutable(b"a")
    told = bench.advance(60.0)
    assert (events(told), sent(told, b"a")) == ([], [])
    assert state_of(bench) == "unresponsive"
    bench.subscription(b"echo/n-a/", present=False)
    assert events(bench.advance(0.9)) == [], "it makes its sockets anew"
    bench.receive(b"a2", m.Hello(protocols=[1], role="weavelet", nonce="n-a2", replica=replica("a")))
    bench.subscription(b"echo/n-a2/", present=True)
    assert events(bench.advance(0.2)) == []
    assert state_of(bench) == "live"


def test_g10_one_that_dies_after_its_control_was_reset_is_lost_within_two_seconds() -> None:
    bench = settled(Bench())
    bench.unroutable(b"a")
    assert events(bench.advance(30.0)) == []
    bench.subscription(b"echo/n-a/", present=False)
    assert events(bench.advance(1.1)) == ["lost"]


def says_hello(bench: Bench, nonce: str) -> list[Effect]:
    """Let `a` say hello on another connection, with other keys than it had."""
    who = replica(keys=[])
    return bench.receive(b"new", m.Hello(protocols=[1], role="weavelet", nonce=nonce, replica=who))


@pytest.mark.parametrize("declares", [True, False])
def test_g10_one_whose_hellos_wait_for_the_disk_is_lost_once_it_says_none_any_more(declares: bool) -> None:
    bench = settled(Bench())
    bench.hold = True
    if declares:
        bench.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]))
    bench.subscription(b"echo/n-a/", present=False)
    bench.unroutable(b"a")
    for number in range(10):
        says_hello(bench, f"n{number}")
        bench.advance(1.0)
        assert len(bench.waiting) == 1, "its loss is not being written"
    bench.advance(4.5)
    assert len(bench.waiting) == 1
    bench.advance(0.5)
    assert len(bench.waiting) == 2, "six seconds after its last hello"


@pytest.mark.parametrize("declares", [True, False])
def test_g10_one_that_is_back_after_a_disk_that_hung_and_dies_then_is_lost_within_two_seconds(
    declares: bool,
) -> None:
    bench = settled(Bench())
    bench.hold = True
    if declares:
        bench.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]))
    bench.subscription(b"echo/n-a/", present=False)
    bench.unroutable(b"a")
    for number in range(10):
        says_hello(bench, f"n{number}")
        bench.advance(1.0)
    told = bench.confirm()
    assert "lost" not in events(told)
    bench.subscription(b"echo/n9/", present=True)
    bench.subscription(b"echo/n9/", present=False)
    bench.unroutable(b"new")
    assert events(bench.advance(2.0)) == ["lost"]


@pytest.mark.parametrize("declares", [True, False])
def test_one_that_is_back_after_a_disk_that_hung_counts_from_its_welcome(declares: bool) -> None:
    bench = settled(Bench())
    for step in (1, 2):
        bench.receive(b"a", m.Status(seq=step, step=step, step_time=0.1))
        bench.advance(1.0)
    bench.hold = True
    if declares:
        bench.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]))
    says_hello(bench, "n1")
    bench.now += 60.0
    bench.confirm()
    bench.subscription(b"echo/n1/", present=True)
    assert events(bench.advance(1.0)) == []
    assert state_of(bench) == "live"


def test_g10_one_whose_registration_fails_after_a_disk_that_hung_has_time_to_say_hello_again() -> None:
    bench = settled(Bench())
    bench.hold = True
    says_hello(bench, "n1")
    bench.now += 60.0
    bench.fail()
    assert events(bench.advance(1.0)) == []


def test_g10_one_that_answers_is_not_lost() -> None:
    bench = settled(Bench())
    told = bench.subscription(b"echo/n-a/", present=False)
    for _ in range(20):
        for ping in sent(told, b"a"):
            if isinstance(ping, m.Ping):
                bench.receive(b"a", m.Pong(id=ping.id, received=1))
        told = bench.advance(0.5)
        assert events(told) == []


def test_g10_a_minute_of_gil_fills_no_queue() -> None:
    bench = settled(Bench())
    assert len(pings(bench, 60.0)) == 1
    assert state_of(bench) == "unresponsive"


def told_with_statuses(bench: Bench, seconds: int) -> list[m.Ping]:
    """Return the pings of so many seconds in each of which `a` tells its status."""
    told: list[m.Ping] = []
    for seq in range(seconds):
        for ping in pings(bench, 1.0):
            assert isinstance(ping, m.Ping)
            told.append(ping)
            bench.receive(b"a", m.Pong(id=ping.id, received=bench.core._hub.peers[b"a"].sent))
        bench.receive(b"a", m.Status(seq=seq, step=seq))
    return told


def test_one_that_tells_its_status_is_not_pinged() -> None:
    bench = settled(Bench())
    told_with_statuses(bench, 2)
    assert told_with_statuses(bench, 30) == []


def test_outcomes_are_acknowledged_at_the_next_beat_and_then_every_three() -> None:
    bench = settled(Bench())
    bench.operator()
    told_with_statuses(bench, 5)
    for number in range(1, 7):
        bench.set(learning_rate=0.5, id=f"q{number}")
        bench.receive(b"a", m.Outcomes(epoch="epoch", outcomes={number: Outcome("a", outcome="applied")}))
        told = told_with_statuses(bench, 1)
        assert [ping.recorded for ping in told] == ({1: [[1]], 4: [[2, 3, 4]]}.get(number, [])), number


def test_g11_one_that_speaks_is_pinged_before_its_credit_is_used_up() -> None:
    bench = settled(Bench(credit=40))
    told_with_statuses(bench, 2)
    peer = bench.core._hub.peers[b"a"]
    under_way = []
    for _ in range(60):  # each second status is answered with credit
        before = peer.sent - peer.acked
        if told_with_statuses(bench, 1):
            under_way.append(before)
    assert under_way == [10, 10, 10]


def test_g10_a_restart_gives_everybody_six_seconds() -> None:
    first = settled(Bench())
    first.operator()
    first.set(learning_rate=0.5)
    bench = Bench(first.journal, epoch="next")
    assert events(bench.advance(5.9)) == []
    assert events(bench.advance(0.2)) == ["lost"]
    ledger = bench.core.state.attempts["run", "one"].ledgers[1]
    assert ledger.outcomes["a"] == Outcome("a", 0, "lost", error="nothing was heard of it")


def test_g10_one_that_is_back_after_a_restart_is_not_lost() -> None:
    bench = Bench(settled(Bench()).journal, epoch="next")
    bench.advance(3.0)
    assert events(bench.join()) == []
    bench.subscription(b"echo/n-a/", present=True)
    assert events(bench.advance(30.0)) == []


def test_an_operator_that_vanished_is_dropped() -> None:
    bench = Bench()
    bench.operator()
    assert len(pings(bench, 1.0, b"op")) == 1
    assert len(pings(bench, 6.0, b"op")) == 1, "no subscription tells of its end, so it is asked again"
    bench.unroutable(b"op")
    assert pings(bench, 20.0, b"op") == []


def answer_pings(bench: Bench, seconds: float) -> list[str]:
    """Let time pass while `a` answers; return the events."""
    told: list[str] = []
    for _ in range(round(seconds)):
        effects = bench.advance(1.0)
        told += events(effects)
        for ping in sent(effects, b"a"):
            if isinstance(ping, m.Ping):
                bench.receive(b"a", m.Pong(id=ping.id, received=1))
    return told


def test_a_stall_and_its_end_are_told_once() -> None:
    bench = settled(Bench())
    bench.receive(b"a", m.Status(seq=1, step=1, step_time=0.1))
    assert answer_pings(bench, 10.0) == ["stalled"]
    told = bench.advance(10.0)
    assert events(told) == [], "not to answer is no recovery"
    (ping,) = [message for message in sent(told, b"a") if isinstance(message, m.Ping)]
    bench.receive(b"a", m.Pong(id=ping.id, received=1))
    bench.receive(b"a", m.Status(seq=2, step=2, step_time=0.1))
    assert events(bench.advance(1.0)) == ["recovered"]


def hanging(bench: Bench) -> Bench:
    """Return the bench with a declaration of `a` that waits for a disk that hangs."""
    bench.hold = True
    momentum = Key("momentum", Schema(["number"]), 0.9)
    bench.receive(b"a", m.Declare(seq=1, keys=[LEARNING_RATE, BATCH_SIZE, momentum], commands=[PAUSE]))
    return bench


def test_g10_one_that_said_goodbye_while_the_disk_hung_has_finished() -> None:
    bench = hanging(settled(Bench()))
    bench.receive(b"a", m.Goodbye(reason="finished", step=20))
    bench.subscription(b"echo/n-a/", present=False)
    bench.unroutable(b"a")
    assert events(bench.advance(20.0)) == []
    assert events(bench.confirm()) == ["finished"]
    (left,) = bench.core.state.attempts["run", "one"].left.values()
    assert (left.reason, left.step) == ("finished", 20)


def test_one_that_gets_on_while_the_disk_hangs_is_not_stalled() -> None:
    bench = settled(Bench())
    bench.receive(b"a", m.Status(seq=1, step=1, step_time=0.1))
    hanging(bench)
    told: list[str] = []
    for second in range(2, 30):
        bench.receive(b"a", m.Status(seq=second, step=second, step_time=0.1))
        told += answer_pings(bench, 1.0)
    assert told + events(bench.confirm()) + answer_pings(bench, 3.0) == []


def test_a_stall_is_no_sooner_told_than_a_beat_that_has_grown_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulse, "SMALL_FLEET", 0.1)
    bench = settled(Bench())
    answer_pings(bench, 60.0)
    bench.receive(b"a", m.Status(seq=1, step=1, step_time=0.1))
    assert answer_pings(bench, 14.0) == [], "its next statuses may be on their way"
    assert answer_pings(bench, 7.0) == ["stalled"]


def test_g11_a_pong_gives_back_the_credit_of_what_was_lost() -> None:
    bench = Bench(credit=4)
    bench.operator()
    for number in range(6):
        told = sent(bench.receive(b"op", m.GetRuns(id=f"r{number}")))
    assert not any(isinstance(message, m.Runs) for message in told)
    (ping,) = pings(bench, 0.0, b"op")
    assert isinstance(ping, m.Ping)
    bench.receive(b"op", m.Pong(id=ping.id, received=2))
    counters = stats(bench)
    assert counters["dropped_for_credit"] > 0
    peer = bench.core._hub.peers[b"op"]
    lost = counters["lost_to_peers"]
    assert lost == peer.sent_when_pinged - 2

    for number in range(10):  # and now everything arrives
        bench.receive(b"op", m.Credit(received=peer.sent - lost))
        told = sent(bench.receive(b"op", m.GetRuns(id=f"s{number}")))
        assert any(isinstance(message, m.Runs) for message in told), "what is lost takes no credit for good"
    (ping,) = pings(bench, 1.0, b"op")
    assert isinstance(ping, m.Ping)
    bench.receive(b"op", m.Pong(id=ping.id, received=peer.sent - lost))
    assert stats(bench)["lost_to_peers"] == lost, "each message is lost once"


def test_a_message_costs_no_look_at_all_who_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart 1,000 are absent, and each of their messages would otherwise cost 1,000 looks."""
    before = Bench()
    for rank in range(20):
        before.join(f"r{rank}", rank=rank, world_size=20)
    bench = Bench(before.journal, epoch="second")
    looks: list[Vitals] = []
    lost_at = Vitals.lost_at

    def counted(self: Vitals) -> float | None:
        looks.append(self)
        return lost_at(self)

    monkeypatch.setattr(Vitals, "lost_at", counted)
    bench.operator()
    for number in range(100):
        bench.receive(b"op", m.GetRuns(id=f"q{number}"))
        bench.core.next_timer()
    assert not looks
    bench.advance(7.0)
    assert len(looks) < 20 * 20
    assert not list(bench.core.state.attempts["run", "one"].present())
