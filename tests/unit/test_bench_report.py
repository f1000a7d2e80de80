"""bench.report, bench.tables and bench.results: from a run to a page."""

import re
from pathlib import Path

import msgspec
import pytest

from bench import calls, report, results, tables
from bench.percentiles import Percentiles, Spread
from bench.results import Absence, AtRate, Cost, Figure, Machine, Ratio, RoundTrip, Run, Verdict

ROOT = Path(__file__).parents[2]

FEW = Percentiles(300, 2270.4, 2940.0, 5870.0, None)
MANY = Percentiles(1500, 240.0, 270.0, 370.0, 1210.0)

RUN = Run(
    Machine(
        "Some CPU", 2, "Linux 6.1", "CPython 3.11.9", "27.1.0", "4.3.5", "0.1.0", "", "2026-01-02", 512.3
    ),
    quick=False,
    step_ms=0.61,
    seconds=140.0,
    round_trips=[
        RoundTrip("ipc", "idle", "zloom fsync", [FEW], FEW),
        RoundTrip("ipc", "idle", "pyzmq", [MANY], MANY),
    ],
    ratios=[
        Ratio("ipc", "idle", "zloom fsync", "pyzmq", Spread(9.6, 9.13, 10.052)),
        Ratio("ipc", "idle", "zloom fsync", "zmq.asyncio", Spread(6.83, 6.66, 7.71)),
    ],
    costs=[
        Cost("an empty method", 23.0, 26.0, None),
        Cost("tick()", 45.0, 199.9, 200.0),
        Cost("report(loss=0.5)", 900.0, 1000.0, 1000.0),
    ],
)

VERDICTS = [
    Verdict("a", "b", "c", "zloom", "NATS", "ratio", Spread(0.9, 0.85, 1.2), "", 0.8, True),
    Verdict("a", "b", "c", "zloom", "Python", "difference", Spread(90, 80, 95), "ms", 120, True),
    Verdict("a", "b", "c", "zloom", "NATS", "itself", Spread(40, 40, 41), "MB", None, True),
]


def test_round_trips_are_in_milliseconds_and_a_p999_of_few_samples_is_left_open() -> None:
    assert tables.round_trips(RUN).rows == [
        ["ipc", "idle", "zloom fsync", "2.27", "2.94", "5.87", "-", "300"],
        ["ipc", "idle", "pyzmq", "0.24", "0.27", "0.37", "1.21", "1500"],
    ]


def test_the_ratios_of_a_contender_stand_in_one_row() -> None:
    assert tables.ratios(RUN).rows == [["ipc", "idle", "zloom fsync", "9.6 (9.13-10.1)", "6.83 (6.66-7.71)"]]


def test_a_goal_is_met_below_it_and_not_at_it() -> None:
    assert [row[-1] for row in tables.costs(RUN).rows] == ["", "met", "missed"]


def test_markdown_aligns_figures_to_the_right() -> None:
    assert tables.costs(RUN).markdown().splitlines()[:3] == [
        "| call | best | median | goal |  |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| an empty method | 23 | 26 |  |  |",
    ]


def test_the_page_has_every_table_and_the_machine() -> None:
    page = report.render(RUN)

    assert all(make(RUN).markdown() in page for make in (tables.round_trips, tables.ratios, tables.costs))
    assert "Some CPU, 2 cores, Linux 6.1" in page
    assert "zloom 0.1.0\n" in page  # no blank where there is no commit


def test_a_page_has_no_section_for_what_was_not_measured() -> None:
    page = report.render(msgspec.structs.replace(RUN, round_trips=[], ratios=[]))

    assert "## Round trips" not in page
    assert "## Goals" not in page
    assert "## What a step pays" in page


def test_the_page_says_what_was_not_measured_and_why() -> None:
    run = msgspec.structs.replace(RUN, absent=[Absence("latency", "NATS", "no nats-server found")])

    assert "| latency | NATS | no nats-server found |" in report.render(run)


def test_a_verdict_names_both_sides_the_goal_and_whether_it_is_met() -> None:
    rows = tables.verdicts(msgspec.structs.replace(RUN, verdicts=VERDICTS)).rows

    assert [row[3:] for row in rows] == [
        ["zloom / NATS", "0.9 (0.85-1.2)", "at most 0.8", "missed"],
        ["zloom - Python", "90 (80-95) ms", "at most 120", "met"],
        ["zloom, beside NATS", "40 (40-41) MB", "", ""],
    ]


def test_figures_are_those_of_their_bench() -> None:
    figures = [
        Figure("start", "import", "time", "ms", "zloom", [90.0, 80.0, 12345.6]),
        Figure("herd", "restart", "time", "s", "zloom", [1.0]),
    ]

    assert tables.figures(msgspec.structs.replace(RUN, figures=figures), "start").rows == [
        ["import", "time", "zloom", "90 (80-12,346)", "ms"]
    ]


def test_a_run_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    results.save(RUN, tmp_path / "new" / "run.json")

    assert results.load(tmp_path / "new" / "run.json") == RUN


def test_a_run_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    results.save(RUN, path)
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))

    with pytest.raises(msgspec.ValidationError, match="format"):
        results.load(path)


@pytest.mark.parametrize(("saved", "page"), [("latest", "performance"), ("gpu", "performance-gpu")])
def test_a_page_in_the_documentation_was_written_from_a_committed_run(saved: str, page: str) -> None:
    run = results.load(ROOT / "bench" / "results" / f"{saved}.json")

    assert (ROOT / "docs" / f"{page}.md").read_text() == report.render(run, page)


def test_the_pictures_in_the_documentation_are_those_that_its_pages_name() -> None:
    docs = ROOT / "docs"
    named = {
        picture
        for page in docs.glob("performance*.md")
        for picture in re.findall(r"!\[.+\]\((.+)\)", page.read_text())
    }

    assert named == {each.relative_to(docs).as_posix() for each in docs.glob("images/performance*")}


def test_a_page_has_no_picture_of_what_was_not_measured() -> None:
    assert "![" not in report.render(RUN)


def test_the_page_says_how_the_open_loop_went() -> None:
    at_rate = AtRate(2000, "NATS", [FEW], FEW, [1500.0, 1400.0, 1600.0], 7)

    page = report.render(msgspec.structs.replace(RUN, open_loop=[at_rate]))

    assert "## Open loop" in page
    assert "| 2000 | NATS | 2.27 | 2.94 | 5.87 | - | 300 | 1,500 (1,400-1,600) | 7 |" in page


def test_a_figure_that_rounds_to_a_thousand_is_written_like_one() -> None:
    figures = [Figure("start", "import", "time", "ms", "zloom", [999.7])]

    assert (
        tables.figures(msgspec.structs.replace(RUN, figures=figures), "start").rows[0][3].startswith("1,000 ")
    )


@pytest.mark.parametrize(
    ("copy", "verdict"),
    [(4302.0, "more than the goal, which is out of reach."), (3000.0, "less than the goal.")],
)
def test_what_torch_takes_of_a_tensor_on_a_gpu_says_whether_the_goal_can_be_met(
    copy: float, verdict: str
) -> None:
    medians = {calls.EMPTY: 77.0, calls.COPY: copy, calls.EVENT: 500.0, calls.CAPTURE: 300.0}
    costs = [Cost(name, median, median, None) for name, median in medians.items()]
    assert calls.out_of_reach(costs) == "", "no GPU was there"
    said = calls.out_of_reach([*costs, Cost(calls.ON_GPU, 6000.0, 6500.0, 5000.0)])
    assert said.endswith(f"take {sum(medians.values()):.0f} ns by themselves: {verdict}")
