"""Which goals even the skeleton of zloom misses: those lie beyond what its parts can do."""

from bench.results import SKELETON_OF, SKELETONS, Run, Verdict
from bench.tables import Grid, spread_text

HEADER = ["bench", "case", "measured", "compared", "goal", "zloom", "skeleton", ""]


def limits(run: Run) -> Grid:
    """Return the goals for zloom that were missed, and what the skeleton reaches."""
    skeletons = {
        (each.bench, each.case, each.what, each.contender, each.peer): each
        for each in run.verdicts
        if each.contender in SKELETONS
    }
    rows = []
    for each in run.verdicts:
        if each.contender in SKELETON_OF and each.limit is not None and not each.met:
            key = each.bench, each.case, each.what, SKELETON_OF[each.contender], each.peer
            if (skeleton := skeletons.get(key)) is not None:
                rows.append(_row(each, skeleton, each.limit))
    return Grid("Goals that were missed, and what the skeleton reaches", HEADER, rows, 4)


def _row(missed: Verdict, skeleton: Verdict, limit: float) -> list[str]:
    return [
        missed.bench,
        missed.case,
        missed.what,
        f"{missed.contender.removeprefix('zloom ')} / {missed.peer}",
        f"at most {limit:g}",
        spread_text(missed.spread),
        spread_text(skeleton.spread),
        _reach(skeleton, limit),
    ]


def _reach(skeleton: Verdict, limit: float) -> str:
    if skeleton.spread.low > limit:
        return "out of reach in each round"
    if skeleton.spread.median > limit:
        return "out of reach in most"
    return "the skeleton reaches it"
