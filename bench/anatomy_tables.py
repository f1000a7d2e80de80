"""The tables of the anatomy of a change, and which goals of the latency lie below what a change must take."""

from dataclasses import dataclass

from bench.anatomy import (
    BACK,
    COMMIT,
    DURABILITIES,
    GROUP,
    HOP,
    LEFT_OUT,
    NAME,
    NEEDED,
    OVER,
    PLAIN,
    STAMPED,
    WHOLE,
)
from bench.anatomy_way import GROUPS, UNTIL
from bench.percentiles import Spread, difference, spread
from bench.results import OURS, Figure, Run, Verdict
from bench.tables import Grid

TIMES = {HOP: 4, OVER: 3, BACK: 3, COMMIT: 2}
"""How often a change needs each. Hops: to the broker, to the trainer, and back. Hand-overs: two to the
journal's thread, for the change and for its outcome, and one to the training's; each has its hand-back."""

NOT_HERE = "-"


def measured(run: Run) -> bool:
    """Whether a run has all that the tables need: it may have broken off."""
    present = {each.case for each in _figures(run) if each.what == GROUP}
    return present == set(DURABILITIES)


def legs(run: Run) -> Grid:
    """Return the legs in their order, in microseconds."""
    rows = [[until, group, *_by_durability(run, until, group)] for until, group in UNTIL]
    return Grid("A change, leg by leg, microseconds", ["until", "what takes it", *DURABILITIES], rows, 2)


def groups(run: Run) -> Grid:
    """Return the same by what takes the time, and the whole, in microseconds."""
    rows = [[group, *_by_durability(run, GROUP, group)] for group in GROUPS]
    added = (sum(_micros(run, each, until, group) for until, group in UNTIL) for each in DURABILITIES)
    rows.append(["the medians of all legs, added up", *(f"{each:.0f}" for each in added)])
    rows += [[f"{WHOLE}, {kind}", *_by_durability(run, WHOLE, kind)] for kind in (STAMPED, PLAIN)]
    rows.append(["the stamps themselves", *(_text(_stamping(run, each)) for each in DURABILITIES)])
    return Grid("A change by what takes the time, microseconds", ["what takes it", *DURABILITIES], rows, 1)


def needed(run: Run) -> Grid:
    """Return what a change must take, beside what it took and what the goals ask for, in microseconds."""
    rows = [_part(run, part, "") for part in (HOP, OVER, BACK)]
    rows += [_part(run, COMMIT, durability) for durability in DURABILITIES]
    rows.append(["all of these", "", "", *(_text(least(run, each)) for each in DURABILITIES)])
    rows.append(
        [f"zloom, {PLAIN}", "", "", *(f"{_micros(run, each, WHOLE, PLAIN):.0f}" for each in DURABILITIES)]
    )
    rows += [_goal(each) for each in goals(run)]
    return Grid(
        "What a change must take at least, microseconds", ["part", "times", "each", *DURABILITIES], rows, 1
    )


def left_out(run: Run) -> int:
    """Return how many changes something else fell into."""
    return round(sum(sum(each.rounds) for each in _figures(run) if each.what == LEFT_OUT))


def least(run: Run, durability: str) -> Spread:
    """Return the microseconds that a change must take, whatever is done above its parts, by the rounds."""
    parts = [(TIMES[part], _figure(run, NEEDED, part, "").rounds) for part in (HOP, OVER, BACK)]
    parts.append((TIMES[COMMIT], _figure(run, NEEDED, COMMIT, durability).rounds))
    rounds = zip(*([times * each for each in rounds] for times, rounds in parts), strict=True)
    return spread([sum(each) for each in rounds])


