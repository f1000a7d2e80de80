"""A change some steps after the one at which it is accepted."""

from typing import Any

import pytest

from tests.unit.joined_ranks import Ranks
from zloom import messages as m


def ask(ranks: Ranks, **more: Any) -> m.Message:
    return ranks.ask(m.SetConfig(id="q", run="run", changes={"rate": 7.0}, **more))


@pytest.mark.parametrize("count", [1, 2])
def test_steps_are_counted_from_the_newest_that_the_broker_knows(count: int) -> None:
    ranks = Ranks(count)
    ranks.step(30)
    state = ask(ranks, after=500, note="try it")
    assert isinstance(state, m.RevisionState)
    assert state.at_step == 530
    revision = ranks.ledger.revision
    assert (revision.at_step, revision.note) == (530, "500 steps after about 30; try it")
    assert revision.mode == ("at_step" if count == 1 else "consistent")


@pytest.mark.parametrize("count", [1, 2])
def test_it_is_applied_at_that_step(count: int) -> None:
    ranks = Ranks(count)
    ranks.step(3)
    ask(ranks, after=20)
    ranks.pass_time(0.3)
    ranks.step(40, until=lambda: ranks.ledger.settled)
    assert ranks.outcomes(1) == ["applied@23"] * count


def test_the_furthest_rank_counts_with_its_pace() -> None:
    ranks = Ranks(2)
    ranks.step(10)
    ranks.ranks[1].training.step = 14
    ranks.serve()
    ranks.pass_time(0.5)  # five steps of 0.1 s
    state = ask(ranks, after=100)
    assert isinstance(state, m.RevisionState)
    assert state.at_step == 119


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"after": 0}, "bad_value"),
        ({"after": 10**12 + 1}, "bad_value"),
        ({"after": 5, "at_step": 9}, "bad_mode"),
        ({"after": 5, "mode": "next"}, "bad_mode"),
        ({"after": 5, "mode": "consistent"}, "bad_mode"),
        ({"note": "x" * 501}, "too_large"),
    ],
)
def test_what_cannot_be_counted_is_refused(more: Any, code: str) -> None:
    ranks = Ranks(1)
    ranks.step()
    answer = ask(ranks, **more)
    assert isinstance(answer, m.Refusal)
    assert answer.code == code


def test_a_step_that_nobody_has_told_is_not_guessed() -> None:
    answer = ask(Ranks(1), after=5)
    assert isinstance(answer, m.Refusal)
    assert answer.code == "step_unknown"


def test_a_run_that_is_over_tells_no_step_any_more() -> None:
    ranks = Ranks(1)
    ranks.bench.receive(b"r0", m.Goodbye(reason="finished"))
    answer = ask(ranks, after=5)
    assert isinstance(answer, m.Refusal)
    assert answer.code == "no_replica"


@pytest.mark.parametrize(
    ("more", "known"), [({}, False), ({"step_time": 0.1}, True), ({"paused": True}, True)]
)
def test_a_step_that_is_told_without_a_pace_is_not_enough(more: Any, known: bool) -> None:
    ranks = Ranks(1)
    ranks.ranks[0].outbox.append(m.Status(seq=1, step=10, **more))
    ranks.pass_time(0.0)
    answer = ask(ranks, after=5)
    assert isinstance(answer, m.RevisionState) is known
