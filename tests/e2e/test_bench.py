"""`python -m bench`, quickly."""

from pathlib import Path

import pytest

from bench import anatomy, histograms, results
from bench.__main__ import main
from bench.anatomy_way import UNTIL
from bench.open_loop import QUICK_PACES
from bench.results import OPEN
from bench.round_trips import present

ROOT = Path(__file__).parents[2]
QUICKLY = ("--quick", "--rounds", "1")


def test_the_bench_measures_saves_and_writes_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # where its processes find it
    saved, page = tmp_path / "run.json", tmp_path / "performance.md"

    contenders = present("tcp", ["zloom buffered", "sockets", "NATS", "Redis"])
    chosen = [word for each in contenders for word in ("--contender", each)]
    limits = [*QUICKLY, "--transport", "tcp", "--load", "busy", *chosen]
    main(["latency", "busy", "open", "anatomy", "calls", *limits, "--output", str(saved)])
    main(["report", str(saved), "--output", str(page)])

    run = results.load(saved)
    assert {(each.load, each.contender) for each in run.round_trips} == {
        (load, contender) for load in ("idle", "busy") for contender in contenders
    }
    assert all(each.total.n and each.total.p50 > 0 for each in run.round_trips)
    assert {(each.rate, each.contender) for each in run.open_loop} == {
        (pace.rate, each) for pace in QUICK_PACES for each in contenders if each in OPEN
    }
    assert all(each.total.p50 > 0 and each.answered[0] > 0 for each in run.open_loop)
    assert {each.call for each in run.costs} >= {"tick()", "report(loss=0.5)"}
    assert all(0 < each.best <= each.median for each in run.costs)
    taken_apart = {(each.case, each.what, each.contender): each.rounds for each in run.figures}
    for durability in anatomy.DURABILITIES:
        (whole,) = taken_apart[durability, anatomy.WHOLE, anatomy.STAMPED]
        assert all(0 <= taken_apart[durability, *leg][0] < whole for leg in UNTIL)
    assert "### What must be there" in page.read_text()
    tables = len(run.round_trips) + len({each.load for each in run.round_trips})
    assert page.read_text().count("\n| tcp |") == tables, "a row each, and one of each load's ratios"
    assert (tmp_path / "images" / "performance-latency.svg").exists() == histograms.available()
