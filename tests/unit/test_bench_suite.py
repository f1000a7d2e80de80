"""bench.suite: which bench measures what."""

from pathlib import Path

import pytest

from bench import suite
from bench.collected import Collected
from bench.extent import Extent
from bench.results import TRANSPORTS, Absence
from bench.suite import Only


def test_latency_goes_over_every_transport_and_busy_over_the_one_that_nats_has() -> None:
    assert Only().plan(["latency"]) == {transport: ["idle"] for transport in TRANSPORTS}
    assert list(Only().plan(["busy"])) == ["tcp"]


def test_both_share_the_processes_of_a_transport() -> None:
    plan = Only(loads=("busy",)).plan(["latency", "busy"])

    assert plan == {"inproc": ["idle"], "ipc": ["idle"], "tcp": ["idle", "busy"]}


def test_a_transport_that_was_asked_for_is_the_only_one() -> None:
    assert Only(("ipc",), ("busy",)).plan(["latency", "busy"]) == {"ipc": ["idle", "busy"]}


def test_a_bench_that_gets_no_answer_leaves_the_others_to_be_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(extent: Extent, collected: Collected) -> None:
        collected.add("8 weavelets", "time", "s", "zloom", 1.0)
        raise TimeoutError("7 of 8 weavelets applied a change")

    def works(extent: Extent, collected: Collected) -> None:
        collected.add("import", "time", "ms", "zloom", 1.0)

    monkeypatch.setitem(suite.SIMPLE, "herd", (fails, (), list))
    monkeypatch.setitem(suite.SIMPLE, "start", (works, (), list))

    found = suite.measure(["herd", "start"], Extent(1, True, False, Path(), print), Only())

    assert [each.bench for each in found.figures] == ["herd", "start"], "what there was, and the next"
    assert found.absent == [Absence("herd", "what is not here", "7 of 8 weavelets applied a change")]
