"""The guard: instructions of well-defined work, which may not exceed their budgets.

Times differ from machine to machine and from minute to minute; the number of instructions does not, so that
it can be tested. It is no time: what C code does in one instruction, as in a search through a list, is not
seen.
"""

import functools
from collections.abc import Callable, Iterator

from msgspec import Struct

from bench import guard_work, instructions
from bench.guard_work import Fleet, OneSession
from bench.tables import Grid

SIZES = (1, 100, 1000)
"""Weavelets to which one change goes."""

FEW = 2
"""Weavelets with which everything happens that happens with many."""

WAYS: dict[str, Callable[[Fleet], object]] = {
    "at once": lambda fleet: fleet.change("immediate"),
    "agreed": lambda fleet: fleet.change("consistent"),
    "agreed by the broker": lambda fleet: fleet.change("consistent", store=False),
    "a beat": Fleet.beat,
}
"""What is counted with several weavelets, divided by their number."""

TICK, REPORT, SESSION = "tick(), idle", "report(loss=0.5)", "session: a revision and its answer"

REFERENCE = 4034
"""Instructions of `instructions.reference` on CPython 3.11. On another version all budgets grow or shrink by
how many it has there."""

# Counted on CPython 3.11.7 by `python -m bench guard`: its second column. Whoever makes one better, or worse
# for a good reason, counts anew, and says in the commit why.
COUNTED = {
    TICK: 22,
    REPORT: 68,
    SESSION: 991,
    "core, at once, 1 weavelet": 5693,
    "core, at once, 100 weavelets": 827,
    "core, at once, 1000 weavelets": 786,
    "core, agreed, 1 weavelet": 5406,
    "core, agreed, 100 weavelets": 1435,
    "core, agreed, 1000 weavelets": 1379,
    "core, agreed by the broker, 1 weavelet": 5406,
    "core, agreed by the broker, 100 weavelets": 1973,
    "core, agreed by the broker, 1000 weavelets": 1914,
    "core, a beat, 1 weavelet": 958,
    "core, a beat, 100 weavelets": 830,
    "core, a beat, 1000 weavelets": 829,
}
"""By the name of the work: instructions of one of it, or of one of its weavelets."""

MARGIN = 1.25
"""How many times what was counted is allowed: other versions of Python have other instructions, and a line
more need not be a matter of budgets."""

MOST_GROWTH = 1.3
"""How many times the instructions of one of 100 weavelets those of one of 1,000 may be. A look at all targets
at each of their messages would be ten times."""


class Row(Struct, frozen=True):
    """What was counted.

    Attributes:
        work: Its name.
        figure: Instructions of one, or how many times it has grown.
        budget: What the figure may be at most, on this version of Python.
    """

    work: str
    figure: float
    budget: float

    @property
    def kept(self) -> bool:
        """Whether the budget is."""
        return self.figure <= self.budget


def measure() -> list[Row]:
    """Count everything; takes a few seconds."""
    figures = dict(_figures())
    scale = instructions.counted(instructions.reference) / REFERENCE
    rows = [Row(name, figure, COUNTED[name] * MARGIN * scale) for name, figure in figures.items()]
    for way in WAYS:
        grown = figures[_core(way, SIZES[-1])] / figures[_core(way, SIZES[-2])]
        rows.append(Row(f"core, {way}, a weavelet of 1000 / of 100", grown, MOST_GROWTH))
    return rows


def _figures() -> Iterator[tuple[str, float]]:
    own = {guard_work.__file__, __file__}
    with guard_work.training_calls() as (tick, report):
        yield TICK, instructions.counted(tick, leave_out=own)
        yield REPORT, instructions.counted(report, leave_out=own)
    yield SESSION, instructions.counted(OneSession().take_one, leave_out=own)
    for way, work in WAYS.items():
        few = functools.partial(work, Fleet(FEW))
        for size in SIZES:
            fleet = functools.partial(work, Fleet(size))
            fleet()
            yield _core(way, size), instructions.counted(fleet, few, own) / size


def _core(way: str, size: int) -> str:
    return f"core, {way}, {size} weavelet{'s' if size > 1 else ''}"


def table(rows: list[Row]) -> Grid:
    """Return what was counted beside its budget."""
    header = ["work", "instructions, each", "at most", ""]
    cells = [
        [row.work, _short(row.figure), _short(row.budget), "kept" if row.kept else "exceeded"] for row in rows
    ]
    return Grid("Instructions of the interpreter", header, cells, 1)


def _short(figure: float) -> str:
    return f"{figure:.2f}" if figure < 10 else f"{figure:,.0f}"
