"""Which ranks make the others of their attempt wait.

Two signs. A rank that is hardly ever seen in a collective while most others often are is what they wait for:
that holds in lockstep too, where all ranks are at the same step. And a rank that is steps and seconds behind
the furthest one holds those up that must meet it.
"""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Literal

from msgspec import Struct

from zloom.model import Event
from zloom.words import named
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.hub import Hub

WAITING = 0.5
"""Share of looks from which on a rank counts as one that waits …"""

WORKING = 0.1
"""… and up to which it counts as one that does not."""

LAG_STEPS = 2
"""Steps behind: one may be the moment at which it was asked …"""

LAG_BEATS = 3.0
"""… and so may what a rank does between two statuses, of which one comes each beat."""

PERSISTENCE = 5.0
"""Seconds that a sign must last: a slow batch is not worth a word."""


class Pace(Struct, frozen=True):
    """How one training rank gets on.

    Attributes:
        replica: Its id.
        rank: Its rank.
        step: As it said last.
        step_time: Median seconds a step; None when it is not known.
        waiting: Share of the newest looks that saw it in a collective; None when it is not known.
    """

    replica: str
    rank: int
    step: int
    step_time: float | None = None
    waiting: float | None = None


def find(paces: Sequence[Pace], beat: float = 1.0) -> dict[str, str]:
    """Return why which replicas make the others wait, by id; `beat` is in seconds."""
    return {**_behind(paces, LAG_BEATS * beat), **_awaited(paces)}


def _awaited(paces: Sequence[Pace]) -> dict[str, str]:
    known = [(pace, pace.waiting) for pace in paces if pace.waiting is not None]
    waiting = [pace.rank for pace, share in known if share >= WAITING]
    if 2 * len(waiting) < len(paces) or not waiting:
        return {}
    who = f"{named(waiting)} wait{'s' if len(waiting) == 1 else ''} in collectives, and it does not"
    return {pace.replica: who for pace, share in known if share <= WORKING}


def _behind(paces: Sequence[Pace], lag: float) -> dict[str, str]:
    steps_made = [pace.step for pace in paces]
    if not paces or max(steps_made) - min(steps_made) < LAG_STEPS:  # as a rule, and asked at each beat
        return {}
    times = [pace.step_time for pace in paces if pace.step_time]
    if not times:
        return {}
    furthest, step_time = max(paces, key=lambda pace: pace.step), median(times)
    found = {}
    for pace in paces:
        steps = furthest.step - pace.step
        if steps >= LAG_STEPS and steps * step_time >= lag:
            found[pace.replica] = f"it is {steps} steps behind rank {furthest.rank}"
    # When most are behind, the one in front is the odd one.
    return found if 2 * len(found) <= len(paces) else {}


class Stragglers:
    """Looks at all attempts once a beat, and tells when a rank begins or ceases to be one."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._since: dict[str, float] = {}

    def look(self, now: float) -> None:
        """See who makes others wait now."""
        seen: dict[str, str] = {}
        for key in self._hub.weavelets.attempts():
            seen |= find(list(self._paces(key, now)), self._hub.beat)
        self._since = {replica: self._since.get(replica, now) for replica in seen}
        lasting = {name: why for name, why in seen.items() if now - self._since[name] >= PERSISTENCE}
        before, self._hub.straggling = self._hub.straggling, lasting
        for replica in lasting.keys() - before.keys():
            self._tell("straggler", replica, f"makes the others wait: {lasting[replica]}", now)
        for replica in before.keys() - lasting.keys():
            self._tell("caught_up", replica, "no longer makes the others wait", now)

    def _paces(self, key: AttemptKey, now: float) -> Iterator[Pace]:
        attempt = self._hub.state.attempts.get(key)
        for replica in attempt.present() if attempt is not None else ():
            vitals = self._hub.vitals.get(replica.id)
            status = vitals.status if vitals is not None else None
            if vitals is None or status is None or status.phase != "training":
                continue
            waits = status.paused or status.holding
            if not waits or vitals.state(now, self._hub.beat) == "unresponsive":
                yield Pace(replica.id, replica.rank, status.step, status.step_time, vitals.waiting)

    def _tell(self, kind: Literal["straggler", "caught_up"], replica: str, text: str, now: float) -> None:
        attempt = self._attempt_of(replica)
        if attempt is not None:
            said = f"rank {attempt.replicas[replica].rank} {text}"
            self._hub.event(Event(kind, attempt.run, attempt.id, 0.0, said, [replica]), now)

    def _attempt_of(self, replica: str) -> Attempt | None:
        home = self._hub.state.homes.get(replica)
        return None if home is None else self._hub.state.attempts.get(home)
