"""The way of one acknowledged change through three processes, leg by leg. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from bench.stamps import Stamps

BETWEEN = "between processes"
PYTHON = "Python on the loops"
JOURNAL = "journal"
TRAINING = "training thread"
GROUPS = (BETWEEN, PYTHON, JOURNAL, TRAINING)

RETURNED = "`set()` returns"


class WayChanged(Exception):
    """Too few changes took the way that is described here: zloom does something else by now."""


@dataclass(frozen=True, slots=True)
class Leg:
    """From the end of the leg before, or from the call, to a stamp.

    Attributes:
        until: What has happened at its end.
        group: What takes the time.
        point: Whose first stamp after the leg before is its end.
    """

    until: str
    group: str
    point: str


WAY = (
    Leg("the request is handed to libzmq", PYTHON, "operator sends"),
    Leg("the broker's loop has read it", BETWEEN, "broker reads"),
    Leg("it is checked, and handed to the journal", PYTHON, "broker submits"),
    Leg("the journal's thread begins to commit", JOURNAL, "commit begins"),
    Leg("it has committed", JOURNAL, "commit ends"),
    Leg("the broker's loop knows", JOURNAL, "broker is told of the commit"),
    Leg("the revision is handed to libzmq", PYTHON, "broker publishes"),
    Leg("the weavelet's loop has read it", BETWEEN, "weavelet reads"),
    Leg("it is in the mailbox", PYTHON, "weavelet hands over"),
    Leg("the handler is called", TRAINING, "handler begins"),
    Leg("its outcome is known", TRAINING, "training thread answers"),
    Leg("the weavelet's loop has it", TRAINING, "weavelet is told"),
    Leg("the outcome is handed to libzmq", PYTHON, "weavelet sends"),
    Leg("the broker's loop has read the outcome", BETWEEN, "broker reads"),
    Leg("the outcome is handed to the journal", PYTHON, "broker submits"),
    Leg("the journal's thread begins to commit the outcome", JOURNAL, "commit begins"),
    Leg("it has committed the outcome", JOURNAL, "commit ends"),
    Leg("the broker's loop knows of that", JOURNAL, "broker is told of the commit"),
    Leg("the answer is handed to libzmq", PYTHON, "broker answers"),
    Leg("the operator's loop has read it", BETWEEN, "operator reads"),
)
"""All legs but the last, which ends when `set()` returns and is Python on the operator's loop."""

UNTIL = (*((leg.until, leg.group) for leg in WAY), (RETURNED, PYTHON))
"""The ends of all legs, and their groups."""

UNDISTURBED = {"broker reads": 2, "broker submits": 2, "weavelet reads": 1, "operator reads": 2}
"""How often each of these comes in a change that nothing else fell into, such as a beat or a ping. The
operator reads that its change was accepted, which is not on the way, and what became of it."""


def legs(stamps: Stamps, called: int, returned: int) -> list[int] | None:
    """Return the nanoseconds of each leg of one change, as `UNTIL` names them; they add up to the whole.

    Args:
        stamps: Of all three processes.
        called: When `set()` was called, on the same clock.
        returned: When it had returned.

    Returns:
        None for a change into which something else fell.
    """
    for point, count in UNDISTURBED.items():
        times = stamps[point]
        if bisect_right(times, returned) - bisect_left(times, called) != count:
            return None
    found, before = [], called
    for leg in WAY:
        times = stamps[leg.point]
        first = bisect_left(times, before)
        if first == len(times) or times[first] > returned:
            return None
        found.append(times[first] - before)
        before = times[first]
    return [*found, returned - before]


def all_legs(stamps: Stamps, changes: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the legs of each change that nothing else fell into.

    Args:
        stamps: See `legs`.
        changes: When each was called, and when it had returned.

    Raises:
        WayChanged: Those are fewer than half.
    """
    found = [each for called, returned in changes if (each := legs(stamps, called, returned)) is not None]
    if 2 * len(found) < len(changes):
        raise WayChanged(
            f"{len(found)} of {len(changes)} changes took the way that bench/anatomy_way.py describes; "
            "describe there which way they take now"
        )
    return found


def of_group(each: Sequence[int], group: str) -> int:
    """Return what the legs of a group take together, in one change."""
    return sum(duration for duration, (_, its) in zip(each, UNTIL, strict=True) if its == group)
