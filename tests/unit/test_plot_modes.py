from pathlib import Path

import pytest
from matplotlib.image import imread

from examples.plot_modes import MARGIN, Change, plot_modes, within

APART = Change("next", "learning_rate=0.02 --mode next", (50, 53))
TOGETHER = Change("consistent", "learning_rate=0.08", (70, 70))
RAMP = Change("ramp", "learning_rate=..0.01 over 30 steps", (120, 120), over=30)


def learning_rates(first_change: int) -> list[tuple[int, float]]:
    return [(step, 0.05 if step < first_change else 0.02) for step in range(1, 200)]


RANKS = [learning_rates(50), learning_rates(53)]


def test_a_change_is_drawn_with_what_came_before_and_after() -> None:
    assert APART.span == (50 - MARGIN, 53 + MARGIN)
    assert RAMP.span == (120 - MARGIN, 150 + MARGIN)


def test_who_changed_when_in_words() -> None:
    assert APART.where == "rank 0 at step 50, rank 1 at step 53"
    assert TOGETHER.where == "all ranks at step 70"


def test_both_ends_of_a_span_are_drawn() -> None:
    inside = within(RANKS[0], 48, 51)
    assert inside == [(48, 0.05), (49, 0.05), (50, 0.02), (51, 0.02)]
    with pytest.raises(ValueError, match="no value from step 300 to step 310"):
        within(RANKS[0], 300, 310)


def test_each_change_has_a_panel(tmp_path: Path) -> None:
    plot_modes(RANKS, [APART], tmp_path / "one.png")
    plot_modes(RANKS, [APART, TOGETHER, RAMP], tmp_path / "three.png")
    one, three = imread(tmp_path / "one.png"), imread(tmp_path / "three.png")
    assert three.shape[1] > 2 * one.shape[1]
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_modes(RANKS, [], tmp_path / "none.png")


def test_ranks_that_differ_are_drawn_differently_from_ranks_that_agree(tmp_path: Path) -> None:
    plot_modes([RANKS[0], RANKS[0]], [TOGETHER], tmp_path / "agree.png")
    plot_modes([RANKS[0], learning_rates(74)], [TOGETHER], tmp_path / "differ.png")
    agree, differ = imread(tmp_path / "agree.png"), imread(tmp_path / "differ.png")
    assert (agree != differ).any()
