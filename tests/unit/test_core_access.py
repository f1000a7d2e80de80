"""The core goes by the key that a message came with, and by nothing that stands in it."""

import pytest

from tests.unit.broker_support import GPU, PAUSE, Bench, events, replica, sent
from zloom import messages as m
from zloom.model import DeviceStatus
from zloom_broker.effects import Effect, Send
from zloom_broker.permissions import Access

ALICE = Access("alice", "operator", ("run",))
OLGA = Access("olga", "observer", ("run",))
STRANGER = Access("sam", "operator", ("other",))
NODE = Access("node", "weavelet", ("run",))
OPERATOR = m.Hello(protocols=[1], role="operator", user="root@everywhere")


def bench(*accesses: Access) -> Bench:
    """Return a bench with `a` in `run`, `b` in `other`, both on one device, and these operators."""
    made = Bench()
    made.active()
    made.active("b", run="other")
    for access in accesses:
        made.receive(access.user.encode(), OPERATOR, access)
    return made


def change(run: str = "run") -> m.SetConfig:
    return m.SetConfig(id="q1", run=run, changes={"learning_rate": 0.5})


def only_answer(effects: list[Effect], peer: bytes) -> m.Message:
    (answer,) = sent([effect for effect in effects if isinstance(effect, Send)], peer)
    return answer


def test_the_history_names_the_user_of_the_key() -> None:
    broker = bench(ALICE)
    broker.receive(b"alice", change(), ALICE)
    history = only_answer(broker.receive(b"alice", m.GetHistory(id="q2", run="run"), ALICE), b"alice")
    assert isinstance(history, m.History)
    assert [entry.revision.by for entry in history.entries] == ["alice"]


def test_an_observer_changes_nothing() -> None:
    broker = bench(OLGA)
    refusal = only_answer(broker.receive(b"olga", change(), OLGA), b"olga")
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "forbidden"
    assert broker.core.state.attempts["run", "one"].revision == 0


@pytest.mark.parametrize("request_", [change("other"), change("unheard-of"), m.GetKeys(id="q1", run="other")])
def test_of_another_run_nothing_is_told_not_even_that_it_is(request_: m.SetConfig | m.GetKeys) -> None:
    broker = bench(ALICE)
    refusal = only_answer(broker.receive(b"alice", request_, ALICE), b"alice")
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "forbidden"


def test_lists_have_only_what_concerns_the_asker() -> None:
    broker = bench(STRANGER)

    def ask(request: m.FromOperator) -> m.Message:
        return only_answer(broker.receive(b"sam", request, STRANGER), b"sam")

    runs, replicas = ask(m.GetRuns(id="1")), ask(m.GetReplicas(id="2"))
    devices, unknown = ask(m.GetDevices(id="3")), ask(m.GetKeys(id="4", run=""))
    assert isinstance(runs, m.Runs)
    assert [each.run for each in runs.runs] == ["other"]
    assert isinstance(replicas, m.Replicas)
    assert [each.replica for each in replicas.replicas] == ["b"]
    assert isinstance(devices, m.Devices)
    assert [each.replicas for each in devices.devices] == [["b"]]
    assert isinstance(unknown, m.Refusal)
    assert "known are: other; " in unknown.text


def test_a_device_that_runs_share_is_reported_by_who_has_to_do_with_all() -> None:
    broker = bench(STRANGER)
    fail = m.FailDevice(id="1", device=GPU.id)
    refusal = only_answer(broker.receive(b"sam", fail, STRANGER), b"sam")
    assert isinstance(refusal, m.Refusal)
    assert (refusal.code, broker.core.state.failed_devices) == ("forbidden", {})
    everywhere = Access("root", "operator")
    broker.receive(b"root", OPERATOR, everywhere)
    done = only_answer(broker.receive(b"root", fail, everywhere), b"root")
    assert isinstance(done, m.Done)
    assert sorted(done.replicas) == ["a", "b"]


def test_the_stacks_of_another_run_are_as_if_it_were_not() -> None:
    broker = bench(STRANGER)
    for replica_ in ("a", "unheard-of"):
        refusal = only_answer(broker.receive(b"sam", m.GetStacks(id="1", replica=replica_), STRANGER), b"sam")
        assert isinstance(refusal, m.Refusal)
        assert refusal.code == "unknown_replica"
    effects = broker.receive(b"sam", m.GetStacks(id="2", replica="b"), STRANGER)
    assert isinstance(only_answer(effects, b"b"), m.TakeStacks)


def test_an_observer_publishes_nothing() -> None:
    broker = bench(OLGA, ALICE)
    publish = m.Publish(topic="run/note", payload=b"x", seq=1)
    assert isinstance(only_answer(broker.receive(b"olga", publish, OLGA), b"olga"), m.Error)
    assert len(broker.receive(b"alice", publish, ALICE)) == 1


