"""Draw the loss of a steered run, with each change marked at the step where it was applied."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.transforms import ScaledTranslation

# Inches.
PLOT_WIDTH, PLOT_HEIGHT = 10.0, 4.8
LEFT, RIGHT, BOTTOM, TITLE = 0.8, 0.4, 0.65, 0.75
ROW = 0.27
GAP = 0.12

FONT_SIZE = 9.5
CURVE, CHANGE, INK, FAINT = "#1f5fa8", "#c8500a", "#222222", "#e4e4e4"

# How many points the smoothed curve looks back over: enough to still the noise of small batches, and
# few enough to show the bend after a change.
SMOOTHING = 11

Points = Sequence[tuple[int, float]]
Changes = Sequence[tuple[int, str]]


def plot_loss(points: Points, changes: Changes, path: Path, title: str = "Loss of a steered run") -> None:
    """Write a PNG of the loss over steps to `path`.

    Args:
        points: (step, loss) in the order of steps; losses that are not finite are left out.
        changes: (step, label), such as `(120, "r3 learning_rate=0.001")`.
        path: Where the picture goes; its folder must exist.
        title: What stands above.

    Raises:
        ValueError: There are no points with a finite loss.
    """
    points = [(step, loss) for step, loss in points if math.isfinite(loss)]
    if not points:
        raise ValueError("there is nothing to draw: expected at least one point with a finite loss")
    changes = sorted(changes, key=lambda change: change[0])
    first, last = _span(points, changes)
    inches = [PLOT_WIDTH * (step - first) / (last - first) for step, _ in changes]
    rows = label_rows(inches, [_width(label) for _, label in changes])
    figure, axes = _canvas(1 + max(rows, default=-1), title)
    axes.set_xlim(first, last)
    _draw_curve(figure, axes, points)
    _draw_changes(figure, axes, points, changes, rows)
    figure.savefig(path, dpi=150, facecolor="white", bbox_inches="tight", pad_inches=0.2)


def smooth(losses: Sequence[float]) -> list[float]:
    """Return the exponential moving average, corrected for its start, without a look ahead."""
    keep = 1 - 2 / (SMOOTHING + 1)
    average, weight, smoothed = 0.0, 0.0, []
    for loss in losses:
        average = keep * average + (1 - keep) * loss
        weight = keep * weight + (1 - keep)
        smoothed.append(average / weight)
    return smoothed


def label_rows(positions: Sequence[float], widths: Sequence[float]) -> list[int]:
    """Give each label a row above the plot, 0 the lowest, so that nothing runs through a label.

    A label stands to the right of the line that rises to it from its position. So one that reaches over
    later lines must stand higher than all the labels these rise to. Positions ascend; all in one unit.
    """
    rows = [0] * len(positions)
    for current in reversed(range(len(positions))):
        end = positions[current] + widths[current] + GAP
        covered = [rows[later] for later in range(current + 1, len(rows)) if positions[later] < end]
        rows[current] = 1 + max(covered, default=-1)
    return rows


def _span(points: Points, changes: Changes) -> tuple[float, float]:
    steps = [step for step, _ in [*points, *changes]]
    return min(steps), max(*steps, min(steps) + 1)


def _width(label: str) -> float:
    return float(TextPath((0, 0), label, size=FONT_SIZE).get_extents().width) / 72


def _canvas(rows: int, title: str) -> tuple[Figure, Axes]:
    width = LEFT + PLOT_WIDTH + RIGHT
    height = BOTTOM + PLOT_HEIGHT + rows * ROW + TITLE
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((LEFT / width, BOTTOM / height, PLOT_WIDTH / width, PLOT_HEIGHT / height))
    figure.text(LEFT / width, 1 - 0.3 / height, title, fontsize=15, fontweight="bold", color=INK, va="center")
    axes.set_xlabel("step", fontsize=11, color=INK)
    axes.set_ylabel("loss (nats per byte)", fontsize=11, color=INK)
    axes.grid(axis="y", color=FAINT)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw_curve(figure: Figure, axes: Axes, points: Points) -> None:
    steps, losses = [step for step, _ in points], [loss for _, loss in points]
    axes.plot(steps, losses, color=CURVE, alpha=0.3, linewidth=0.8, label="each step")
    axes.plot(steps, smooth(losses), color=CURVE, linewidth=2.2, label="smoothed")
    axes.plot([], [], color=CHANGE, linewidth=1, marker="o", markersize=4.5, label="change applied")
    corner = (axes.get_position().x1, 1 - 0.3 / figure.get_figheight())
    figure.legend(loc="center right", bbox_to_anchor=corner, ncols=3, frameon=False, borderaxespad=0)


def _draw_changes(figure: Figure, axes: Axes, points: Points, changes: Changes, rows: Sequence[int]) -> None:
    steps, losses = [step for step, _ in points], smooth([loss for _, loss in points])
    across = axes.get_xaxis_transform()
    beside = across + ScaledTranslation(GAP / 2, 0, figure.dpi_scale_trans)
    for (step, label), row in zip(changes, rows, strict=True):
        top = 1 + (row + 0.75) * ROW / PLOT_HEIGHT
        axes.plot([step, step], [0, top], color=CHANGE, lw=1, alpha=0.7, transform=across, clip_on=False)
        axes.text(step, top, label, transform=beside, va="center", fontsize=FONT_SIZE, color=INK)
        at = min(bisect_left(steps, step), len(steps) - 1)
        axes.plot(step, losses[at], "o", color=CHANGE, markersize=4.5, zorder=3, clip_on=False)
