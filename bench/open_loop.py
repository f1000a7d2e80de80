"""Changes at fixed rates, sent whether or not earlier ones were answered, of all contenders in turns.

A closed loop sends the next change when the one before was answered, and so leaves out what would have queued
behind a slow one (coordinated omission). Here each is timed from when it should have been sent.
"""

import asyncio
import selectors
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack

from bench import contenders, histograms, nats_server
from bench.extent import Extent
from bench.goals import Goal, of_percentiles, with_skeletons
from bench.pace import SECOND, Pace, Turn
from bench.parts import OpenBench, Plan
from bench.percentiles import summarize
from bench.results import NATS, OPEN, Absence, AtRate, Figure, OpenContender

NAME = "open"

PACES = (Pace(50, 40), Pace(100, 60), Pace(200, 120), Pace(2000, 600))
"""Of a turn. Two cores carry all but the last for every contender; at the last the slow ones queue."""

QUICK_PACES = (Pace(100, 20), Pace(2000, 200))

WARM_UP = Plan(10, 0.1)
"""Before each turn, one after the other; not counted."""

GRACE = 2.0
"""Seconds after a pace in which changes can still be answered."""

PATIENCE = 10.0
"""Seconds after that in which the rest must be answered before the next turn, else it is the last: less than
the contenders' own time-outs leave of it."""

GOALS = tuple(
    with_skeletons(
        Goal(f"{rate} a second", what, ours, peer, limit)
        for rate in sorted({pace.rate for pace in (*PACES, *QUICK_PACES)})
        for ours, peer in (
            ("zloom buffered", "NATS"),
            ("zloom buffered", "JetStream"),
            ("zloom fsync", "JetStream always"),
        )
        for what, limit in (("p50", None), ("p99", 1.0))
    )
)

Turns = dict[tuple[int, OpenContender], list[Turn]]
"""By rate and contender, one of each round."""


class OpenLoop:
    """What the turns have found so far; it stays where a contender broke off."""

    def __init__(self) -> None:
        self.turns: Turns = defaultdict(list)
        self.behind: dict[OpenContender, str] = {}

    def run(self, extent: Extent, wanted: Collection[str]) -> None:
        """Measure those of the wanted contenders who are here.

        Raises:
            TimeoutError: A contender did not start or end.
            ZloomError: Zloom broke off.
        """
        # The selector of asyncio's own choice rounds up to whole milliseconds, and so sends late.
        with asyncio.Runner(loop_factory=_precise_loop) as runner:
            runner.run(self._measure(extent, wanted))

    async def _measure(self, extent: Extent, wanted: Collection[str]) -> None:
        async with AsyncExitStack() as stack:
            benches = {
                each: await stack.enter_async_context(contenders.start_open(each, extent.folder))
                for each in present(wanted)
            }
            for pace in QUICK_PACES if extent.quick else PACES:
                for number in range(extent.rounds):
                    extent.say(f"{NAME}, {pace.rate} a second: round {number + 1} of {extent.rounds}")
                    for contender, bench in benches.items():
                        if contender not in self.behind:
                            await self._turn(pace, contender, bench)

    async def _turn(self, pace: Pace, contender: OpenContender, bench: OpenBench) -> None:
        await bench.measure(WARM_UP)
        turn, late = await send(pace, bench.change, GRACE)
        self.turns[pace.rate, contender].append(turn)
        if not await finished(late, PATIENCE):
            self.behind[contender] = (
                f"at {pace.rate} a second {turn.unanswered} of {pace.count} changes had no answer in the end,"
                f" and some of them still {PATIENCE:.0f} s later"
            )

    def absent(self) -> Iterator[Absence]:
        """Yield who fell behind for good, and so had no further turn."""
        for contender, why in self.behind.items():
            yield Absence(NAME, f"further turns of {contender}", why)


def _precise_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def present(wanted: Collection[str]) -> list[OpenContender]:
    """Return who of those wanted can be measured, in the order of their turns."""
    lacking = NATS if nats_server.missing() else ()
    return [each for each in OPEN if each in wanted and each not in lacking]


async def send(
    pace: Pace, change: Callable[[], Awaitable[object]], grace: float
) -> tuple[Turn, set[asyncio.Task[None]]]:
    """Make changes at a pace, none of which waits for another.

    Args:
        change: Returns when the change was answered.
        grace: Seconds after the pace until which answers are waited for.

    Returns:
        What became of them, and those that still wait; see `finished`.
    """
    answered: list[int | None] = [None] * pace.count
    started = time.perf_counter_ns()

    async def one(number: int) -> None:
        await change()
        answered[number] = time.perf_counter_ns() - started

    tasks = []
    for number, intended in enumerate(pace.intended()):
        await asyncio.sleep(max(0.0, _until(started + intended)))
        tasks.append(asyncio.create_task(one(number)))
    deadline = started + pace.length + round(grace * SECOND)
    done, late = await asyncio.wait(tasks, timeout=max(0.0, _until(deadline)))
    turn = Turn(pace, tuple(answered), time.perf_counter_ns() - started)
    failures = [error for task in done if (error := task.exception()) is not None]  # of each, or it is logged
    if failures:
        raise failures[0]
    return turn, late


def _until(moment: int) -> float:
    return (moment - time.perf_counter_ns()) / SECOND


async def finished(late: Collection[asyncio.Task[None]], seconds: float) -> bool:
    """Wait until nothing is on its way any more, which would delay the next turn; tell whether it is so.

    Args:
        late: Cancelled when they have no answer at the end.
        seconds: How long.
    """
    if not late:
        return True
    done, given_up = await asyncio.wait(late, timeout=seconds)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)
    for task in done:
        task.result()
    return not given_up


def summarized(turns: Turns) -> list[AtRate]:
    """Return the percentiles of each round, and of all rounds together."""
    found = []
    for (rate, contender), rounds in turns.items():
        each_round = [turn.latencies() for turn in rounds]
        together = [one for each in each_round for one in each]
        found.append(
            AtRate(
                rate,
                contender,
                [summarize(each) for each in each_round],
                summarize(together),
                [round(turn.answered_a_second(), 1) for turn in rounds],
                sum(turn.unanswered for turn in rounds),
                histograms.encode(together),
            )
        )
    return found


def figures(found: Sequence[AtRate]) -> list[Figure]:
    """Return the medians and the 99th percentiles of the rounds, as goals are set for them."""
    return [
        figure
        for each in found
        for figure in of_percentiles(NAME, f"{each.rate} a second", each.contender, each.rounds)
    ]


def absent() -> list[Absence]:
    """Return whom this machine lacks."""
    why = nats_server.missing()
    return [Absence(NAME, "NATS, JetStream", why)] if why else []
