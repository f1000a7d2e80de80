"""bench.skeleton does what a change cannot do without, and bench.limits says what that means for a goal."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bench import contenders, fanout, limits, results, steps
from bench.extent import Extent
from bench.goals import Goal, with_skeletons
from bench.parts import Plan
from bench.percentiles import Spread
from bench.results import Contender, Run, Verdict

CHANGES = 5
MACHINE = results.Machine("CPU", 2, "Linux", "CPython", "27", "4.3.5", "0.1.0", "", "2026-01-02", 1.0)


@pytest.mark.parametrize("contender", results.SKELETONS)
@pytest.mark.asyncio
async def test_a_change_and_its_outcome_are_committed_each(contender: Contender, tmp_path: Path) -> None:
    async with contenders.start(contender, "tcp", tmp_path) as bench:
        assert len(await bench.measure(Plan(CHANGES, 10.0))) == CHANGES
        await bench.train("busy")
        assert len(await bench.measure(Plan(CHANGES, 10.0))) == CHANGES
        await bench.train("idle")
    orders = ["busy", "idle"]
    assert rows_in(tmp_path) == 2 * (2 * CHANGES + len(orders))


@pytest.mark.asyncio
async def test_a_change_and_the_outcomes_of_all_are_committed(tmp_path: Path) -> None:
    extent = Extent(rounds=1, quick=True, large=False, folder=tmp_path, say=print)
    async with fanout._skeleton(extent, 3) as side:
        await side.change()
        await side.change()
        assert 2 * (1 + 1) <= rows_in(tmp_path) <= 2 * (1 + 3), "outcomes of one turn are one row"
        assert len(side.crowd) == 3


def rows_in(folder: Path) -> int:
    (database,) = folder.glob("*.db")
    with closing(sqlite3.connect(database)) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM rows").fetchone()
    return int(rows)


def test_the_skeleton_is_measured_by_each_goal_of_zloom_s() -> None:
    asked = [Goal("tcp", "p99", "zloom fsync", "NATS", 1.0), Goal("tcp", "p99", "zloom fsync", "Redis")]
    assert list(with_skeletons(asked)) == [
        asked[0],
        Goal("tcp", "p99", "skeleton fsync", "NATS"),
        asked[1],
    ]


def verdict(contender: str, spread: Spread, limit: float | None = None, *, at_most: bool = True) -> Verdict:
    return Verdict("latency", "tcp", "p99", contender, "NATS", "ratio", spread, "", limit, at_most=at_most)


@pytest.mark.parametrize(
    ("skeleton", "said"),
    [
        (Spread(0.97, 0.96, 0.98), "out of reach in each round"),
        (Spread(0.98, 0.96, 0.995), "out of reach in most"),
        (Spread(0.992, 0.96, 1.0), "the skeleton reaches it"),
    ],
)
def test_a_lower_bound_is_beyond_reach_likewise(skeleton: Spread, said: str) -> None:
    missed = verdict(steps.STEERED, Spread(0.98, 0.97, 1.0), 0.99, at_most=False)
    verdicts = [missed, verdict(steps.SKELETON, skeleton)]
    (row,) = limits.limits(Run(MACHINE, False, 0.5, 1.0, [], [], [], verdicts=verdicts)).rows
    assert row[3:6] == ["Lightning, zloom / NATS", "at least 0.99", "0.98 (0.97-1)"]
    assert row[-1] == said


@pytest.mark.parametrize(
    ("skeleton", "said"),
    [
        (Spread(1.5, 1.1, 2.0), "out of reach in each round"),
        (Spread(1.5, 0.9, 2.0), "out of reach in most"),
        (Spread(0.9, 0.8, 2.0), "the skeleton reaches it"),
    ],
)
def test_a_goal_that_was_missed_is_beyond_reach_where_the_skeleton_misses_it(
    skeleton: Spread, said: str
) -> None:
    verdicts = [
        verdict("zloom fsync", Spread(3.0, 2.0, 4.0), 1.0),
        verdict("skeleton fsync", skeleton),
        verdict("zloom buffered", Spread(0.5, 0.4, 0.6), 1.0),
        verdict("skeleton buffered", Spread(0.4, 0.3, 0.5)),
    ]
    (row,) = limits.limits(Run(MACHINE, False, 0.5, 1.0, [], [], [], verdicts=verdicts)).rows
    assert row[3:6] == ["fsync / NATS", "at most 1", "3 (2-4)"]
    assert row[-1] == said
