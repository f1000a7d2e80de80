"""bench.anatomy, its stamps, its way, its bounds and its tables: the parts that need no process."""

import inspect
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from bench import anatomy, anatomy_bounds, anatomy_tables, pages, report, stamps, suite
from bench.anatomy_points import BY_PART
from bench.anatomy_way import GROUPS, UNDISTURBED, UNTIL, WAY, WayChanged, all_legs, legs, of_group
from bench.extent import Extent
from bench.percentiles import Percentiles, Spread
from bench.results import Contender, Figure, RoundTrip, Run, Verdict
from bench.stamps import Point, Stamps
from tests.unit.test_bench_report import RUN
from zloom_broker.server import Server


class Stamped:
    """What the tests wrap."""

    def double(self, number: int) -> int:
        """Return twice the number."""
        return 2 * number

    def fail(self) -> None:
        """Raise."""
        raise ZeroDivisionError


class Heir(Stamped):
    """It has nothing of its own."""


@pytest.fixture(autouse=True)
def unwrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("double", "fail"):
        monkeypatch.setattr(Stamped, name, getattr(Stamped, name))


# --- stamps ------------------------------------------------------------------------------------


def test_all_that_is_stamped_is_there_and_the_way_is_made_of_it() -> None:
    names = [point.name for points in BY_PART.values() for point in points]

    for points in BY_PART.values():
        stamps.check(points)
    assert len(set(names)) == len(names), "the stamps of all processes are put together by their names"
    assert {leg.point for leg in WAY} == set(names)
    assert set(UNDISTURBED) < set(names)


@pytest.mark.parametrize("missing", [Point("b", Stamped, "renamed"), Point("b", Heir, "double")])
def test_a_function_that_is_not_there_is_named_and_nothing_is_stamped(missing: Point) -> None:
    double = Stamped.double

    with pytest.raises(AttributeError, match=f"{missing.owner.__name__} has no {missing.function}"):
        stamps.install([Point("a", Stamped, "double"), missing])

    assert Stamped.double is double


def test_a_function_that_was_renamed_fails_the_bench_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Server, "_on_committed")

    with pytest.raises(AttributeError, match="Server has no _on_committed"):
        suite.measure([anatomy.NAME], Extent(1, True, False, tmp_path, print), suite.Only())

    assert not list(tmp_path.iterdir())


def test_a_function_is_stamped_where_it_begins_and_where_it_ends_also_by_an_error(tmp_path: Path) -> None:
    signature = inspect.signature(Stamped.double)

    taken = stamps.install(
        [
            Point("begins", Stamped, "fail"),
            Point("ends", Stamped, "fail", after=True),
            Point("a", Stamped, "double"),
        ]
    )

    assert Stamped().double(number=21) == 42
    assert inspect.signature(Stamped.double) == signature
    with pytest.raises(ZeroDivisionError):
        Stamped().fail()
    assert taken["a"] < taken["begins"] < taken["ends"]
    assert [len(times) for times in taken.values()] == [1, 1, 1]

    stamps.save(taken, tmp_path / "broker.json")
    assert stamps.load([tmp_path / "broker.json"]) == taken
    with pytest.raises(TimeoutError, match="the trainer ended without"):
        stamps.load([tmp_path / "trainer.json"])


# --- the way -----------------------------------------------------------------------------------

APART = 10
"""Nanoseconds from one stamp of the way to the next."""

LONG = (len(WAY) + 1) * APART


def changes(*called: int) -> tuple[Stamps, list[tuple[int, int]]]:
    """Return the stamps of changes that were called then, and when each was called and had returned."""
    taken: Stamps = {leg.point: [] for leg in WAY}
    for start in called:
        taken["operator reads"].append(start + 8 * APART + 1)  # that it was accepted
        for number, leg in enumerate(WAY, 1):
            taken[leg.point].append(start + number * APART)
    return {name: sorted(times) for name, times in taken.items()}, [(start, start + LONG) for start in called]


def test_the_legs_of_a_change_add_up_to_the_whole_and_so_do_its_groups() -> None:
    taken, (change,) = changes(1000)

    found = legs(taken, *change)

    assert found == [APART] * len(UNTIL)
    assert sum(of_group(found, group) for group in GROUPS) == sum(found) == LONG


@pytest.mark.parametrize("point", UNDISTURBED)
def test_a_change_into_which_something_fell_is_left_out(point: str) -> None:
    taken, made = changes(1000, 2000)
    taken[point] = sorted([*taken[point], 1000 + 15])

    assert all_legs(taken, made) == [[APART] * len(UNTIL)]


def test_what_the_change_before_left_behind_is_not_taken_for_this_ones() -> None:
    taken, made = changes(1000, 2000)
    taken["broker publishes"] = sorted([*taken["broker publishes"], 2000 + 5])

    assert all_legs(taken, made) == [[APART] * len(UNTIL)] * 2


@pytest.mark.parametrize("point", ["commit ends", "broker answers"])
def test_changes_that_take_another_way_are_no_figures(point: str) -> None:
    taken, made = changes(1000, 2000, 3000)
    taken[point] = taken[point][-1:]

    with pytest.raises(WayChanged, match=r"[01] of 3 changes"):
        all_legs(taken, made)


# --- what must be there ------------------------------------------------------------------------


def test_each_part_that_must_be_there_is_measured_by_itself(tmp_path: Path) -> None:
    buffered, fsync = (anatomy_bounds.commits(tmp_path, each, 5) for each in anatomy.DURABILITIES)
    measured = [buffered, fsync, anatomy_bounds.hand_overs(5), anatomy_bounds.hand_backs(5)]
    with anatomy_bounds.hops() as hops:
        measured.append(hops(5))

    assert all(len(each) == 5 and all(0 < one < 10**9 for one in each) for each in measured)


