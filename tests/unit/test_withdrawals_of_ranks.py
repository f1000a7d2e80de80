"""What ends a change that has not happened yet: a cancel, or a later change that supersedes it."""

import pytest

from tests.unit.joined_ranks import Ranks
from zloom import messages as m


def settle(ranks: Ranks, number: int, limit: int = 40) -> None:
    ranks.step(limit, until=lambda: ranks.attempt.ledgers[number].settled)


def agreed_for(ranks: Ranks, step: int) -> None:
    """Have the ranks agree on revision 1, which they carry out at `step`."""
    ranks.step()
    ranks.set("q1", {"rate": 7.0}, mode="at_step", at_step=step)
    assert ranks.attempt.ledgers[1].agreed is None
    for rank in ranks.ranks:  # near enough that the broker asks them
        rank.training.step = step - 10
    ranks.serve()
    ranks.pass_time(0.3)
    assert ranks.attempt.ledgers[1].agreed is not None


def refused(ranks: Ranks) -> str:
    answer = ranks.set("q2", {"rate": 0.5})
    assert isinstance(answer, m.Refusal)
    return answer.code


# --- one rank ------------------------------------------------------------------------------------


def test_a_change_supersedes_one_that_waits_for_its_step() -> None:
    ranks = Ranks(1)
    ranks.set("q1", {"rate": 7.0, "count": 3}, mode="at_step", at_step=50)
    assert refused(ranks) == "key_pending"
    ranks.set("q3", {"rate": 0.5}, supersede=True)
    ranks.step(2)
    assert (ranks.outcomes(1), ranks.outcomes(2)) == (["superseded"], ["applied@1"])
    ranks.step(60)
    assert ranks.rates == [0.5]
    assert ranks.ranks[0].registry.values["count"] == 0  # it ends whole
    assert ranks.attempt.config.now()["count"].value == 0


def test_a_rollback_supersedes_too() -> None:
    ranks = Ranks(1)
    ranks.set("q1", {"rate": 7.0}, mode="at_step", at_step=50)
    answer = ranks.ask(m.Rollback(id="b", run="run", to_revision=0))
    assert isinstance(answer, m.Refusal)
    assert answer.code == "key_pending"
    assert "or send this with --supersede (in Python supersede=True), which ends it" in answer.text
    ranks.ask(m.Rollback(id="b2", run="run", to_revision=0, supersede=True))
    ranks.step(60)
    assert ranks.outcomes(1) == ["superseded"]
    assert ranks.rates == [1.0]


def test_a_cancel_takes_back_what_waits_for_its_step() -> None:
    ranks = Ranks(1)
    ranks.set("q1", {"rate": 7.0}, mode="at_step", at_step=50)
    ranks.ask(m.Cancel(id="c", run="run", revision=1))
    ranks.step(60)
    assert (ranks.outcomes(1), ranks.outcomes(2)) == (["cancelled"], ["applied@1"])
    assert ranks.rates == [1.0]


# --- two ranks -----------------------------------------------------------------------------------


def test_a_change_supersedes_one_that_the_ranks_were_not_asked_about() -> None:
    ranks = Ranks(2)
    ranks.step()
    ranks.set("q1", {"rate": 7.0}, mode="at_step", at_step=10**6)
    assert refused(ranks) == "key_pending"
    ranks.set("q3", {"rate": 0.5}, supersede=True)
    assert ranks.outcomes(1) == ["superseded"] * 2
    settle(ranks, 2)
    assert ranks.rates == [0.5, 0.5]


def test_a_change_supersedes_one_that_is_agreed_and_has_not_begun() -> None:
    ranks = Ranks(2)
    agreed_for(ranks, 100)
    assert refused(ranks) == "key_pending"
    ranks.set("q3", {"rate": 0.5}, supersede=True)
    settle(ranks, 2)
    assert ranks.ranks[0].training.step < 100
    assert ranks.outcomes(1) == ["superseded"] * 2
    ranks.step(20)
    assert ranks.ranks[0].training.step > 100
    assert ranks.rates == [0.5, 0.5]
    assert ranks.attempt.config.now()["rate"].value == 0.5


@pytest.mark.parametrize("ahead", [1, 10**6])
def test_a_cancel_takes_back_what_is_undecided(ahead: int) -> None:
    ranks = Ranks(2)
    ranks.step()
    ranks.set("q1", {"rate": 7.0}, mode="at_step", at_step=ahead + 10**4)
    ranks.ask(m.Cancel(id="c", run="run", revision=1))
    assert (ranks.outcomes(1), ranks.outcomes(2)) == (["cancelled"] * 2, ["applied"] * 2)
    ranks.step(3)
    assert ranks.rates == [1.0, 1.0]


def test_a_cancel_takes_back_what_is_agreed_and_has_not_begun() -> None:
    ranks = Ranks(2)
    agreed_for(ranks, 100)
    ranks.ask(m.Cancel(id="c", run="run", revision=1))
    settle(ranks, 2)
    cancelled_at = ranks.ranks[0].training.step
    assert cancelled_at < 100
    assert ranks.outcomes(1) == ["cancelled"] * 2
    assert ranks.outcomes(2) == [f"applied@{cancelled_at}"] * 2
    ranks.step(20)
    assert ranks.ranks[0].training.step > 100
    assert ranks.rates == [1.0, 1.0]
    assert ranks.attempt.config.now()["rate"].value == 1.0


def test_a_cancel_whose_step_comes_later_finds_it_applied_on_all_ranks() -> None:
    ranks = Ranks(2)
    agreed_for(ranks, 100)
    ranks.step(9)
    ranks.ask(m.Cancel(id="c", run="run", revision=1))
    settle(ranks, 2)
    assert ranks.outcomes(1) == ["applied@100"] * 2
    assert [each.split("@")[0] for each in ranks.outcomes(2)] == ["rejected"] * 2
    assert ranks.rates == [7.0, 7.0]


def test_what_all_ranks_do_together_is_superseded_by_all_together() -> None:
    ranks = Ranks(2)
    agreed_for(ranks, 100)
    answer = ranks.set("q2", {"rate": 0.5}, supersede=True, mode="next")
    assert isinstance(answer, m.Refusal)
    assert answer.code == "bad_mode"
