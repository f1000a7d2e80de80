"""Hellos, registrations, declarations."""

import pytest

from tests.unit.broker_support import BATCH_SIZE, LEARNING_RATE, Bench, events, published, replica, sent
from zloom import messages as m
from zloom.model import Key
from zloom_broker.addresses import Addresses, Bound
from zloom_broker.effects import Effect


def hello(name: str, nonce: str = "", **changes: object) -> m.Hello:
    who = replica(name, **changes)
    return m.Hello(protocols=[1], role="weavelet", nonce=nonce or f"n-{name}", replica=who)


def kinds(effects: list[Effect], peer: bytes) -> list[type[m.Message]]:
    return [type(message) for message in sent(effects, peer)]


def test_a_welcome_says_all_that_a_peer_must_know() -> None:
    addresses = Addresses((Bound("tcp://0.0.0.0:5555", "tcp://0.0.0.0:5556"),))
    bench = Bench(addresses=addresses)
    greeting = m.Hello(protocols=[3, 1], role="operator", user="alice", endpoint="tcp://gpu7:5555")
    (welcome,) = sent(bench.receive(b"op", greeting))
    assert isinstance(welcome, m.Welcome)
    assert (welcome.protocol, welcome.epoch, welcome.updates) == (1, "epoch", "tcp://*:5556")
    assert (welcome.beat, welcome.credit, welcome.max_message_size) == (1.0, 250, 1024 * 1024)


def test_another_protocol_is_an_error() -> None:
    (error,) = sent(Bench().receive(b"op", m.Hello(protocols=[2, 3], role="operator")))
    assert isinstance(error, m.Error)
    assert error.code == "protocol_version"
    assert "speaks protocol 1, the hello offers 2, 3" in error.text


@pytest.mark.parametrize(
    ("greeting", "code"),
    [
        (m.Hello(protocols=[1], role="weavelet", nonce="n"), "bad_hello"),
        (m.Hello(protocols=[1], role="operator", replica=replica()), "bad_hello"),
        (hello("a", rank=2, world_size=2), "bad_hello"),
        (hello("a", nonce="x/y"), "bad_name"),
        (hello("a", host="h" * 256), "bad_name"),
        (hello("a", keys=[BATCH_SIZE, BATCH_SIZE]), "bad_name"),
        (m.Hello(protocols=[1], role="operator", user="u" * 256), "bad_name"),
        (m.Hello(protocols=[1], role="operator", user="zloom"), "bad_name"),
    ],
)
def test_a_hello_that_cannot_be_is_an_error(greeting: m.Hello, code: str) -> None:
    bench = Bench()
    (error,) = sent(bench.receive(b"a", greeting), b"a")
    assert isinstance(error, m.Error)
    assert error.code == code
    assert bench.journal == []


def test_two_replicas_start_an_attempt_at_once() -> None:
    bench = Bench()
    bench.hold = True
    bench.join("a", rank=0, world_size=2)
    bench.join("b", rank=1, world_size=2)
    told = bench.confirm()
    assert events(told) == ["attempt_started", "joined", "joined"]
    assert (kinds(told, b"a"), kinds(told, b"b")) == ([m.Welcome], [m.Welcome])
    assert set(bench.core.state.attempts["run", "one"].replicas) == {"a", "b"}


def test_two_that_start_an_attempt_at_once_fail_at_once() -> None:
    bench = Bench()
    bench.hold = True
    bench.join("a", rank=0, world_size=2)
    bench.join("b", rank=1, world_size=2)
    told = bench.fail()
    assert (kinds(told, b"a"), kinds(told, b"b")) == ([m.Wait], [m.Wait])
    assert events(bench.join("b", rank=1, world_size=2)) == ["attempt_started", "joined"]


def test_the_newer_of_two_that_claim_a_rank_waits_until_the_older_is_lost() -> None:
    bench = Bench()
    bench.join("a")
    told = bench.join("b", pid=2)
    text = "rank 0 of run (one) is held by a on host (pid 1); b on host (pid 2) waits until it is lost"
    assert sent(told, b"b") == [m.Wait(reason=text, retry=1.0)]
    assert events(told) == ["rank_conflict"]
    assert events(bench.join("b", pid=2)) == [], "told once"
    bench.unroutable(b"a")
    assert events(bench.advance(1.5)) == ["lost"]
    assert events(bench.join("b", pid=2)) == ["joined"]


