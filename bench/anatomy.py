"""Where the time of one acknowledged change goes, and what it must take at least."""

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import anatomy_bounds, roles, stamps
from bench.anatomy_part import NO_STAMPS
from bench.anatomy_points import BY_PART
from bench.anatomy_way import GROUPS, UNTIL, all_legs, of_group
from bench.collected import Collected
from bench.extent import Extent
from bench.goals import Goal
from bench.results import Absence
from bench.roles import Conversation
from zloom_broker.settings import Durability

NAME = "anatomy"
DURABILITIES: tuple[Durability, ...] = ("buffered", "fsync")
"""The cases of what was measured of whole changes."""

WHOLE, GROUP, LEFT_OUT = "the whole change", "a group", "changes left out"
STAMPED, PLAIN = "with stamps", "without stamps"
NEEDED = "at least"
"""The case of what must be there in any change."""

HOP, OVER, BACK, COMMIT = (
    "hop between two processes",
    "hand-over to a thread that sleeps",
    "hand-back to a loop that sleeps",
    "commit to SQLite",
)

TURNS, QUICK_TURNS = 5, 1
"""Turns of each in a round: many short ones, because the machine's moods take more than the stamps."""

TURN = 20
"""Changes of a turn."""

WARM_UP = 5
"""Changes before each turn, not counted."""

HOPS, QUICK_HOPS = 1000, 100
OTHERS, QUICK_OTHERS = 200, 20
"""Hand-overs, hand-backs and commits of each kind in a round."""

GOALS: tuple[Goal, ...] = ()
"""None of its own: it says which of those of the latency can be met."""

Change = tuple[int, int]
"""When it was called, and when it had returned: nanoseconds on the monotonic clock."""


@dataclass(frozen=True, slots=True)
class _Trio:
    """An operator, a broker and a trainer, each in a process of its own.

    Attributes:
        operator: Makes so many changes when asked for a number.
        stamps: The files that they leave at their ends; none without stamps.
        rounds: The changes of each.
    """

    operator: Conversation
    stamps: list[Path]
    rounds: list[list[Change]]

    def turn(self) -> None:
        """Make changes of the newest round, one after the other, the training idle."""
        self.operator.ask(str(WARM_UP))
        self.rounds[-1] += [(called, back) for called, back in json.loads(self.operator.ask(str(TURN)))]


def measure(extent: Extent, collected: Collected) -> None:
    """Make changes with stamps and without, in turns, and measure what they are made of.

    Raises:
        AttributeError: A function that is to be stamped is not there.
        WayChanged: A change takes another way than the one that is described.
    """
    for points in BY_PART.values():
        stamps.check(points)
    with contextlib.ExitStack() as stack:
        hops = stack.enter_context(anatomy_bounds.hops())
        trios = {
            (durability, kind): stack.enter_context(_trio(extent.folder, durability, kind == STAMPED))
            for durability in DURABILITIES
            for kind in (PLAIN, STAMPED)
        }
        for number in range(extent.rounds):
            extent.say(f"{NAME}: round {number + 1} of {extent.rounds}")
            _round(list(trios.values()), QUICK_TURNS if extent.quick else TURNS)
            _needed(hops, extent, collected)
    for (durability, kind), trio in trios.items():  # now that the parts have left their stamps
        _wholes(durability, kind, trio, collected)
        if kind == STAMPED:
            _legs(durability, trio, collected)


def absent() -> list[Absence]:
    """Return what this machine lacks: nothing."""
    return []


def _round(trios: list[_Trio], turns: int) -> None:
    for trio in trios:
        trio.rounds.append([])
    for _ in range(turns):
        for trio in trios:
            trio.turn()


def _needed(hops: Callable[[int], list[int]], extent: Extent, collected: Collected) -> None:
    count = QUICK_OTHERS if extent.quick else OTHERS
    _add(collected, NEEDED, HOP, "pyzmq", hops(QUICK_HOPS if extent.quick else HOPS))
    _add(collected, NEEDED, OVER, "threading.Condition", anatomy_bounds.hand_overs(count))
    _add(collected, NEEDED, BACK, "asyncio", anatomy_bounds.hand_backs(count))
    for durability in DURABILITIES:
        durations = anatomy_bounds.commits(extent.folder, durability, count)
        _add(collected, NEEDED, COMMIT, durability, durations)


def _wholes(durability: Durability, kind: str, trio: _Trio, collected: Collected) -> None:
    for changes in trio.rounds:
        _add(collected, durability, WHOLE, kind, [back - called for called, back in changes])


def _legs(durability: Durability, trio: _Trio, collected: Collected) -> None:
    taken = stamps.load(trio.stamps)
    for changes in trio.rounds:
        found = all_legs(taken, changes)
        for (until, group), durations in zip(UNTIL, zip(*found, strict=True), strict=True):
            _add(collected, durability, until, group, list(durations))
        for group in GROUPS:
            _add(collected, durability, GROUP, group, [of_group(each, group) for each in found])
        collected.add(durability, LEFT_OUT, "", STAMPED, len(changes) - len(found))


def _add(collected: Collected, case: str, what: str, contender: str, nanoseconds: list[int]) -> None:
    collected.add(case, what, "µs", contender, median(nanoseconds) / 1000)


@contextlib.contextmanager
def _trio(folder: Path, durability: Durability, stamped: bool) -> Iterator[_Trio]:
    home = folder / secrets.token_hex(4)
    home.mkdir()
    files = {part: home / f"{part}.json" for part in BY_PART} if stamped else {}

    def part(name: str, *arguments: str) -> tuple[str, ...]:
        return ("bench.anatomy_part", name, str(files.get(name, NO_STAMPS)), *arguments)

    options = ["--bind", "tcp://127.0.0.1:*", "--no-auth", "--log-level", "error"]
    journal = ["--data-dir", str(home / "journal"), "--durability", durability]
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(roles.process(*part("broker", *options, *journal)))
        trainer = stack.enter_context(roles.conversation(*part("trainer", broker)))
        operator = stack.enter_context(roles.conversation(*part("operator", broker)))
        yield _Trio(operator, list(files.values()), [])
        operator.ask("")
        trainer.listen()
