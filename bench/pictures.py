"""Draw the pictures of a saved run, as SVG that is the same whenever it is drawn of the same run."""

import math
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator, PercentFormatter

from bench import cuda_steps, picture_data, steps
from bench.percentiles import Spread
from bench.picture_data import Panel, Share
from bench.results import Run

# Inches.
PANEL_WIDTH, PANEL_HEIGHT, HEAD = 4.2, 3.4, 0.9
ROW = 0.3

COLUMNS = 3
"""Panels beside each other."""

INK, FAINT = "#222222", "#e4e4e4"
COLORS = {
    "zloom fsync": "#0b2f63",
    "zloom buffered": "#2f7ed8",
    "skeleton fsync": "#7a93bd",
    "skeleton buffered": "#a9cbf2",
    "sockets": "#bbbbbb",
    "pyzmq": "#8c8c8c",
    "zmq.asyncio": "#555555",
    "NATS": "#c8500a",
    "JetStream": "#3a8f3a",
    "JetStream always": "#8a2f8a",
    "Redis": "#c02942",
}
"""The same contender has the same color in each picture."""

PERCENTS = (50, 90, 99, 99.9)
"""On the axis, each as far from the next as the share of samples beyond it shrinks."""


def draw(run: Run, name: str, path: Path) -> None:
    """Write a picture of a run.

    Args:
        run: It has what the picture shows; see `picture_data.names`.
        name: Of the picture.
        path: Of the file; its folder must exist.

    Raises:
        ImportError: The package `hdrhistogram` is not installed and this picture needs it.
    """
    # What is unique in a file is otherwise made of random numbers and of the time.
    with rc_context({"svg.hashsalt": "zloom"}):
        _figure(run, name).savefig(
            path, format="svg", facecolor="white", metadata={"Date": None, "Creator": None}
        )


def _figure(run: Run, name: str) -> Figure:
    match name:
        case "latency":
            return _latency(picture_data.latency(run))
        case "fanout":
            return _fan_out(picture_data.fan_out(run))
        case "steps":
            return _shares(picture_data.shares(run, steps.NAME))
        case "cuda":
            return _shares(picture_data.shares(run, cuda_steps.NAME))
    raise ValueError(f"no picture {name}; expected one of {', '.join(picture_data.PICTURES)}")


def _latency(panels: list[Panel]) -> Figure:
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = _canvas(columns * PANEL_WIDTH, rows * PANEL_HEIGHT + HEAD, "How long a change takes")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        for contender, curve in panel.curves.items():
            beyond, millis = zip(*((_beyond(percent), each) for percent, each in curve), strict=True)
            axes.plot(beyond, millis, color=COLORS[contender], label=contender, linewidth=1.6)
        _percentile_axis(axes, panel.title)
    for empty in grid.flat[len(panels) :]:
        empty.remove()
    for row in grid:
        row[0].set_ylabel("milliseconds", color=INK)
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    shown = [lines[contender] for contender in COLORS if contender in lines]
    figure.legend(handles=shown, loc="outside lower center", ncols=len(shown), frameon=False)
    return figure


def _beyond(percent: float) -> float:
    """Return of how many samples one lies beyond a percentile."""
    return 100 / (100 - percent)


def _percentile_axis(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xscale("log")
    _log_millis(axes)
    axes.set_xlim(_beyond(PERCENTS[0]), _beyond(PERCENTS[-1]))
    axes.xaxis.set_major_locator(FixedLocator([_beyond(percent) for percent in PERCENTS]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda beyond, _: f"{100 - 100 / beyond:.4g} %"))
    axes.xaxis.set_minor_locator(NullLocator())
    _lighten(axes)


def _log_millis(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _plain(value: float, _: object) -> str:
    return f"{value:,.6g}"


def _fan_out(points: dict[str, list[tuple[int, Spread]]]) -> Figure:
    figure = _canvas(1.6 * PANEL_WIDTH, PANEL_HEIGHT + HEAD, "One change to all weavelets of a run")
    axes = figure.subplots()
    for contender, found in points.items():
        sizes, spreads = [size for size, _ in found], [each for _, each in found]
        axes.errorbar(
            sizes,
            [each.median for each in spreads],
            yerr=_around(spreads),
            color=COLORS[contender],
            label=contender,
            marker="o",
            markersize=4,
            capsize=3,
        )
    axes.set_xscale("log")
    _log_millis(axes)
    axes.xaxis.set_major_locator(
        FixedLocator(sorted({size for found in points.values() for size, _ in found}))
    )
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("weavelets, or subscribers of NATS", color=INK)
    axes.set_ylabel("milliseconds until all outcomes", color=INK)
    axes.legend(frameon=False)
    _lighten(axes)
    return figure


def _shares(shares: list[Share]) -> Figure:
    figure = _canvas(
        2 * PANEL_WIDTH, len(shares) * ROW + 0.6 + HEAD, "Steps a second as a share of the bare loop's"
    )
    axes = figure.subplots()
    for row, share in enumerate(shares):
        color = COLORS["zloom buffered"] if "zloom" in share.contender else COLORS["NATS"]
        axes.errorbar(
            [share.spread.median], [row], xerr=_around([share.spread]), color=color, marker="o", capsize=3
        )
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_yticks(range(len(shares)), [_who(each) for each in shares])
    axes.set_ylim(len(shares) - 0.5, -0.5)  # the first stands above
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    _lighten(axes)
    return figure


def _who(share: Share) -> str:
    base = picture_data.BASES.get(share.contender)
    return f"{share.case}: {share.contender}" + (f" (of {base}'s)" if base else "")


def _around(spreads: list[Spread]) -> list[list[float]]:
    """Return how far the least and the greatest of rounds are from their medians."""
    return [[each.median - each.low for each in spreads], [each.high - each.median for each in spreads]]


def _canvas(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold", color=INK, x=0.01, ha="left")
    return figure


def _lighten(axes: Axes) -> None:
    axes.grid(color=FAINT)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