def test_a_weavelet_joins_its_own_run_alone() -> None:
    broker = Bench()
    stray = m.Hello(protocols=[1], role="weavelet", nonce="n", replica=replica("x", run="other"))
    error = only_answer(broker.receive(b"x", stray, NODE), b"x")
    assert isinstance(error, m.Error)
    assert error.code == "forbidden"
    welcome = only_answer(
        broker.receive(b"y", m.Hello(protocols=[1], role="weavelet", nonce="n", replica=replica("y")), NODE),
        b"y",
    )
    assert isinstance(welcome, m.Welcome)


def test_a_weavelet_that_names_anothers_id_is_not_told_of_its_run() -> None:
    broker = bench()
    thief = m.Hello(protocols=[1], role="weavelet", nonce="n", replica=replica("b"))  # which is in `other`
    wait = only_answer(broker.receive(b"x", thief, NODE), b"x")
    assert isinstance(wait, m.Wait)
    assert wait.reason == "replica id b belongs to another run; use a fresh one"
    assert broker.core.state.homes["b"] == ("other", "one")


def test_a_routing_id_that_was_anothers_opens_nothing() -> None:
    broker = bench(ALICE, OLGA)
    assert sent(broker.receive(b"alice", change(), OLGA), b"alice") == [m.HelloRequired()]
    assert broker.core.state.attempts["run", "one"].revision == 0


def test_whose_key_is_revoked_is_a_stranger_at_once() -> None:
    broker = bench(ALICE, OLGA)
    told = broker.core.revoked({"alice"}, broker.now)
    assert told == [Send(b"alice", m.HelloRequired())]
    assert sent(broker.core.stranger(b"alice", change()), b"alice") == [m.HelloRequired()]
    error = only_answer(list(broker.core.stranger(b"alice", OPERATOR)), b"alice")
    assert isinstance(error, m.Error)
    assert error.code == "unauthenticated"
    assert broker.core.state.attempts["run", "one"].revision == 0


def test_what_a_revoked_key_followed_is_not_told_any_more() -> None:
    broker = bench(ALICE)
    broker.receive(b"alice", change(), ALICE)
    broker.core.revoked({"alice"}, broker.now)
    effects = broker.answer(1) + broker.advance(2.0)
    assert sent(effects, b"alice") == []


def test_a_change_that_waits_for_the_disk_is_not_answered_to_a_revoked_key() -> None:
    broker = bench(ALICE)
    broker.hold = True
    broker.receive(b"alice", change(), ALICE)
    broker.core.revoked({"alice"}, broker.now)
    assert sent(broker.confirm(), b"alice") == []


def test_a_weavelet_whose_key_is_revoked_is_lost() -> None:
    broker = Bench()
    hello = m.Hello(protocols=[1], role="weavelet", nonce="n", replica=replica())
    broker.receive(b"a", hello, NODE)
    broker.subscription(b"echo/n/", present=True)
    broker.core.revoked({"node"}, broker.now)
    broker.advance(7.0)
    left = broker.core.state.attempts["run", "one"].left["a"]
    assert (left.outcome, left.reason) == ("lost", "its key was revoked or changed")


def test_who_is_back_with_a_good_key_and_dies_is_not_lost_for_the_key_of_before() -> None:
    broker = Bench()
    hello = m.Hello(protocols=[1], role="weavelet", nonce="n", replica=replica())
    broker.receive(b"a", hello, NODE)
    broker.core.revoked({"node"}, broker.now)
    broker.receive(b"b", hello, NODE)
    broker.subscription(b"echo/n/", present=True)
    broker.subscription(b"echo/n/", present=False)
    broker.unroutable(b"b")
    broker.advance(2.0)
    assert broker.core.state.attempts["run", "one"].left["a"].reason == "the connection was closed"


def test_g10_one_whose_host_vanishes_as_another_is_cut_off_is_lost() -> None:
    broker = Bench()
    broker.active()
    broker.subscription(b"echo/n-a/", present=True)
    broker.core.revoked({"olga"}, broker.now)
    assert events(broker.advance(5.5)) == []
    assert events(broker.advance(1.0)) == ["lost"], "the socket that would have told is closed"


def test_g10_one_that_holds_the_gil_is_not_lost_as_another_is_cut_off() -> None:
    broker = Bench()
    broker.active()
    broker.subscription(b"echo/n-a/", present=True)
    broker.core.revoked({"olga"}, broker.now)
    broker.advance(0.2)
    broker.subscription(b"echo/n-a/", present=True)
    assert events(broker.advance(60.0)) == []


