"""Draw when each rank took a change: the value that it trained with, step by step, one panel a change."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from plot_loss import CHANGE, CURVE, FAINT, INK

Points = Sequence[tuple[int, float]]

# Inches.
PANEL_WIDTH, PANEL_HEIGHT = 2.75, 2.5
LEFT, RIGHT, BOTTOM, TOP, GAP = 0.8, 0.2, 0.65, 1.45, 0.3

COLORS = (CURVE, CHANGE)
"""By rank. Rank 0 is drawn as dots, rank 1 as rings around them, so that both are seen where they agree."""

MARGIN = 6
"""Steps that are drawn before a change and after it."""


@dataclass(frozen=True)
class Change:
    """A change of the key that is drawn: its mode, its words, and the step at which each rank applied it."""

    mode: str
    what: str
    steps: tuple[int, ...]
    over: int = 0
    """Steps until the new value is reached."""

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last step to draw."""
        return min(self.steps) - MARGIN, max(self.steps) + self.over + MARGIN

    @property
    def where(self) -> str:
        """Who applied it at which step, in words."""
        if len(set(self.steps)) == 1:
            return f"all ranks at step {self.steps[0]}"
        return ", ".join(f"rank {rank} at step {step}" for rank, step in enumerate(self.steps))


def plot_modes(
    ranks: Sequence[Points], changes: Sequence[Change], path: Path, key: str = "learning_rate"
) -> None:
    """Write a PNG with the changes of a key side by side to `path`, whose folder must exist.

    Args:
        ranks: For rank 0 and rank 1, (step, value) in the order of steps.
        changes: What is drawn, from left to right.
        path: Where the picture goes.
        key: What was changed, for the title.

    Raises:
        ValueError: There is no change, or a rank has no value around one.
    """
    if not changes:
        raise ValueError("there is nothing to draw: expected at least one change")
    figure, panels = _canvas(len(changes), f"When each rank changed {key}")
    for axes, change in zip(panels, changes, strict=True):
        _draw(axes, [within(points, *change.span) for points in ranks], change)
    panels[0].set_ylabel(key, fontsize=11, color=INK)
    for axes in panels[1:]:
        axes.tick_params(labelleft=False)
    corner = (1 - RIGHT / figure.get_figwidth(), 1 - 0.3 / figure.get_figheight())
    lines = panels[0].get_lines()[: len(ranks)]
    figure.legend(handles=lines, loc="center right", bbox_to_anchor=corner, ncols=2, frameon=False)
    figure.savefig(path, dpi=150, facecolor="white")


def within(points: Points, first: int, last: int) -> list[tuple[int, float]]:
    """Return the points from the first step to the last.

    Raises:
        ValueError: There is none.
    """
    inside = [(step, value) for step, value in points if first <= step <= last]
    if not inside:
        raise ValueError(f"a rank has no value from step {first} to step {last}")
    return inside


def _canvas(panels: int, title: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels from left to right that share the scale of their values."""
    width = LEFT + panels * (PANEL_WIDTH + GAP) - GAP + RIGHT
    height = BOTTOM + PANEL_HEIGHT + TOP
    figure = Figure(figsize=(width, height))
    figure.text(LEFT / width, 1 - 0.3 / height, title, fontsize=15, fontweight="bold", color=INK, va="center")
    axes: list[Axes] = []
    for column in range(panels):
        left = (LEFT + column * (PANEL_WIDTH + GAP)) / width
        place = (left, BOTTOM / height, PANEL_WIDTH / width, PANEL_HEIGHT / height)
        axes.append(figure.add_axes(place, sharey=axes[0] if axes else None))
    return figure, axes


def _draw(axes: Axes, ranks: Sequence[Points], change: Change) -> None:
    for rank, points in enumerate(ranks):
        steps, values = zip(*points, strict=True)
        dot, face = (4.5, COLORS[rank]) if rank == 0 else (8.5, "none")
        axes.plot(steps, values, "o", color=COLORS[rank], ms=dot, mfc=face, label=f"rank {rank}")
    for step, color in zip(change.steps, COLORS, strict=True):
        axes.axvline(step, color=color, linewidth=1, alpha=0.5, zorder=0)
    words = f"{change.what}\n{change.where}"
    axes.set_title(words, fontsize=9.5, color=INK, loc="left", linespacing=1.5)
    axes.text(0, 1 + 0.52 / PANEL_HEIGHT, change.mode, transform=axes.transAxes, color=INK, fontweight="bold")
    axes.set_xlim(change.span[0] - 1, change.span[1] + 1)
    axes.set_xlabel("step", fontsize=11, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y", color=FAINT)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
