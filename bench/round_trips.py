"""Round trips of all contenders, in turns: A B C D, A B C D, … so that they share the machine's moods."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import contenders, histograms, nats_server, redis_server, training
from bench.goals import Goal, of_percentiles, with_skeletons
from bench.parts import Bench, Plan
from bench.percentiles import ratio, summarize
from bench.results import (
    CONTENDERS,
    NATS,
    OURS,
    PEERS,
    REDIS,
    Absence,
    Contender,
    Figure,
    Load,
    Ratio,
    RoundTrip,
    Transport,
)

BUSY_APART = 0.003
"""Seconds between two round trips of a turn with a busy training, at most: a few of its steps."""

FLOORS: tuple[tuple[Contender, Contender], ...] = (
    ("pyzmq", "NATS"),
    ("pyzmq", "JetStream"),
    ("zmq.asyncio", "JetStream always"),
)
"""What the hops alone take in Python, beside those whom a goal compares zloom with."""

IDLE_GOALS = tuple(
    with_skeletons(
        [
            Goal("tcp, idle", "p50", "zloom buffered", "NATS", 0.8),
            Goal("tcp, idle", "p50", "zloom buffered", "JetStream", 0.55),
            Goal("tcp, idle", "p50", "zloom fsync", "JetStream always", 0.5),
            Goal("tcp, idle", "p50", "zloom buffered", "pyzmq", 1.5),
            Goal("tcp, idle", "p50", "zloom buffered", "sockets"),
            *(Goal("tcp, idle", "p50", floor, peer) for floor, peer in FLOORS),
            Goal("tcp, idle", "p50", "zloom buffered", "Redis"),
            Goal("tcp, idle", "p99", "zloom buffered", "NATS", 1.0),
            Goal("tcp, idle", "p99", "zloom buffered", "JetStream", 1.0),
            Goal("tcp, idle", "p99", "zloom fsync", "JetStream always", 1.0),
            Goal("tcp, idle", "p99", "zloom buffered", "Redis"),
        ]
    )
)
"""While the training waits."""

BUSY_GOALS = tuple(
    with_skeletons(
        [
            Goal("tcp, torch", "p99", "zloom buffered", "NATS", 0.5),
            Goal("tcp, torch", "p99", "zloom fsync", "NATS"),
            Goal("tcp, torch", "p99", "zloom fsync", "JetStream always"),
            Goal("tcp, torch", "p99", "zloom buffered", "Redis"),
        ]
    )
)
"""While it trains a small model of PyTorch: against the same weavelet written on nats-py in a thread."""

Samples = dict[tuple[Transport, Load, Contender], list[list[int]]]
"""Nanoseconds of each round trip of each round."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How much to measure.

    Attributes:
        rounds: How often it is each contender's turn.
        warm_up: Before each turn; not counted.
        turns: What a turn is, by what the training does meanwhile.
    """

    rounds: int
    warm_up: Plan
    turns: dict[Load, Plan]


def full(rounds: int) -> Schedule:
    """Return the schedule of a whole run: with 5 rounds, samples for a p99.9 while idle, in six minutes."""
    turns: dict[Load, Plan] = {
        "idle": Plan(300, 1.2),
        "busy": Plan(100, 1.8, BUSY_APART),
        "torch": Plan(200, 3.0, BUSY_APART),
    }
    return Schedule(rounds, Plan(20, 0.2), turns)


def quick(rounds: int) -> Schedule:
    """Return a schedule that only shows that everything works."""
    busy = Plan(5, 0.3, BUSY_APART)
    return Schedule(rounds, Plan(2, 0.1), {"idle": Plan(20, 0.3), "busy": busy, "torch": busy})


def loads(bench: str) -> tuple[Load, ...]:
    """Return what the training does in a bench, `latency` or `busy`, as far as it can here."""
    if bench == "latency":
        return ("idle",)
    return ("busy", "torch") if training.has_torch() else ("busy",)


def absent(bench: str) -> list[Absence]:
    """Return whom and what this machine lacks."""
    why = nats_server.missing()
    found = [Absence(bench, "NATS, JetStream", why)] if why else []
    if why := redis_server.missing():
        found.append(Absence(bench, "Redis", why))
    if bench == "busy" and not training.has_torch():
        found.append(Absence(bench, "a training with PyTorch", "no torch found: pip install torch"))
    if not histograms.available():
        found.append(Absence(bench, "histograms", "no hdrh found: pip install hdrhistogram"))
    return found


def present(transport: Transport, wanted: Sequence[Contender] = CONTENDERS) -> list[Contender]:
    """Return who of those wanted can be measured over a transport, in the order of their turns."""
    lacking = {
        *(NATS if nats_server.missing() else ()),
        *(REDIS if redis_server.missing() else ()),
    }
    return [each for each in wanted if each not in lacking and contenders.reaches(each, transport)]


async def measure(
    loads: Mapping[Transport, Sequence[Load]],
    wanted: Sequence[Contender],
    schedule: Schedule,
    folder: Path,
    say: Callable[[str], object],
) -> Samples:
    """Measure contenders in turns.

    Args:
        loads: What the training does meanwhile, by the transports over which to measure.
        wanted: Who, as far as they are here.
        schedule: How much.
        folder: For the journals.
        say: Takes a line on how far it is.
    """
    samples: Samples = defaultdict(list)
    for transport, here in loads.items():
        async with AsyncExitStack() as stack:
            # All of them live as long as the transport is measured; who has no turn waits, and costs nothing.
            benches = {
                contender: await stack.enter_async_context(contenders.start(contender, transport, folder))
                for contender in present(transport, wanted)
            }
            for number in range(schedule.rounds):
                say(f"{transport}, {' and '.join(here)}: round {number + 1} of {schedule.rounds}")
                for load in here:
                    for contender, bench in benches.items():
                        samples[transport, load, contender].append(
                            await _turn(bench, load, schedule.warm_up, schedule.turns[load])
                        )
    return samples


async def _turn(bench: Bench, load: Load, warm_up: Plan, plan: Plan) -> list[int]:
    await bench.measure(warm_up)
    if load == "idle":
        return await bench.measure(plan)
    await bench.train(load)
    durations = await bench.measure(plan)
    await bench.train("idle")
    return durations


def summarized(samples: Samples) -> list[RoundTrip]:
    """Return the percentiles of each round, and of all rounds together."""
    found = []
    for key, rounds in samples.items():
        together = [one for each in rounds for one in each]
        found.append(
            RoundTrip(
                *key, [summarize(each) for each in rounds], summarize(together), histograms.encode(together)
            )
        )
    return found


def figures(bench: str, round_trips: Sequence[RoundTrip]) -> list[Figure]:
    """Return the medians and the 99th percentiles of the rounds, as goals are set for them."""
    return [
        figure
        for each in round_trips
        for figure in of_percentiles(bench, f"{each.transport}, {each.load}", each.contender, each.rounds)
    ]


def compared(round_trips: Sequence[RoundTrip]) -> list[Ratio]:
    """Return zloom's medians as multiples of the peers', round by round, under the same conditions.

    A busy training over inproc is left out: which of the threads of the one interpreter runs next is up to
    chance, and the medians of two rounds differ tenfold.
    """
    medians = {
        (each.transport, each.load, each.contender): [one.p50 for one in each.rounds]
        for each in round_trips
        if each.transport != "inproc" or each.load == "idle"
    }
    return [
        Ratio(transport, load, ours, peer, ratio(rounds, medians[transport, load, peer]))
        for (transport, load, ours), rounds in medians.items()
        if ours in OURS
        for peer in PEERS
        if (transport, load, peer) in medians
    ]
