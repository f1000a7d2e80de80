"""Asking a weavelet what the threads of its process do."""

import pytest

from tests.unit.broker_support import Bench, sent
from zloom import messages as m
from zloom.model import Frame, ThreadStack

SPIN = [ThreadStack("MainThread", [Frame("t.py", 3, "spin")], training=True)]


def ask(bench: Bench, request: str = "q1", replica: str = "a", peer: bytes = b"op") -> list[object]:
    """Ask; return the question that went to the weavelet, and the answer if there is one at once."""
    effects = bench.receive(peer, m.GetStacks(id=request, replica=replica))
    return [*sent(effects, b"a"), *sent(effects, peer)]


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.active()
    bench.subscription(b"echo/n-a/", present=True)
    bench.operator()
    return bench


def test_a_weavelet_is_asked_and_its_answer_passed_on(bench: Bench) -> None:
    bench.receive(b"a", m.Status(seq=1, step=9))
    assert ask(bench) == [m.TakeStacks(id=1)]
    effects = bench.receive(b"a", m.StacksTaken(id=1, threads=SPIN))
    [answer] = sent(effects)
    assert answer == m.Stacks(id="q1", replica="a", host="host", pid=1, step=9, threads=SPIN)


def test_all_who_ask_at_a_time_share_one_question(bench: Bench) -> None:
    bench.operator("other")
    assert ask(bench) == [m.TakeStacks(id=1)]
    assert ask(bench) == [], "the same request, sent again"
    assert ask(bench, "q2", peer=b"other") == []
    effects = bench.receive(b"a", m.StacksTaken(id=1, threads=SPIN))
    assert [len(sent(effects, peer)) for peer in (b"op", b"other")] == [1, 1]
    assert sent(bench.receive(b"a", m.StacksTaken(id=1, threads=SPIN))) == [], "nobody asked twice"
    assert ask(bench) == [m.TakeStacks(id=2)]


def test_one_that_does_not_answer_is_given_up_in_time(bench: Bench) -> None:
    ask(bench)
    answers = sent(bench.advance(2.9))
    assert not any(isinstance(each, m.Stacks) for each in answers)
    [answer] = [each for each in sent(bench.advance(0.2)) if isinstance(each, m.Stacks)]
    assert answer.reason == "its weavelet did not answer within 3 s"
    assert sent(bench.receive(b"a", m.StacksTaken(id=1, threads=SPIN))) == []
    bench.receive(b"a", m.Pong(id=pinged(bench), received=1))
    assert ask(bench, "q2") == [m.TakeStacks(id=2)]
    assert sent(bench.receive(b"a", m.StacksTaken(id=1, threads=SPIN))) == [], "it is of another moment"


def pinged(bench: Bench) -> int:
    """Return the id of the ping that is outstanding."""
    return bench.core._hub.vitals["a"].ping_id


def test_one_that_cannot_answer_is_not_asked(bench: Bench) -> None:
    bench.advance(5.0)
    [answer] = ask(bench)
    assert isinstance(answer, m.Stacks)
    assert answer.state == "unresponsive"
    assert answer.reason.startswith("its weavelet does not answer since 5 s: the GIL is held")


def test_one_that_is_gone_is_not_asked(bench: Bench) -> None:
    bench.receive(b"a", m.Goodbye(reason="failed: boom"))
    [answer] = ask(bench)
    assert isinstance(answer, m.Stacks)
    assert answer.reason == "it is finished: failed: boom"


def test_an_unknown_replica_is_refused(bench: Bench) -> None:
    [answer] = ask(bench, replica="zebra")
    assert isinstance(answer, m.Refusal)
    assert answer.code == "unknown_replica"


def test_an_attempt_that_is_forgotten_meanwhile_answers_nobody(bench: Bench) -> None:
    ask(bench)
    bench.receive(b"a", m.Goodbye())
    bench.receive(b"op", m.Forget(id="f", run="run"))
    assert not any(isinstance(each, m.Stacks) for each in sent(bench.advance(5.0)))
