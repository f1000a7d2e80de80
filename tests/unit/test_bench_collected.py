"""bench.collected and bench.suite: what of the benches is the same."""

from bench import anatomy, pages, suite
from bench.collected import Collected
from bench.results import Figure


def test_the_rounds_of_a_contender_are_put_together() -> None:
    collected = Collected("start")
    for millis in (1.0, 2.0):
        collected.add("import", "time", "ms", "zloom", millis)
        collected.add("import", "time", "ms", "bare Python", millis / 2)

    assert collected.figures() == [
        Figure("start", "import", "time", "ms", "zloom", [1.0, 2.0]),
        Figure("start", "import", "time", "ms", "bare Python", [0.5, 1.0]),
    ]


def test_each_bench_has_its_section_on_the_page() -> None:
    assert {*pages.BENCHES, anatomy.NAME} == set(suite.SIMPLE)
    assert all("{figures}" in section for section in pages.BENCHES.values())
