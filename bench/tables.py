"""The tables of a run, for the terminal and for Markdown alike."""

from dataclasses import dataclass

import rich.box
from rich.table import Table

from bench.percentiles import Percentiles, Spread, spread
from bench.results import PEERS, SKELETONS, Cost, Figure, Run, Verdict

PERCENTILES = ("p50", "p90", "p99", "p99.9", "n")
"""The heads of what `_percentiles` returns."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of texts; all columns after the first `left` are aligned to the right."""

    title: str
    header: list[str]
    rows: list[list[str]]
    left: int

    def markdown(self) -> str:
        """Return it as a table of Markdown, without the title."""
        rule = ["---" if column < self.left else "---:" for column in range(len(self.header))]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.header, rule, *self.rows))

    def rich(self) -> Table:
        """Return it for a terminal."""
        table = Table(title=self.title, title_justify="left", box=rich.box.SIMPLE, pad_edge=False)
        for column, name in enumerate(self.header):
            table.add_column(name, justify="left" if column < self.left else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table


def round_trips(run: Run) -> Grid:
    """Return the percentiles, in milliseconds."""
    header = ["over", "training", "", *PERCENTILES]
    rows = [
        [each.transport, each.load, each.contender, *_percentiles(each.total)] for each in run.round_trips
    ]
    return Grid("Round trips, milliseconds", header, rows, 3)


def _percentiles(total: Percentiles) -> list[str]:
    figures = [_millis(micros) for micros in (total.p50, total.p90, total.p99, total.p999)]
    return [*figures, str(total.n)]


def _millis(micros: float | None) -> str:
    return "-" if micros is None else f"{micros / 1000:.2f}"


def ratios(run: Run) -> Grid:
    """Return zloom's medians as multiples of the peers'."""
    title = "Medians in proportion: the rounds' median (least-greatest)"
    peers = [peer for peer in PEERS if any(each.peer == peer for each in run.ratios)]
    header = ["over", "training", "", *(f"to {peer}" for peer in peers)]
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for each in run.ratios:
        row = cells.setdefault((each.transport, each.load, each.contender), {})
        row[each.peer] = spread_text(each.spread)
    rows = [[*key, *(texts.get(peer, "-") for peer in peers)] for key, texts in cells.items()]
    return Grid(title, header, rows, 3)


def spread_text(spread: Spread) -> str:
    """Return the median, with the least and the greatest of the rounds."""
    return f"{_short(spread.median)} ({_short(spread.low)}-{_short(spread.high)})"


def _short(value: float) -> str:
    """Return a number with three digits, or with all of its whole ones."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def open_loop(run: Run) -> Grid:
    """Return the percentiles of changes at fixed rates, in milliseconds, and what became of the rates."""
    header = ["sent a second", "", *PERCENTILES, "answered a second", "no answer"]
    rows = [
        [
            str(each.rate),
            each.contender,
            *_percentiles(each.total),
            spread_text(spread(each.answered)),
            str(each.unanswered),
        ]
        for each in run.open_loop
    ]
    return Grid("Open loop, milliseconds from when a change should have been sent", header, rows, 2)


def costs(run: Run) -> Grid:
    """Return what one call costs, in nanoseconds."""
    header = ["call", "best", "median", "goal", ""]
    return Grid(
        "One call on the training thread, nanoseconds", header, [_cost(each) for each in run.costs], 1
    )


def _cost(each: Cost) -> list[str]:
    goal = "" if each.goal is None else f"below {each.goal:.0f}"
    verdict = "" if each.goal is None else "met" if each.median < each.goal else "missed"
    return [each.call, f"{each.best:.0f}", f"{each.median:.0f}", goal, verdict]


def figures(run: Run, bench: str) -> Grid:
    """Return what a bench found: of each contender the rounds' median, with the least and the greatest."""
    rows = [_figure(each) for each in run.figures if each.bench == bench]
    return Grid(
        f"{bench}: the rounds' median (least-greatest)", ["case", "measured", "", "figure", "unit"], rows, 3
    )


def _figure(each: Figure) -> list[str]:
    return [each.case, each.what, each.contender, spread_text(spread(each.rounds)), each.unit]


def verdicts(run: Run) -> Grid:
    """Return how ours stand to their peers, and to the goals. Of the skeleton `bench.limits` has a table."""
    header = ["bench", "case", "measured", "compared", "figure", "goal", ""]
    rows = [_verdict(each) for each in run.verdicts if each.contender not in SKELETONS]
    return Grid("Goals: the rounds' median (least-greatest)", header, rows, 4)


def _verdict(each: Verdict) -> list[str]:
    sign = {"ratio": " / ", "difference": " - ", "itself": ", beside "}[each.by]
    figure = f"{spread_text(each.spread)} {each.unit}".rstrip()
    verdict = {None: "", True: "met", False: "missed"}[each.met]
    compared = each.contender + sign + each.peer
    return [each.bench, each.case, each.what, compared, figure, goal_text(each), verdict]


def goal_text(each: Verdict) -> str:
    """Return the goal of a figure in words, empty where it has none."""
    return "" if each.limit is None else f"{'at most' if each.at_most else 'at least'} {each.limit:g}"


def absences(run: Run) -> Grid:
    """Return what could not be measured, and why."""
    rows = [[each.bench, each.what, each.why] for each in run.absent]
    return Grid("Not measured here", ["bench", "what", "why"], rows, 3)
