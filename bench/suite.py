"""The benches by name, each measured into the parts of a run."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import anatomy, cuda_steps, fanout, herd, ingest, journal, open_loop, round_trips, start, steps
from bench.anatomy_way import WayChanged
from bench.collected import Collected
from bench.extent import Extent
from bench.goals import Goal, judge
from bench.results import (
    CONTENDERS,
    LOADS,
    TRANSPORTS,
    Absence,
    AtRate,
    Contender,
    Figure,
    Load,
    RoundTrip,
    Transport,
    Verdict,
)
from zloom import ZloomError

Measure = Callable[[Extent, Collected], None]

SIMPLE: dict[str, tuple[Measure, Sequence[Goal], Callable[[], list[Absence]]]] = {
    anatomy.NAME: (anatomy.measure, anatomy.GOALS, anatomy.absent),
    start.NAME: (start.measure, start.GOALS, start.absent),
    fanout.NAME: (fanout.measure, fanout.GOALS, fanout.absent),
    herd.NAME: (herd.measure, herd.GOALS, herd.absent),
    ingest.NAME: (ingest.measure, ingest.GOALS, ingest.absent),
    journal.NAME: (journal.measure, journal.GOALS, journal.absent),
    steps.NAME: (steps.measure, steps.GOALS, steps.absent),
    cuda_steps.NAME: (cuda_steps.measure, cuda_steps.GOALS, cuda_steps.absent),
}
"""By name: what measures it, what it should reach, and what this machine lacks for it."""

ROUND_TRIPS = {"latency": round_trips.IDLE_GOALS, "busy": round_trips.BUSY_GOALS}
"""Those that measure round trips, and what they should reach."""

BUSY_TRANSPORTS: tuple[Transport, ...] = ("tcp",)

NAMES = (*ROUND_TRIPS, open_loop.NAME, *SIMPLE)


@dataclass(slots=True)
class Found:
    """What the benches of one run have found so far."""

    round_trips: list[RoundTrip] = field(default_factory=list)
    open_loop: list[AtRate] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    absent: list[Absence] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Only:
    """What the round trips are limited to.

    Attributes:
        transports: Over which they go. By default all that there are, but tcp alone while the training is
            busy: NATS and Redis have no other.
        loads: What the training does meanwhile, in `busy`.
        contenders: Who makes them, and the changes of the open loop.
    """

    transports: Sequence[Transport] = ()
    loads: Sequence[Load] = LOADS
    contenders: Sequence[Contender] = CONTENDERS

    def plan(self, names: Sequence[str]) -> dict[Transport, list[Load]]:
        """Return what `latency`, `busy` or both measure: the loads by transport, none without any."""
        found: dict[Transport, list[Load]] = {}
        for name in names:
            usual = TRANSPORTS if name == "latency" else BUSY_TRANSPORTS
            for transport in self.transports or usual:
                loads = (load for load in round_trips.loads(name) if load in ("idle", *self.loads))
                found.setdefault(transport, []).extend(loads)
        return {transport: loads for transport, loads in found.items() if loads}


def measure(names: Sequence[str], extent: Extent, only: Only) -> Found:
    """Measure some benches, one after the other.

    Args:
        names: Of `NAMES`.
        extent: How much.
        only: What the round trips are limited to.
    """
    found = Found()
    together = [name for name in ROUND_TRIPS if name in names]
    if together:
        _round_trips(together, extent, only, found)
    if open_loop.NAME in names:
        _open_loop(extent, only, found)
    for name in names:
        if name in SIMPLE:
            extent.say(f"{name} …")
            _simple(name, extent, found)
    return found


def _simple(name: str, extent: Extent, found: Found) -> None:
    work, goals, absent = SIMPLE[name]
    collected = Collected(name)
    try:
        work(extent, collected)
    except (TimeoutError, ZloomError, WayChanged) as error:  # the others are worth measuring all the same
        found.absent.append(_broke_off(name, error))
    found.figures += collected.figures()
    found.verdicts += judge(collected.figures(), goals)
    found.absent += absent()


def _broke_off(name: str, error: Exception) -> Absence:
    return Absence(name, "what is not here", str(error) or "somebody did not answer in time")


def _open_loop(extent: Extent, only: Only, found: Found) -> None:
    loop = open_loop.OpenLoop()
    try:
        loop.run(extent, only.contenders)
    except (TimeoutError, ZloomError) as error:
        found.absent.append(_broke_off(open_loop.NAME, error))
    found.open_loop += open_loop.summarized(loop.turns)
    found.verdicts += judge(open_loop.figures(found.open_loop), open_loop.GOALS)
    found.absent += [*loop.absent(), *open_loop.absent()]


def _round_trips(names: Sequence[str], extent: Extent, only: Only, found: Found) -> None:
    """Measure `latency`, `busy` or both, on the same processes."""
    schedule = (round_trips.quick if extent.quick else round_trips.full)(extent.rounds)
    measured = round_trips.measure(only.plan(names), only.contenders, schedule, extent.folder, extent.say)
    found.round_trips += round_trips.summarized(asyncio.run(measured))
    for name in names:
        own = [each for each in found.round_trips if each.load in round_trips.loads(name)]
        found.verdicts += judge(round_trips.figures(name, own), ROUND_TRIPS[name])
        found.absent += round_trips.absent(name)
