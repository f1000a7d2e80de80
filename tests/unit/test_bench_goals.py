"""bench.goals: from figures to verdicts."""

import pytest

from bench.goals import Goal, judge
from bench.percentiles import Spread
from bench.results import Figure

FIGURES = [
    Figure("fanout", "10 weavelets", "all outcomes", "ms", "zloom", [2.0, 4.0, 9.0]),
    Figure("fanout", "10 weavelets", "all outcomes", "ms", "NATS", [4.0, 8.0, 9.0]),
    Figure("fanout", "100 weavelets", "all outcomes", "ms", "zloom", [20.0]),
]


def goal(limit: float | None = None, **options: object) -> Goal:
    return Goal("10 weavelets", "all outcomes", "zloom", "NATS", limit, **options)  # type: ignore[arg-type]


def test_rounds_are_compared_with_the_peers_of_the_same_round() -> None:
    ratio, difference, itself = judge(FIGURES, [goal(), goal(by="difference"), goal(by="itself")])

    assert (ratio.spread, ratio.unit) == (Spread(0.5, 0.5, 1.0), "")
    assert (difference.spread, difference.unit) == (Spread(-2.0, -4.0, 0.0), "ms")
    assert (itself.spread, itself.unit) == (Spread(4.0, 2.0, 9.0), "ms")


@pytest.mark.parametrize(
    ("limit", "at_most", "met"),
    [(0.5, True, True), (0.49, True, False), (0.5, False, True), (0.51, False, False), (None, True, None)],
)
def test_a_limit_is_kept_at_the_limit(limit: float | None, at_most: bool, met: bool | None) -> None:
    (verdict,) = judge(FIGURES, [goal(limit, at_most=at_most)])

    assert verdict.met is met


def test_a_figure_without_its_peer_is_not_judged() -> None:
    assert judge(FIGURES, [Goal("100 weavelets", "all outcomes", "zloom", "NATS", 0.7)]) == []


def test_there_is_no_ratio_to_a_peer_who_was_too_quick_for_the_clock() -> None:
    case = ("fanout", "1 weavelets", "CPU", "ms")
    figures = [Figure(*case, "zloom", [1.0, 1.0]), Figure(*case, "NATS", [0.5, 0.0])]

    assert judge(figures, [Goal("1 weavelets", "CPU", "zloom", "NATS")]) == []


def test_what_broke_off_is_not_judged() -> None:
    figures = [FIGURES[0], Figure("fanout", "10 weavelets", "all outcomes", "ms", "NATS", [4.0, 8.0])]

    assert judge(figures, [goal()]) == []
