"""The tables of a run, for the terminal and for Markdown alike."""

from dataclasses import dataclass

import rich.box
from rich.table import Table

from bench.percentiles import Spread
from bench.results import PEERS, Cost, RoundTrip, Run


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
    header = ["over", "training", "", "p50", "p90", "p99", "p99.9", "n"]
    rows = [_round_trip(each) for each in run.round_trips]
    return Grid("Round trips, milliseconds", header, rows, 3)


def _round_trip(each: RoundTrip) -> list[str]:
    total = each.total
    figures = [_millis(micros) for micros in (total.p50, total.p90, total.p99, total.p999)]
    return [each.transport, each.load, each.contender, *figures, str(total.n)]


def _millis(micros: float | None) -> str:
    return "-" if micros is None else f"{micros / 1000:.2f}"


def ratios(run: Run) -> Grid:
    """Return zloom's medians as multiples of the peers'."""
    title = "Medians in proportion: the rounds' median (least-greatest)"
    header = ["over", "training", "", *(f"to {peer}" for peer in PEERS)]
    cells: dict[tuple[str, str, str], list[str]] = {}
    for each in run.ratios:
        row = cells.setdefault((each.transport, each.load, each.contender), [])
        row.append(_spread(each.spread))
    return Grid(title, header, [[*key, *texts] for key, texts in cells.items()], 3)


def _spread(spread: Spread) -> str:
    return f"{spread.median:.3g} ({spread.low:.3g}-{spread.high:.3g})"


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
