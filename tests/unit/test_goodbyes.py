"""A goodbye and a hello of one replica that cross while the disk is slow: no last word is lost."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.unit.broker_support import BATCH_SIZE, LEARNING_RATE, Bench, events, replica, sent
from zloom import messages as m
from zloom.model import Key
from zloom_broker.effects import Send
from zloom_broker.permissions import Access

OLD, NEW = Access("old", "weavelet"), Access("new", "weavelet")


def hello(nonce: str, **changes: object) -> m.Hello:
    return m.Hello(protocols=[1], role="weavelet", nonce=nonce, replica=replica("a", **changes))


def bench() -> Bench:
    bench = Bench()
    bench.receive(b"a", hello("n-a"), OLD)
    bench.hold = True
    return bench


def end_of(bench: Bench) -> str:
    bench.hold = False
    bench.confirm()
    bench.advance(10.0)
    left = bench.core.state.attempts["run", "one"].left.get("a")
    return left.reason if left else "there"


def superseded(bench: Bench) -> int:
    bench.operator()
    (stats,) = sent(bench.receive(b"op", m.GetStats(id="s")))
    assert isinstance(stats, m.Stats)
    return stats.counters.get("superseded", 0)


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("declares", [True, False])
@pytest.mark.parametrize("order", ["hgr", "hrg", "ghr"])
def test_who_said_goodbye_is_not_lost_for_a_hello_that_was_revoked(
    order: str, declares: bool, written: bool
) -> None:
    broker = bench()
    if declares:
        broker.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]), OLD)
    for event in order:
        if event == "h":
            broker.receive(b"b", hello("n-b", pid=2), NEW)
        elif event == "g":
            broker.receive(b"a", m.Goodbye(reason="done"), OLD)
        else:
            broker.core.revoked({"new"}, broker.now)
    told = broker.confirm() if written else broker.fail()
    assert not any(isinstance(message, m.Welcome) for message in sent(told, b"b"))
    assert end_of(broker) == "done"
    assert superseded(broker) == 0


@pytest.mark.parametrize("order", ["hg", "gh"])
def test_who_said_goodbye_is_not_lost_for_a_hello_that_could_not_be_written(order: str) -> None:
    broker = bench()
    for event in order:
        if event == "h":
            broker.receive(b"b", hello("n-b", pid=2), NEW)
        else:
            broker.receive(b"a", m.Goodbye(reason="done"), OLD)
    assert [type(message) for message in sent(broker.fail(), b"b")] == [m.Wait]
    assert end_of(broker) == "done"


def test_who_said_goodbye_is_not_lost_for_a_hello_that_fails_after_the_goodbye_did() -> None:
    broker = bench()
    broker.receive(b"a", m.Goodbye(reason="done"), OLD)
    broker.fail()
    broker.hold = True
    broker.receive(b"b", hello("n-b", pid=2), NEW)
    broker.fail()
    assert end_of(broker) == "done"


def test_who_said_goodbye_is_not_lost_for_a_hello_that_must_wait() -> None:
    broker = Bench()
    broker.active("other", rank=1, world_size=2)
    broker.receive(b"a", hello("n-a", world_size=2), OLD)
    broker.hold = True
    broker.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]), OLD)
    broker.receive(b"b", hello("n-b", rank=1, world_size=2), NEW)
    broker.receive(b"a", m.Goodbye(reason="done"), OLD)
    assert [type(message) for message in sent(broker.confirm(), b"b")] == [m.Wait]
    assert end_of(broker) == "done"


@pytest.mark.parametrize("declares", [True, False])
def test_a_goodbye_of_before_says_nothing_once_a_hello_is_welcomed(declares: bool) -> None:
    broker = bench()
    if declares:
        broker.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]), OLD)
    broker.receive(b"b", hello("n-b", pid=2), NEW)
    broker.receive(b"a", m.Goodbye(reason="done"), OLD)
    broker.now += 60.0
    broker.advance(0.0)
    told = broker.confirm()
    assert [type(message) for message in sent(told, b"b")] == [m.Welcome]
    assert ("finished" in events(told), superseded(broker)) == (False, 1)
    broker.receive(b"b", m.Goodbye(reason="later"), NEW)
    assert end_of(broker) == "later"


def test_a_hello_behind_a_goodbye_behind_a_registration_comes_back() -> None:
    broker = bench()
    broker.receive(b"a", hello("again", pid=2), OLD)
    broker.receive(b"a", m.Goodbye(reason="done"), OLD)
    broker.receive(b"b", hello("n-b", pid=2), NEW)
    told = broker.confirm()
    assert events(told) == ["joined", "finished", "returned"]
    assert [type(message) for message in sent(told, b"b")] == [m.Welcome]
    assert sent(broker.receive(b"b", m.Sync(nonce="n-b"), NEW), b"b") != [m.HelloRequired()]


def test_a_hello_behind_a_goodbye_behind_a_registration_that_fails_is_told_to_wait() -> None:
    broker = bench()
    broker.receive(b"a", hello("again", pid=2), OLD)
    broker.receive(b"a", m.Goodbye(reason="done"), OLD)
    broker.receive(b"b", hello("n-b", pid=2), NEW)
    assert [type(message) for message in sent(broker.fail(), b"b")] == [m.Wait]
    assert end_of(broker) == "done"


def test_a_goodbye_behind_a_return_behind_a_goodbye_counts() -> None:
    broker = bench()
    for message in (m.Goodbye(reason="done"), hello("again", pid=2), m.Goodbye(reason="done again")):
        broker.receive(b"a", message, OLD)
    assert events(broker.confirm()) == ["finished", "returned", "finished"]
    assert end_of(broker) == "done again"


def test_what_is_declared_once_a_hello_was_revoked_is_heard() -> None:
    broker = bench()
    broker.receive(b"a", m.Declare(seq=2, keys=[BATCH_SIZE], commands=[]), OLD)
    broker.receive(b"b", hello("n-b", keys=[]), NEW)
    assert broker.core.revoked({"new"}, broker.now) == [Send(b"b", m.HelloRequired())]
    broker.receive(b"a", m.Declare(seq=3, keys=[LEARNING_RATE], commands=[]), OLD)
    assert m.Declared(seq=3) in sent(broker.confirm(), b"a")


connections = st.sampled_from(["a", "b", "c"])
keys = st.sampled_from([[], [BATCH_SIZE], [LEARNING_RATE, BATCH_SIZE]])
steps: st.SearchStrategy[tuple[str, str, list[Key]]] = st.one_of(
    st.tuples(st.just("hello"), connections, keys),
    st.tuples(st.just("declare"), connections, keys),
    st.tuples(st.sampled_from(["goodbye", "revoke"]), connections, st.just([])),
    st.tuples(st.sampled_from(["confirm", "confirm one", "fail"]), st.just("a"), st.just([])),
)


@given(st.lists(steps, max_size=25))
def test_whoever_was_welcomed_last_is_there_and_goodbyes_are_no_losses(
    comes: list[tuple[str, str, list[Key]]],
) -> None:
    """No hello is lost between others, and one whose last word is a goodbye is never lost."""
    broker = Bench()
    broker.receive(b"a", hello("n-a"), Access("a", "weavelet"))
    welcomed, waiting, last = b"a", set[bytes](), ""
    for number, (what, name, declared) in enumerate(comes):
        broker.hold = True
        connection, access = name.encode(), Access(name, "weavelet")
        bound = broker.core._hub.weavelets.get("a")
        heard = connection in broker.core._hub.peers
        if what == "hello":
            told = broker.receive(connection, hello(f"n{number}", keys=declared), access)
            waiting.add(connection)
            last = "hello"
        elif what == "declare":
            told = broker.receive(connection, m.Declare(seq=1, keys=declared, commands=[]), access)
        elif what == "goodbye":
            told = broker.receive(connection, m.Goodbye(reason="done"), access)
            if heard and bound is not None and bound.id == connection:
                last = "goodbye" if not waiting else last
        elif what == "revoke":
            told = broker.core.revoked({name}, broker.now)
            waiting.discard(connection)
        elif broker.waiting:
            one = 1 if what == "confirm one" else len(broker.waiting)
            told = broker.fail() if what == "fail" else broker.confirm(one)
        else:
            told = []
        for effect in told:
            if isinstance(effect, Send) and isinstance(effect.message, m.Welcome):
                welcomed = effect.peer
            if isinstance(effect, Send) and isinstance(effect.message, m.Welcome | m.Wait):
                waiting.discard(effect.peer)
    broker.hold = False
    told = broker.confirm()
    welcomes = [e.peer for e in told if isinstance(e, Send) and isinstance(e.message, m.Welcome)]
    welcomed = welcomes[-1] if welcomes else welcomed
    bound = broker.core._hub.weavelets.get("a")
    assert bound is None or bound.id == welcomed
    if last == "goodbye":
        assert end_of(broker) == "done"
