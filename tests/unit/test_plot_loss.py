import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from examples.plot_loss import GAP, label_rows, plot_loss, smooth

POINTS = [(step, 2 + 4 * math.exp(-step / 50)) for step in range(300)]
CHANGES = [(40, "r1 learning_rate=0.001"), (60, "r2 pause"), (60, "r3 resume"), (299, "r4 stop")]


def test_writes_a_picture_that_the_changes_mark(tmp_path: Path) -> None:
    plot_loss(POINTS, [], tmp_path / "plain.png")
    plot_loss(POINTS, CHANGES, tmp_path / "marked.png", title="tiny-lm")
    plain, marked = imread(tmp_path / "plain.png"), imread(tmp_path / "marked.png")
    assert marked.shape[0] > plain.shape[0], "labels have rows of their own above the plot"
    assert plain.shape[1] > 1200


def test_a_single_point_and_losses_that_are_not_finite(tmp_path: Path) -> None:
    plot_loss([(7, 2.5), (8, math.nan), (9, math.inf)], [(9, "r1 stop")], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 0
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_loss([(8, math.nan)], [], tmp_path / "none.png")


def test_smoothing_starts_at_the_first_loss_and_follows_a_jump() -> None:
    smoothed = smooth([5.0] * 50 + [2.0] * 50)
    assert smoothed[:50] == pytest.approx([5] * 50)
    assert 2 < smoothed[53] < 5
    assert smoothed[-1] == pytest.approx(2, abs=0.01)


def test_labels_apart_share_the_lowest_row() -> None:
    assert label_rows([0, 3, 6], [2, 2, 2]) == [0, 0, 0]
    assert label_rows([0, 1, 6], [2, 2, 2]) == [1, 0, 0]


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 4)), max_size=12))
def test_nothing_runs_through_a_label(labels: list[tuple[float, float]]) -> None:
    positions = sorted(position for position, _ in labels)
    widths = [width for _, width in labels]
    rows = label_rows(positions, widths)
    for earlier in range(len(rows)):
        for later in range(earlier + 1, len(rows)):
            if positions[later] < positions[earlier] + widths[earlier] + GAP:
                assert rows[later] < rows[earlier], "the later line would cross the earlier label"
