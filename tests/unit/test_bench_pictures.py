"""bench.picture_data and bench.pictures: from a saved run to what is drawn."""

import re
from pathlib import Path

import msgspec
import pytest

from bench import histograms, picture_data, pictures, report
from bench.__main__ import main
from bench.percentiles import Percentiles, Spread
from bench.picture_data import Share
from bench.results import CONTENDERS, AtRate, Figure, Machine, RoundTrip, Run, save

pytest.importorskip("hdrh", reason="the curves are decoded by it")

MS = 1_000_000
MACHINE = Machine("Some CPU", 2, "Linux", "CPython", "27.1.0", "4.3.5", "0.1.0", "", "2026-01-02", 512.3)
NOTHING = Run(MACHINE, quick=False, step_ms=0.6, seconds=1.0, round_trips=[], ratios=[], costs=[])
FEW = Percentiles(4, 2000.0, 4000.0, 4000.0, None)
ENCODED = histograms.encode([1 * MS, 2 * MS, 3 * MS, 4 * MS])


def closed(transport: str = "tcp", load: str = "idle", histogram: str = ENCODED) -> RoundTrip:
    return RoundTrip(transport, load, "zloom fsync", [FEW], FEW, histogram)  # type: ignore[arg-type]


def steps(contender: str, *rounds: float, bench: str = "trainer") -> Figure:
    return Figure(bench, "1 ms a step", "steps", "1/s", contender, list(rounds))


ALL = msgspec.structs.replace(
    NOTHING,
    round_trips=[closed()],
    open_loop=[
        AtRate(50, "zloom fsync", [FEW], FEW, [50.0], 0, ENCODED),
        AtRate(50, "NATS", [FEW], FEW, [50.0], 0, ENCODED),
        AtRate(2000, "NATS", [FEW], FEW, [1500.0], 1, ENCODED),
    ],
    figures=[
        Figure("fanout", "100 weavelets", "all outcomes", "ms", "zloom buffered", [30.0, 10.0, 20.0]),
        Figure("fanout", "8 weavelets", "all outcomes", "ms", "zloom buffered", [3.0, 1.0, 2.0]),
        Figure("fanout", "8 weavelets", "all outcomes", "ms", "NATS", [4.0]),
        Figure("fanout", "8 weavelets", "server's CPU", "ms", "NATS", [4.0]),
        steps("bare loop", 1000.0, 500.0),
        steps("zloom", 990.0, 500.0),
        steps("Lightning", 100.0, 100.0),
        steps("Lightning, zloom", 98.0, 99.0),
        steps("NATS publish", 900.0),
        steps("bare loop", 1000.0, bench="gpu"),
        steps("zloom", 999.0, bench="gpu"),
    ],
)


def test_a_curve_goes_from_the_median_as_far_as_there_are_samples() -> None:
    curve = histograms.curve(histograms.encode([number * MS for number in range(1, 101)]))

    assert curve[0] == pytest.approx((50, 50), rel=1e-2)
    assert curve[-1] == pytest.approx((99, 99), rel=1e-2)
    many = histograms.curve(histograms.encode([number * 1000 for number in range(1, 10_001)]))
    assert many[-1] == pytest.approx((99.9, 9.99), rel=1e-2)
    assert curve == sorted(curve)


def test_there_is_a_panel_for_the_closed_loop_and_one_for_each_rate() -> None:
    panels = picture_data.latency(ALL)

    assert [list(panel.curves) for panel in panels] == [["zloom fsync"], ["zloom fsync", "NATS"], ["NATS"]]
    assert "closed loop" in panels[0].title
    assert [panel.title.split()[0] for panel in panels[1:]] == ["50", "2000"]


@pytest.mark.parametrize("other", [closed("ipc"), closed(load="busy"), closed(histogram="")])
def test_round_trips_under_other_conditions_or_without_samples_are_not_drawn(other: RoundTrip) -> None:
    assert picture_data.names(msgspec.structs.replace(NOTHING, round_trips=[other])) == []


def test_fan_out_is_over_the_number_of_weavelets() -> None:
    assert picture_data.fan_out(ALL) == {
        "zloom buffered": [(8, Spread(2.0, 1.0, 3.0)), (100, Spread(20.0, 10.0, 30.0))],
        "NATS": [(8, Spread(4.0, 4.0, 4.0))],
    }


def test_steps_are_shares_of_the_bare_loop_of_the_same_round_and_lightning_with_zloom_of_lightning() -> None:
    assert picture_data.shares(ALL, "trainer") == [
        Share("1 ms a step", "zloom", Spread(0.995, 0.99, 1.0)),
        Share("1 ms a step", "Lightning, zloom", Spread(0.985, 0.98, 0.99)),
    ]


def test_each_picture_is_drawn_and_is_the_same_when_it_is_drawn_again(tmp_path: Path) -> None:
    assert picture_data.names(ALL) == list(picture_data.PICTURES)

    for name in picture_data.PICTURES:
        first, again = tmp_path / "first.svg", tmp_path / "again.svg"
        pictures.draw(ALL, name, first)
        pictures.draw(ALL, name, again)
        assert first.read_text().endswith("</svg>\n")
        assert first.read_bytes() == again.read_bytes()


def test_a_picture_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no picture loss; expected one of latency, fanout, steps, cuda"):
        pictures.draw(ALL, "loss", tmp_path / "loss.svg")


def test_a_page_names_its_own_pictures_and_no_other_pages(tmp_path: Path) -> None:
    run, page = tmp_path / "run.json", tmp_path / "docs" / "other.md"
    page.parent.mkdir()
    save(ALL, run)

    main(["report", str(run), "--output", str(page)])

    images = {f"images/other-{name}.svg" for name in picture_data.PICTURES}
    assert set(re.findall(r"!\[.+\]\((.+)\)", page.read_text())) == images
    assert {each.relative_to(page.parent).as_posix() for each in page.parent.glob("images/*")} == images


def test_a_picture_of_an_earlier_run_does_not_stay_beside_the_page(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    neighbour = tmp_path / "images" / "page-other-steps.svg"
    neighbour.write_text("of a page called page-other")
    report.write(ALL, tmp_path / "page.md")

    written = report.write(NOTHING, tmp_path / "page.md")

    assert written == [tmp_path / "page.md"]
    assert list((tmp_path / "images").iterdir()) == [neighbour]


def test_without_matplotlib_it_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    run, page = tmp_path / "run.json", tmp_path / "page.md"
    save(ALL, run)

    with pytest.raises(SystemExit):
        main(["report", str(run), "--output", str(page)])

    assert "pip install matplotlib" in capsys.readouterr().err
    assert not page.exists()


def test_each_contender_has_a_color_of_its_own() -> None:
    pytest.importorskip("matplotlib")
    assert pictures.COLORS.keys() == set(CONTENDERS)
    assert len(set(pictures.COLORS.values())) == len(CONTENDERS)