def test_one_of_two_that_claim_a_new_rank_at_once_waits() -> None:
    bench = Bench()
    bench.hold = True
    bench.join("a")
    assert kinds(bench.join("b"), b"b") == [m.Wait]
    assert kinds(bench.confirm(), b"a") == [m.Welcome]


def test_hello_again_on_the_same_connection_begins_it_anew() -> None:
    bench = Bench()
    bench.join()
    assert kinds(bench.receive(b"a", hello("a", "second")), b"a") == [m.Welcome]
    assert bench.subscription(b"echo/n-a/", present=False) == [], "the old nonce says nothing any more"
    ping = sent(bench.subscription(b"echo/second/", present=False), b"a")
    assert [type(message) for message in ping] == [m.Ping]


def test_hello_again_while_it_registers_goes_to_the_newest_connection() -> None:
    bench = Bench()
    bench.hold = True
    bench.join()
    bench.receive(b"a2", hello("a", "second", keys=[LEARNING_RATE]))
    bench.hold = False
    told = bench.confirm()
    assert (kinds(told, b"a"), kinds(told, b"a2")) == ([], [m.Welcome])
    assert list(bench.core.state.attempts["run", "one"].keys()) == ["learning_rate"]


def test_one_that_registers_and_is_not_welcomed_does_not_keep_its_rank() -> None:
    bench = Bench()
    bench.join("b", rank=1, world_size=2)
    bench.hold = True
    bench.join("a", rank=0, world_size=2)
    bench.join("a", rank=1, world_size=2)
    assert kinds(bench.confirm(), b"a") == [m.Wait]
    bench.advance(7.0)
    assert list(bench.core.state.attempts["run", "one"].left) == ["a"]


def test_another_replica_on_a_connection_means_the_first_is_gone() -> None:
    bench = Bench()
    bench.join("a")
    bench.receive(b"a", hello("b", rank=1, world_size=2))
    assert events(bench.advance(1.5)) == ["lost"]


def test_another_replica_on_a_connection_means_the_first_is_gone_though_it_was_subscribed() -> None:
    bench = Bench()
    bench.join("a")
    bench.subscription(b"echo/n-a/", present=True)
    bench.receive(b"a", hello("b", rank=1, world_size=2))
    assert bench.subscription(b"echo/n-a/", present=False) == [], "whose that was is not known any more"
    assert events(bench.advance(1.5)) == ["lost"]


def test_an_id_belongs_to_one_attempt() -> None:
    bench = Bench()
    bench.join("a")
    (wait,) = sent(bench.join("a", attempt="two"), b"a")
    assert isinstance(wait, m.Wait)
    assert "belongs to attempt one" in wait.reason


def test_a_return_while_its_loss_is_written_is_a_return() -> None:
    bench = Bench()
    bench.active()
    bench.hold = True
    bench.unroutable(b"a")
    bench.advance(2.0)
    bench.receive(b"new", hello("a", "second"))
    told = bench.confirm()
    assert events(told) == ["lost", "returned"]
    assert kinds(told, b"new") == [m.Welcome]
    assert kinds(bench.receive(b"new", m.Sync(nonce="second")), b"new") == [m.Snapshot]


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("keys", [[LEARNING_RATE, BATCH_SIZE], [BATCH_SIZE], []])
def test_a_goodbye_behind_a_declaration_is_not_that_of_who_comes_after_it(
    keys: list[Key], written: bool
) -> None:
    bench = Bench()
    bench.active()
    bench.hold = True
    bench.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]))
    bench.receive(b"a", m.Goodbye())
    for number in range(100):  # each second, until it is answered
        assert bench.receive(b"new", hello("a", f"n{number}", keys=keys)) == []
    told = bench.confirm() if written else bench.fail()
    assert (events(told), kinds(told, b"new")) == (["finished", "returned"], [m.Welcome])
    assert kinds(bench.receive(b"new", m.Sync(nonce="n99")), b"new") == [m.Snapshot]


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("declares", [True, False])
def test_what_a_connection_says_after_the_hello_of_another_is_not_heard(
    declares: bool, repeats: bool
) -> None:
    bench = Bench()
    bench.active()
    bench.hold = True
    if declares:
        bench.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]))
    bench.receive(b"new", hello("a", "second", pid=2))
    bench.receive(b"a", m.Declare(seq=3, keys=[], commands=[]))
    bench.receive(b"a", m.Goodbye())
    if repeats:
        bench.receive(b"new", hello("a", "second", pid=2))
    told = bench.confirm()
    assert ("finished" in events(told), kinds(told, b"new")) == (False, [m.Welcome])
    bench.operator()
    (stats,) = sent(bench.receive(b"op", m.GetStats(id="s")))
    assert isinstance(stats, m.Stats)
    assert stats.counters["superseded"] == 2
    attempt = bench.core.state.attempts["run", "one"]
    assert (attempt.replicas["a"].pid, set(attempt.keys())) == (2, {"learning_rate", "batch_size"})


