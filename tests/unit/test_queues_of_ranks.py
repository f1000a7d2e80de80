"""Changes of one key for several steps, handed over in advance: each waits behind the ones before it."""

from typing import Any

import pytest

from tests.unit.broker_support import sent
from tests.unit.joined_ranks import Ranks
from zloom import messages as m
from zloom.model import Value

COUNTS = pytest.mark.parametrize("count", [1, 2])


def queued(ranks: Ranks, request_id: str, step: int, rate: float, **more: Any) -> m.Message:
    return ranks.set(request_id, {"rate": rate}, mode="at_step", at_step=step, queue=True, **more)


def paused_at(ranks: Ranks, step: int) -> None:
    """Have the ranks train up to a step and stand there, before any has told its pace."""
    for rank in ranks.ranks:
        rank.training.step = step
        rank.mailbox.pause.active = True
        rank.pace = None
    ranks.serve()


def go_on(ranks: Ranks) -> None:
    for rank in ranks.ranks:
        rank.mailbox.pause.end()
        rank.pace = 0.1
    ranks.serve()


def trained(ranks: Ranks, steps: int) -> list[Value]:
    """Train so many steps; return the rate of each, which all ranks have in common."""
    rates: list[Value] = []
    while len(rates) < steps:
        ranks.pass_time(0.1)  # as long as the broker thinks that a step takes
        ranks.step()
        while any(rank.mailbox.must_wait for rank in ranks.ranks):
            ranks.serve()
        (rate,) = set(ranks.rates)
        rates.append(rate)
    return rates


@COUNTS
def test_changes_of_one_key_come_at_their_steps_and_in_their_order(count: int) -> None:
    ranks = Ranks(count)
    paused_at(ranks, 1)
    for number, (step, rate) in enumerate([(1, 3.0), (2, 4.0), (4, 4.5), (4, 5.0), (5, 6.0), (9, 7.0)]):
        assert isinstance(queued(ranks, f"q{number}", step, rate), m.RevisionState)
    ranks.serve()
    assert ranks.rates == [3.0] * count
    undecided = [ledger.revision.revision for ledger in ranks.attempt.undecided()]
    assert undecided == []  # before they go on: a step of theirs may take a millisecond
    go_on(ranks)
    assert trained(ranks, 9) == [4.0, 4.0, 5.0, 6.0, 6.0, 6.0, 6.0, 7.0, 7.0]
    ends = [ranks.outcomes(number) for number in range(1, 7)]
    assert ends == [[f"applied@{step}"] * count for step in (1, 2, 4, 4, 5, 9)]
    assert ranks.attempt.config.now()["rate"].value == 7.0


@COUNTS
def test_what_would_come_before_the_one_that_waits_is_refused(count: int) -> None:
    ranks = Ranks(count)
    queued(ranks, "q1", 500, 4.0)
    refused = [
        queued(ranks, "q2", 499, 5.0),
        ranks.set("q3", {"rate": 5.0}, queue=True),
        queued(ranks, "q4", 600, 5.0, supersede=True),
    ]
    codes = [each.code for each in refused if isinstance(each, m.Refusal)]
    assert codes == ["key_pending", "bad_mode", "bad_mode"]


def test_a_change_behind_one_without_a_step_is_refused() -> None:
    ranks = Ranks(2)
    ranks.bench.receive(b"op", m.SetConfig(id="q1", run="run", changes={"rate": 4.0}))
    behind = m.SetConfig(id="q2", run="run", changes={"rate": 5.0}, mode="at_step", at_step=90, queue=True)
    (refusal,) = sent(ranks.bench.receive(b"op", behind))
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "key_pending"


@COUNTS
def test_the_cancel_of_one_that_waits_leaves_the_others(count: int) -> None:
    ranks = Ranks(count)
    for number, (step, rate) in enumerate([(40, 4.0), (41, 5.0), (42, 6.0)]):
        queued(ranks, f"q{number}", step, rate)
    ranks.ask(m.Cancel(id="c", run="run", revision=2))
    assert trained(ranks, 43)[38:] == [1.0, 4.0, 4.0, 6.0, 6.0]
    assert ranks.outcomes(2) == ["cancelled"] * count


@COUNTS
def test_paused_ranks_do_not_take_a_change_before_its_step(count: int) -> None:
    ranks = Ranks(count)
    ranks.step()
    for rank in ranks.ranks:
        rank.mailbox.pause.active = True
    queued(ranks, "q1", 3, 4.0)
    ranks.serve()
    assert ranks.rates == [1.0] * count
    go_on(ranks)
    assert trained(ranks, 3) == [1.0, 4.0, 4.0]
    assert ranks.outcomes(1) == ["applied@3"] * count
