"""How far replicas had come, as their outcomes show where no status tells it, or none since them. Pure."""

from typing import NamedTuple

from zloom.model import Outcome
from zloom_broker.ledgers import Ledgers

LOOK_BACK = 100
"""Revisions that are looked at, at most …"""

OUTCOMES = 10_000
"""… and outcomes, about: to unpack so many takes some 20 ms, in which the broker does nothing else."""


class Trace(NamedTuple):
    """What is known of a replica without its status: at least so far it was."""

    step: int | None = None
    """Of its newest outcome that names one."""
    revision: int | None = None
    """The newest that it answered."""


NOTHING = Trace()


class Traces:
    """What the newest outcomes of an attempt tell of each replica.

    History is looked through once for all replicas, when the first of them is asked for, as when it leaves:
    after a restart operators ask for all of them, or all of them are lost.
    """

    def __init__(self, ledgers: Ledgers) -> None:
        self._ledgers = ledgers
        self._found: dict[str, Trace] | None = None

    def of(self, replica: str) -> Trace:
        """Return what is known of a replica; what the broker itself concluded does not count."""
        if self._found is None:
            self._found = {}
            self._look_back()
        return self._found.get(replica, NOTHING)

    def note(self, revision: int, outcome: Outcome) -> None:
        """Take in what became of a revision at one replica."""
        if self._found is None or outcome.outcome in ("lost", "not_reached"):
            return
        step, newest = self._found.get(outcome.replica, NOTHING)
        if newest is None or revision >= newest:
            self._found[outcome.replica] = Trace(step if outcome.step is None else outcome.step, revision)
        elif step is None:
            self._found[outcome.replica] = Trace(outcome.step, newest)

    def _look_back(self) -> None:
        newest, seen = len(self._ledgers), 0
        for number in range(newest, max(0, newest - LOOK_BACK), -1):
            outcomes = self._ledgers[number].outcomes
            for outcome in outcomes.values():
                self.note(number, outcome)
            seen += len(outcomes)
            if seen >= OUTCOMES:
                return