# --- goals -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What a goal of the latency asks for.

    Attributes:
        limit: As a multiple of the peer's median.
        peer_micros: That median, in microseconds.
    """

    durability: str
    peer: str
    limit: float
    peer_micros: float

    @property
    def micros(self) -> float:
        """What a change may take, in microseconds."""
        return self.limit * self.peer_micros


def goals(run: Run) -> list[Asked]:
    """Return what the goals for the medians over tcp, the training idle, ask for, where it was measured."""
    medians: dict[str, float] = {
        each.contender: each.total.p50
        for each in run.round_trips
        if (each.transport, each.load) == ("tcp", "idle")
    }
    return [
        Asked(each.contender.removeprefix("zloom "), each.peer, each.limit, medians[each.peer])
        for each in run.verdicts
        if _is_of_latency(each) and each.limit is not None and each.peer in medians
    ]


def out_of_reach(run: Run) -> str:
    """Say which goals lie below what a change must take; empty where no peer was measured.

    Where a goal lies between the rounds' least and greatest, nothing is said for sure.
    """
    asked = goals(run)
    needed: dict[str, Spread] = {each: least(run, each) for each in DURABILITIES}
    below = [each for each in asked if each.micros < needed[each.durability].low]
    above = [each for each in asked if each.micros > needed[each.durability].high]
    between = [each for each in asked if each not in below and each not in above]
    sentences = [
        _sentence(run, below, "Out of reach, because in each round what must be there alone takes longer:"),
        _sentence(run, between, "No more than what must be there, as far as the rounds can tell:"),
        _sentence(run, above, "Above what must be there:"),
    ]
    return " ".join(each for each in sentences if each)


def _sentence(run: Run, asked: list[Asked], beginning: str) -> str:
    if not asked:
        return ""
    named = (
        f"`{each.durability}` at {each.limit:g} times {each.peer} ({each.micros:.0f} µs, where the parts "
        f"take {_text(least(run, each.durability))})"
        for each in asked
    )
    return f"{beginning} {', '.join(named)}."


def _is_of_latency(each: Verdict) -> bool:
    is_of_case = (each.bench, each.case, each.what, each.by) == ("latency", "tcp, idle", "p50", "ratio")
    return is_of_case and each.contender in OURS


# --- rows --------------------------------------------------------------------------------------


def _goal(asked: Asked) -> list[str]:
    own = (f"{asked.micros:.0f}" if each == asked.durability else NOT_HERE for each in DURABILITIES)
    return [f"goal: {asked.limit:g} times {asked.peer}", "", f"{asked.peer_micros:.0f}", *own]


def _part(run: Run, part: str, durability: str) -> list[str]:
    """Return a row of what all durabilities need, or one alone."""
    one = _spread(run, NEEDED, part, durability)
    together = f"{TIMES[part] * one.median:.0f}"
    name = f"{part}, {durability}" if durability else part
    own = (together if durability in ("", each) else NOT_HERE for each in DURABILITIES)
    return [name, str(TIMES[part]), _text(one), *own]


def _by_durability(run: Run, what: str, contender: str) -> list[str]:
    return [_text(_spread(run, each, what, contender)) for each in DURABILITIES]


def _stamping(run: Run, durability: str) -> Spread:
    stamped, plain = (_figure(run, durability, WHOLE, kind).rounds for kind in (STAMPED, PLAIN))
    return difference(stamped, plain)


def _text(each: Spread) -> str:
    return f"{each.median:.0f} ({each.low:.0f}-{each.high:.0f})"


def _micros(run: Run, case: str, what: str, contender: str = "") -> float:
    return _spread(run, case, what, contender).median


def _spread(run: Run, case: str, what: str, contender: str) -> Spread:
    return spread(_figure(run, case, what, contender).rounds)


def _figure(run: Run, case: str, what: str, contender: str) -> Figure:
    """Return a figure by its names; without a contender, the only one of that case."""
    return next(
        each
        for each in _figures(run)
        if (each.case, each.what) == (case, what) and contender in ("", each.contender)
    )


def _figures(run: Run) -> list[Figure]:
    return [each for each in run.figures if each.bench == NAME]
