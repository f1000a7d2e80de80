"""When whoever makes changes, or follows one, is told what became of it."""

from collections.abc import Sequence

import pytest

from tests.unit.broker_support import Bench, bench_of, changed, pushes, sent, two_ranks
from zloom import messages as m
from zloom.messages import Message
from zloom_broker.followers import PROMPT, PUSH_INTERVAL


def make(bench: Bench, first: int, count: int) -> list[Message]:
    """Make so many changes at this moment, and return what their operator is told."""
    told: list[Message] = []
    for number in range(first, first + count):
        changes: dict[str, float] = {"learning_rate": 0.001 * number}
        request = m.SetConfig(id=f"q{number}", run="run", changes=dict(changes), mode="next")
        told += sent(bench.receive(b"op", request))
    return told


def revisions(told: Sequence[Message]) -> list[tuple[int, bool]]:
    """Return which revisions an operator is told of, and whether they are settled."""
    return [(each.revision, each.settled) for each in told if isinstance(each, m.RevisionState)]


def test_a_push_that_settles_goes_out_at_once_and_others_are_gathered() -> None:
    bench = two_ranks()
    assert pushes(sent(bench.answer(1, "a"))) == []
    assert pushes(sent(bench.advance(0.2))) == [["applied", None]]
    assert pushes(sent(bench.answer(1, "b", "rejected", error="no"))) == [["applied", "rejected"]]
    assert pushes(sent(bench.advance(1.0))) == []


def test_the_more_replicas_there_are_the_rarer_are_pushes() -> None:
    bench = changed(*(f"r{rank}" for rank in range(300)))
    assert pushes(sent(bench.answer(1, "r0"))) == []
    assert pushes(sent(bench.advance(0.25))) == []
    (push,) = pushes(sent(bench.advance(0.1)))
    assert (push[0], len(push)) == ("applied", 300)


def test_follow_answers_now_and_goes_on() -> None:
    bench = two_ranks()
    bench.operator("other")
    follow = m.Follow(id="f", run="run", revision=1)
    assert pushes(sent(bench.receive(b"other", follow), b"other")) == [[None, None]]
    bench.answer(1, "a")
    assert pushes(sent(bench.answer(1, "b"), b"other")) == [["applied", "applied"]]


def test_follow_of_nothing_is_refused() -> None:
    bench = two_ranks()
    (refusal,) = sent(bench.receive(b"op", m.Follow(id="f", run="run", revision=2)))
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "unknown_revision"


def test_a_follower_that_vanished_is_told_nothing() -> None:
    bench = two_ranks()
    bench.unroutable(b"op")
    bench.answer(1, "a")
    assert sent(bench.advance(1.0)) == []
    assert sent(bench.answer(1, "b")) == []


def test_a_change_is_confirmed_at_once_where_few_come() -> None:
    bench = bench_of("a")
    assert revisions(make(bench, 1, PROMPT)) == [(number, False) for number in range(1, PROMPT + 1)]
    bench.advance(2 * PUSH_INTERVAL)
    assert revisions(make(bench, PROMPT + 1, 1)) == [(PROMPT + 1, False)], "these are counted anew"


def test_in_a_burst_a_change_is_confirmed_with_what_became_of_it() -> None:
    bench = bench_of("a")
    make(bench, 1, PROMPT)
    late = PROMPT + 1
    assert revisions(make(bench, late, 1)) == []
    assert revisions(sent(bench.answer(late, "a"))) == [(late, True)]
    assert (late, False) not in revisions(sent(bench.advance(2 * PUSH_INTERVAL)))


@pytest.mark.parametrize("replicas", [1, 300], ids="{} replicas".format)
def test_in_a_burst_a_change_that_takes_its_time_is_confirmed_soon(replicas: int) -> None:
    """However rare the pushes are that so many replicas have."""
    bench = bench_of(*(f"r{rank}" for rank in range(replicas)))
    make(bench, 1, PROMPT)
    late = PROMPT + 1
    assert revisions(make(bench, late, 1)) == []
    assert revisions(sent(bench.advance(0.9 * PUSH_INTERVAL))) == []
    assert revisions(sent(bench.advance(0.2 * PUSH_INTERVAL))) == [(late, False)]


def test_g5_a_request_that_comes_again_in_a_burst_is_answered_at_once() -> None:
    bench = bench_of("a")
    make(bench, 1, PROMPT + 1)
    assert revisions(make(bench, PROMPT + 1, 1)) == [(PROMPT + 1, False)]


def test_who_follows_in_a_burst_is_answered_at_once() -> None:
    bench = bench_of("a")
    make(bench, 1, PROMPT + 1)
    follow = m.Follow(id="f", run="run", revision=PROMPT + 1)
    assert revisions(sent(bench.receive(b"op", follow))) == [(PROMPT + 1, False)]


def test_who_has_gone_in_a_burst_is_told_nothing() -> None:
    bench = bench_of("a")
    make(bench, 1, PROMPT + 1)
    bench.receive(b"op", m.Goodbye())
    assert revisions(sent(bench.advance(2 * PUSH_INTERVAL))) == []


def test_in_a_burst_the_time_until_an_answer_counts_from_when_the_change_is_on_disk() -> None:
    bench = bench_of("a")
    bench.hold = True
    assert make(bench, 1, PROMPT + 1) == []
    assert revisions(sent(bench.advance(2 * PUSH_INTERVAL))) == []
    assert revisions(sent(bench.confirm())) == [(number, False) for number in range(1, PROMPT + 1)]
    assert revisions(sent(bench.advance(0.9 * PUSH_INTERVAL))) == []
    assert revisions(sent(bench.advance(0.2 * PUSH_INTERVAL))) == [(PROMPT + 1, False)]


def test_the_burst_of_one_operator_holds_up_no_other() -> None:
    bench = bench_of("a")
    bench.operator("other")
    make(bench, 1, PROMPT + 1)
    assert revisions(sent(bench.set("q", b"other", learning_rate=0.5), b"other")) == [(PROMPT + 2, False)]


def test_who_had_gone_when_his_changes_were_on_disk_is_told_nothing_when_he_is_back() -> None:
    bench = bench_of("a")
    bench.hold = True
    make(bench, 1, PROMPT + 1)
    bench.receive(b"op", m.Goodbye())
    bench.confirm()
    bench.operator()
    assert revisions(sent(bench.advance(2 * PUSH_INTERVAL))) == []
    assert revisions(sent(bench.answer(1, "a")) + sent(bench.answer(PROMPT + 1, "a"))) == []
