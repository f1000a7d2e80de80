"""Which goals even the skeleton of zloom misses: those lie beyond what its parts can do."""

from bench import steps
from bench.percentiles import Spread
from bench.results import SKELETON_OF, Run, Verdict
from bench.tables import Grid, goal_text, spread_text

_SKELETON_OF = SKELETON_OF | {steps.STEERED: steps.SKELETON}

HEADER = ["bench", "case", "measured", "compared", "goal", "zloom", "skeleton", ""]


def limits(run: Run) -> Grid:
    """Return the goals for zloom that were missed, and what the skeleton reaches."""
    skeletons = {
        (each.bench, each.case, each.what, each.contender, each.peer): each
        for each in run.verdicts
        if each.contender in _SKELETON_OF.values()
    }
    rows = []
    for each in run.verdicts:
        if each.contender in _SKELETON_OF and each.limit is not None and not each.met:
            key = each.bench, each.case, each.what, _SKELETON_OF[each.contender], each.peer
            if (skeleton := skeletons.get(key)) is not None:
                rows.append(_row(each, skeleton, each.limit))
    return Grid("Goals that were missed, and what the skeleton reaches", HEADER, rows, 4)


def _row(missed: Verdict, skeleton: Verdict, limit: float) -> list[str]:
    return [
        missed.bench,
        missed.case,
        missed.what,
        f"{missed.contender.removeprefix('zloom ')} / {missed.peer}",
        goal_text(missed),
        spread_text(missed.spread),
        spread_text(skeleton.spread),
        _reach(skeleton.spread, limit, at_most=missed.at_most),
    ]


def _reach(skeleton: Spread, limit: float, *, at_most: bool) -> str:
    sign, best = (1, skeleton.low) if at_most else (-1, skeleton.high)
    if sign * best > sign * limit:
        return "out of reach in each round"
    if sign * skeleton.median > sign * limit:
        return "out of reach in most"
    return "the skeleton reaches it"
