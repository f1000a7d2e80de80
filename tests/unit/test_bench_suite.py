"""bench.suite: which bench measures what."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench import contenders, open_loop, suite
from bench.collected import Collected
from bench.extent import Extent
from bench.parts import OpenBench, Plan
from bench.results import TRANSPORTS, Absence, Load, OpenContender
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


class Silent:
    """A contender of the open loop that answers while it is asked one by one, and never again after."""

    async def measure(self, plan: Plan) -> list[int]:
        return []

    async def train(self, load: Load) -> None:
        pass

    async def change(self) -> None:
        await asyncio.Event().wait()


class Prompt(Silent):
    """One that answers at once."""

    async def change(self) -> None:
        pass


def test_who_falls_behind_for_good_has_no_further_turn_and_the_others_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextlib.asynccontextmanager
    async def start(contender: OpenContender, folder: Path) -> AsyncIterator[OpenBench]:
        yield Silent() if contender == "zloom fsync" else Prompt()

    monkeypatch.setattr(contenders, "start_open", start)
    monkeypatch.setattr(open_loop, "GRACE", 0.01)
    monkeypatch.setattr(open_loop, "PATIENCE", 0.01)

    found = suite.measure(
        ["open"], Extent(2, True, False, Path(), print), Only(contenders=("zloom fsync", "zloom buffered"))
    )

    turns = {(each.rate, each.contender): len(each.rounds) for each in found.open_loop}
    first, *others = (pace.rate for pace in open_loop.QUICK_PACES)
    assert turns.pop((first, "zloom fsync")) == 1, "it is told what it reached"
    assert turns == {(rate, "zloom buffered"): 2 for rate in (first, *others)}
    assert [each.what for each in found.absent] == ["further turns of zloom fsync"]


def test_what_the_open_loop_found_until_somebody_broke_off_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.asynccontextmanager
    async def start(contender: OpenContender, folder: Path) -> AsyncIterator[OpenBench]:
        yield Prompt()
        raise TimeoutError("the trainer did not end")

    monkeypatch.setattr(contenders, "start_open", start)

    found = suite.measure(["open"], Extent(1, True, False, Path(), print), Only(contenders=("zloom fsync",)))

    assert [each.rate for each in found.open_loop] == [pace.rate for pace in open_loop.QUICK_PACES]
    assert Absence("open", "what is not here", "the trainer did not end") in found.absent