def test_a_status_that_was_held_says_nothing_once_its_key_was_revoked() -> None:
    broker = Bench()
    broker.operator()
    broker.receive(b"a", m.Hello(protocols=[1], role="weavelet", nonce="n-a", replica=replica()), NODE)
    broker.hold = True
    broker.receive(b"a", m.Declare(seq=2, keys=[], commands=[]), NODE)
    failed = DeviceStatus(GPU.id, xid=79)
    broker.receive(b"a", m.Status(seq=1, step=7, devices=[failed]), NODE)
    broker.core.revoked(["node"], broker.now)
    broker.confirm()
    (stats,) = sent(broker.receive(b"op", m.GetStats(id="s")))
    assert isinstance(stats, m.Stats)
    assert (stats.counters["statuses_dropped"], broker.core.state.failed_devices) == (1, {})


def weavelet(nonce: str, **changes: object) -> m.Hello:
    return m.Hello(protocols=[1], role="weavelet", nonce=nonce, replica=replica("a", **changes))


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("declares", [True, False])
def test_a_hello_that_waits_for_the_disk_is_worth_nothing_once_its_key_was_revoked(
    declares: bool, written: bool
) -> None:
    broker = Bench()
    broker.receive(b"a", weavelet("n-a"), NODE)
    broker.hold = True
    if declares:
        broker.receive(b"a", m.Declare(seq=2, keys=[], commands=[]), NODE)
    broker.receive(b"new", weavelet("second", keys=[]), NODE)
    told = broker.core.revoked({"node"}, broker.now)
    assert sorted(told, key=repr) == [Send(b"a", m.HelloRequired()), Send(b"new", m.HelloRequired())]
    assert sent(broker.confirm() if written else broker.fail(), b"new") == []
    assert events(broker.advance(5.5)) == []
    assert events(broker.advance(1.0)) == ["lost"]
    assert broker.core.state.attempts["run", "one"].left["a"].reason == "its key was revoked or changed"


def test_a_newcomer_whose_key_is_revoked_while_it_registers_does_not_keep_its_rank() -> None:
    broker = Bench()
    broker.hold = True
    broker.receive(b"a", weavelet("n-a"), NODE)
    assert broker.core.revoked({"node"}, broker.now) == [Send(b"a", m.HelloRequired())]
    broker.now += 60.0
    told = broker.confirm()
    assert (events(told), sent(told, b"a")) == (["attempt_started", "joined"], [])
    assert events(broker.advance(5.5)) == []
    assert events(broker.advance(1.0)) == ["lost"]
    assert broker.core.state.attempts["run", "one"].left["a"].reason == "its key was revoked or changed"
    assert isinstance(only_answer(broker.join("b"), b"b"), m.Welcome)


@pytest.mark.parametrize("declares", [True, False])
def test_who_says_hello_with_a_good_key_while_the_disk_hangs_is_welcomed(declares: bool) -> None:
    broker = Bench()
    broker.receive(b"a", weavelet("n-a"), NODE)
    broker.hold = True
    if declares:
        broker.receive(b"a", m.Declare(seq=2, keys=[], commands=[]), NODE)
    broker.receive(b"new", weavelet("second", keys=[]), NODE)
    broker.core.revoked({"node"}, broker.now)
    changed = Access("node", "weavelet")
    broker.receive(b"new", weavelet("third", keys=[]), changed)
    told = [message for message in sent(broker.confirm(), b"new") if isinstance(message, m.Welcome)]
    assert len(told) == 1
    assert sent(broker.receive(b"new", m.Sync(nonce="third"), changed), b"new") != [m.HelloRequired()]


@pytest.mark.parametrize("declares", [True, False])
def test_a_hello_that_waits_is_not_displaced_by_one_of_another_run(declares: bool) -> None:
    thief = Access("thief", "weavelet", ("other",))
    broker = Bench()
    if declares:
        broker.receive(b"a", weavelet("n-a"), NODE)
    broker.hold = True
    if declares:
        broker.receive(b"a", m.Declare(seq=2, keys=[], commands=[]), NODE)
    broker.receive(b"a", weavelet("second", keys=[]), NODE)
    wait = only_answer(broker.receive(b"x", weavelet("x", run="other"), thief), b"x")
    assert isinstance(wait, m.Wait)
    assert wait.reason == "replica id a belongs to another run; use a fresh one"
    told = broker.confirm()
    assert [type(each) for each in sent(told, b"a") if not isinstance(each, m.Declared)] == [m.Welcome]
    assert sent(told, b"x") == []


def test_a_hello_of_another_run_silences_nobody_whose_declaration_is_being_written() -> None:
    thief = Access("thief", "weavelet", ("other",))
    broker = Bench()
    broker.receive(b"a", weavelet("n-a"), NODE)
    broker.hold = True
    broker.receive(b"a", m.Declare(seq=2, keys=[], commands=[]), NODE)
    broker.receive(b"x", weavelet("x", run="other"), thief)
    broker.receive(b"a", m.Declare(seq=3, keys=[], commands=[PAUSE]), NODE)
    assert m.Declared(seq=3) in sent(broker.confirm(), b"a")
