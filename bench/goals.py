"""From figures and goals to verdicts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.percentiles import Percentiles, Spread, difference, ratio, spread
from bench.results import SKELETON_OF, By, Figure, Verdict


@dataclass(frozen=True, slots=True)
class Goal:
    """Whom a contender is compared with, and how well it should do.

    Attributes:
        case: In which of the bench's cases.
        what: Of its figures.
        limit: See `Verdict`; None to compare without a goal.
        at_most: Likewise.
        by: Likewise.
    """

    case: str
    what: str
    contender: str
    peer: str
    limit: float | None = None
    at_most: bool = True
    by: By = "ratio"


def with_skeletons(goals: Iterable[Goal]) -> Iterator[Goal]:
    """Yield the goals, and beside each of zloom's how its skeleton stands to the same peer."""
    for goal in goals:
        yield goal
        if goal.limit is not None and goal.contender in SKELETON_OF:
            yield Goal(goal.case, goal.what, SKELETON_OF[goal.contender], goal.peer)


def judge(figures: Sequence[Figure], goals: Iterable[Goal]) -> list[Verdict]:
    """Return a verdict for each goal whose contender and peer were both measured.

    A figure without its peer is not judged: the machine alone could explain it. Nor are those of which one
    broke off before the other, nor a ratio to a peer who was too quick for the clock in a round.

    Args:
        figures: Of one bench.
        goals: Of the same.
    """
    found = {(each.case, each.what, each.contender): each for each in figures}
    verdicts = []
    for goal in goals:
        ours = found.get((goal.case, goal.what, goal.contender))
        peer = found.get((goal.case, goal.what, goal.peer))
        if ours is not None and peer is not None and _comparable(goal, ours, peer):
            verdicts.append(_verdict(goal, ours, peer))
    return verdicts


def of_percentiles(bench: str, case: str, contender: str, rounds: Sequence[Percentiles]) -> list[Figure]:
    """Return the medians and the 99th percentiles of a contender's rounds, as goals are set for them."""
    return [
        Figure(bench, case, "p50", "µs", contender, [each.p50 for each in rounds]),
        Figure(bench, case, "p99", "µs", contender, [each.p99 for each in rounds]),
    ]


def _comparable(goal: Goal, ours: Figure, peer: Figure) -> bool:
    return len(ours.rounds) == len(peer.rounds) and (goal.by != "ratio" or all(peer.rounds))


def _verdict(goal: Goal, ours: Figure, peer: Figure) -> Verdict:
    unit = "" if goal.by == "ratio" else ours.unit
    return Verdict(
        ours.bench,
        goal.case,
        goal.what,
        goal.contender,
        goal.peer,
        goal.by,
        _compared(goal.by, ours.rounds, peer.rounds),
        unit,
        goal.limit,
        goal.at_most,
    )


def _compared(by: By, ours: list[float], peer: list[float]) -> Spread:
    match by:
        case "ratio":
            return ratio(ours, peer)
        case "difference":
            return difference(ours, peer)
        case "itself":
            return spread(ours)