# --- tables ------------------------------------------------------------------------------------


def figure(case: str, what: str, contender: str, rounds: Sequence[float]) -> Figure:
    return Figure(anatomy.NAME, case, what, "µs", contender, list(rounds))


NEEDED = [
    figure(anatomy.NEEDED, anatomy.HOP, "pyzmq", [40.0, 50.0, 60.0]),
    figure(anatomy.NEEDED, anatomy.OVER, "threading.Condition", [20.0] * 3),
    figure(anatomy.NEEDED, anatomy.BACK, "asyncio", [10.0] * 3),
    figure(anatomy.NEEDED, anatomy.COMMIT, "buffered", [15.0] * 3),
    figure(anatomy.NEEDED, anatomy.COMMIT, "fsync", [200.0] * 3),
]
LEAST = {"buffered": 4 * 50 + 3 * 20 + 3 * 10 + 2 * 15, "fsync": 4 * 50 + 3 * 20 + 3 * 10 + 2 * 200}

TAKEN_APART = msgspec.structs.replace(
    RUN,
    figures=NEEDED
    + [
        each
        for case in anatomy.DURABILITIES
        for each in (
            *(figure(case, until, group, [10.0, 20.0, 30.0]) for until, group in UNTIL),
            *(figure(case, anatomy.GROUP, group, [100.0]) for group in GROUPS),
            figure(case, anatomy.WHOLE, anatomy.STAMPED, [430.0, 420.0]),
            figure(case, anatomy.WHOLE, anatomy.PLAIN, [410.0, 410.0]),
            figure(case, anatomy.LEFT_OUT, anatomy.STAMPED, [2.0, 1.0]),
        )
    ],
)


def with_peers(**medians: float) -> Run:
    """Return the run with these peers' medians, and a goal at half of each."""
    ours: dict[str, Contender] = {"NATS": "zloom buffered", "Redis": "zloom fsync"}
    trips = [
        RoundTrip("tcp", "idle", peer, [], Percentiles(1, micros, micros, micros, None))  # type: ignore[arg-type]
        for peer, micros in medians.items()
    ]
    verdicts = [
        Verdict("latency", "tcp, idle", "p50", ours[peer], peer, "ratio", Spread(1, 1, 1), "", 0.5, True)
        for peer in medians
    ]
    return msgspec.structs.replace(TAKEN_APART, round_trips=trips, verdicts=verdicts)


def test_the_parts_are_added_up_as_often_as_a_change_needs_them() -> None:
    rows = {row[0]: row[1:] for row in anatomy_tables.needed(TAKEN_APART).rows}

    assert rows[anatomy.HOP] == ["4", "50 (40-60)", "200", "200"]
    assert rows[f"{anatomy.COMMIT}, fsync"] == ["2", "200 (200-200)", "-", "400"]
    sums = (f"{LEAST[each]} ({LEAST[each] - 40}-{LEAST[each] + 40})" for each in anatomy.DURABILITIES)
    assert rows["all of these"] == ["", "", *sums]
    assert rows["zloom, without stamps"] == ["", "", "410", "410"]
    assert not [name for name in rows if name.startswith("goal")]


def test_a_goal_is_out_of_reach_below_the_parts_of_each_round() -> None:
    buffered, fsync = LEAST["buffered"] - 41, LEAST["fsync"] + 41
    run = with_peers(NATS=2 * buffered, Redis=2 * fsync)

    assert anatomy_tables.needed(run).rows[-2:] == [
        ["goal: 0.5 times NATS", "", f"{2 * buffered}", f"{buffered}", "-"],
        ["goal: 0.5 times Redis", "", f"{2 * fsync}", "-", f"{fsync}"],
    ]
    below, _, above = anatomy_tables.out_of_reach(run).partition(" Above what must be there:")
    assert f"`buffered` at 0.5 times NATS ({buffered} µs, where the parts take 320 (280-360))" in below
    assert "Redis" not in below
    assert "`fsync` at 0.5 times Redis" in above


@pytest.mark.parametrize("beside", [-40, 0, 40])
def test_a_goal_within_the_rounds_is_not_called_out_of_reach(beside: int) -> None:
    told = anatomy_tables.out_of_reach(with_peers(NATS=2 * (LEAST["buffered"] + beside)))

    assert told.startswith("No more than what must be there, as far as the rounds can tell:")
    assert "Out of reach" not in told


def test_the_tables_have_each_leg_the_groups_and_what_the_stamps_take() -> None:
    assert anatomy_tables.legs(TAKEN_APART).rows == [
        [until, group, "20 (10-30)", "20 (10-30)"] for until, group in UNTIL
    ]
    rows = {row[0]: row[1] for row in anatomy_tables.groups(TAKEN_APART).rows}
    assert rows["the medians of all legs, added up"] == str(20 * len(UNTIL))
    assert rows["the stamps themselves"] == "15 (10-20)"


def test_the_section_is_on_the_page_of_a_run_that_has_it_and_only_there() -> None:
    page = report.render(with_peers(NATS=100.0))

    assert "## Anatomy of a change" not in report.render(RUN)
    tables = (anatomy_tables.legs, anatomy_tables.groups, anatomy_tables.needed)
    assert all(make(with_peers(NATS=100.0)).markdown() in page for make in tables)
    assert "left out; here 6." in page
    assert "Out of reach, because" in page
    assert pages.NO_PEERS in report.render(TAKEN_APART)


def test_a_run_that_broke_off_has_no_section() -> None:
    broken_off = msgspec.structs.replace(RUN, figures=NEEDED)

    assert "## Anatomy of a change" not in report.render(broken_off)