def test_what_is_declared_behind_a_hello_on_its_own_connection_does_not_stand_before_it() -> None:
    bench = Bench()
    bench.active()
    bench.hold = True
    bench.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]))
    bench.receive(b"a", hello("a", keys=[LEARNING_RATE]))
    again = m.Declare(seq=3, keys=[], commands=[])
    bench.receive(b"a", again)
    bench.confirm()
    assert set(bench.core.state.attempts["run", "one"].keys()) == {"learning_rate"}
    assert sent(bench.receive(b"a", again), b"a") == [m.Declared(seq=3)], "it is asked again each second"


def test_one_that_comes_back_while_its_declaration_is_written_does_not_join_anew() -> None:
    bench = Bench()
    bench.active()
    bench.hold = True
    bench.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]))
    bench.receive(b"new", hello("a", "second", keys=[BATCH_SIZE], commands=[]))
    told = bench.confirm()
    assert (events(told), kinds(told, b"new")) == ([], [m.Welcome])


def test_baselines_that_differ_are_told() -> None:
    bench = Bench()
    bench.join("a", rank=0, world_size=2)
    other = Key("learning_rate", LEARNING_RATE.schema, 0.2)
    told = bench.join("b", rank=1, world_size=2, keys=[other])
    (happened,) = [x for x in published(told, b"watch/run/") if isinstance(x, m.Happened)][1:]
    assert happened.event.kind == "baseline_differs"
    assert happened.event.text == "learning_rate: b begins with 0.2, others with 0.1"


def test_the_world_is_as_large_as_those_who_are_there_say() -> None:
    bench = Bench()
    bench.join("a", rank=0, world_size=2)
    bench.receive(b"a", m.Goodbye())
    bench.join("b", rank=0, world_size=4)
    assert bench.core.state.attempts["run", "one"].world_size == 4


def test_inherit_begins_with_what_was_steered_before() -> None:
    bench = Bench()
    bench.active()
    bench.operator()
    bench.set("q1", learning_rate=0.5, batch_size=8)
    told = bench.join("b", attempt="two", keys=[LEARNING_RATE], inherit=True)
    assert events(told) == ["attempt_started", "joined"]
    (snapshot,) = sent(bench.sync("b"), b"b")
    assert isinstance(snapshot, m.Snapshot)
    assert [revision.changes for revision in snapshot.pending] == [{"learning_rate": 0.5}]
    assert snapshot.pending[0].note == "inherited from attempt one"


def test_a_change_whose_step_never_came_is_not_inherited() -> None:
    bench = Bench()
    bench.active()
    bench.operator()
    bench.set("q1", learning_rate=0.5)
    bench.answer(1)
    for step, rate in ((100, 0.25), (200, 0.125)):
        changes = {"learning_rate": rate}
        at = m.SetConfig(
            id=f"at{step}", run="run", changes={**changes}, mode="at_step", at_step=step, queue=True
        )
        bench.receive(b"op", at)
    bench.answer(2, step=100)
    bench.receive(b"a", m.Goodbye(step=150))
    bench.join("b", attempt="two", inherit=True)
    (made,) = bench.core.state.attempts["run", "two"].ledgers
    assert made.revision.changes == {"learning_rate": 0.25}


def test_a_start_that_inherits_is_written_whole_or_not_at_all() -> None:
    bench = Bench()
    bench.active()
    bench.operator()
    bench.set("q1", learning_rate=0.5)
    bench.hold = True
    bench.join("b", attempt="two", inherit=True)
    (commit,) = bench.waiting
    assert len(commit.payloads) == 3
    bench.fail()
    bench.join("b", attempt="two", inherit=True)
    assert bench.core.state.attempts["run", "two"].revision == 1


def test_a_new_attempt_inherits_nothing_unless_it_says_so() -> None:
    bench = Bench()
    bench.active()
    bench.operator()
    bench.set("q1", learning_rate=0.5)
    bench.join("b", attempt="two")
    assert bench.core.state.attempts["run", "two"].revision == 0
