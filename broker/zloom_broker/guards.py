"""Guards of revisions: armed when one is accepted, until they fire, their steps pass, or they are moot.

A guard fires at most once: the revision that restores the values and the end of the guard are one write.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Literal

from zloom.errors import Refused
from zloom.messages import Status
from zloom.model import Event, GuardEnd, Outcome, Revision
from zloom.words import counted
from zloom_broker import guard_grammar
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.guard_conditions import Guard, measured, metrics
from zloom_broker.guard_ends import is_over, moot, touches
from zloom_broker.guard_watch import RecentPoints, Watch, baseline
from zloom_broker.hub import Hub
from zloom_broker.ledger import Ledger
from zloom_broker.outcomes import Outcomes
from zloom_broker.records import AnyRecord, GuardEnded, GuardMeasured

RECHECK = 1.0
"""Seconds between two looks at what is armed: have its steps passed, can what was refused be made now?"""

Kind = Literal["guard_reverted", "guard_passed", "guard_disarmed", "guard_failed"]
_EVENTS: dict[str, Kind] = {
    "reverted": "guard_reverted",
    "passed": "guard_passed",
    "disarmed": "guard_disarmed",
}

Done = Callable[[GuardEnd | None], None]
"""Told how a guard ended once that is on disk; None when it could not be written."""

Revert = Callable[[Attempt, Ledger, str, Done, float], bool]
"""Makes the revision that restores what a guarded one changed, given why; False if it must wait."""


@dataclass(slots=True)
class _Armed:
    """A guard of an attempt."""

    ledger: Ledger
    guard: Guard
    watches: dict[str, Watch]
    """By target of the revision."""
    taken_over: bool = False
    """From an earlier life of the broker: points that it looked at are not known."""
    fired: str = ""
    """Why it fires; empty before."""
    ending: bool = False
    """Its end is being written."""
    trouble: str = ""
    """What was told of it that keeps it from working."""


class Guards:
    """Holds what replicas report against the guards; not thread-safe."""

    def __init__(self, hub: Hub, outcomes: Outcomes, now: float) -> None:
        self._hub = hub
        self._armed: dict[AttemptKey, list[_Armed]] = {}
        self._reverts: dict[tuple[AttemptKey, int], int] = {}
        """The guarded revision of each that is to restore what was before it."""
        self._recheck = now
        self._revert: Revert = lambda *_: False
        outcomes.observe(self._answered)
        outcomes.accompany(self._applied)
        for attempt in hub.state.attempts.values():
            for number in sorted(attempt.noted):
                ledger = attempt.ledgers[number]
                self._arm(attempt, ledger, taken_over=True)
                end = ledger.guard_end
                if end is not None and end.revision in attempt.open:
                    self._reverts[attempt.key, end.revision] = ledger.revision.revision

    def revert_by(self, revert: Revert) -> None:
        """Take what makes a revision."""
        self._revert = revert

    # --- a guarded revision -------------------------------------------------------------------

    def check(self, attempt: Attempt, text: str) -> None:
        """Refuse what is no guard, or names a metric that no replica has reported while others were."""
        present = [replica.id for replica in attempt.present() if replica.id in self._hub.vitals]
        guard_grammar.check(text, {name for each in present for name in self._hub.vitals[each].metrics})

    def beside(self, run: str, attempt: str, revision: Revision, targets: list[str]) -> list[AnyRecord]:
        """Return what is to be written with a revision: what its metrics are now, if nothing newer comes."""
        if not revision.revert_if:
            return []
        names = measured(guard_grammar.parse(revision.revert_if).condition)
        baselines = {target: self._now(target, names) for target in targets}
        return _measured(run, attempt, revision.revision, baselines)

    def _now(self, replica: str, names: set[str]) -> dict[str, float]:
        recent = self._recent(replica)
        found = {name: baseline(recent.of(name)) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def _applied(self, attempt: Attempt, outcomes: Mapping[int, Outcome]) -> list[AnyRecord]:
        """Return what is to be written with outcomes: what the metrics were before guarded revisions."""
        if attempt.key not in self._armed:  # as a rule, and asked at each outcome
            return []
        records: list[AnyRecord] = []
        for armed in self._of(attempt):
            outcome = outcomes.get(armed.ledger.revision.revision)
            watch = armed.watches.get(outcome.replica) if outcome is not None else None
            if outcome is None or watch is None or outcome.outcome != "applied" or outcome.step is None:
                continue
            names = measured(armed.guard.condition)
            baselines = {
                name: value for name, value in watch.baselines(outcome.step).items() if name in names
            }
            number = armed.ledger.revision.revision
            records += _measured(attempt.run, attempt.id, number, {outcome.replica: baselines})
        return records

    def accepted(self, attempt: Attempt, ledger: Ledger, now: float) -> None:
        """A revision is on disk: arm its guard, and end those of what it changes or cancels."""
        revision = ledger.revision
        for armed in self._of(attempt):
            guarded = armed.ledger.revision
            if touches(revision, guarded):
                keys = [key for key in guarded.changes if key in revision.changes]
                verb = "restores" if revision.restores else "changes"
                what = f"{verb} {', '.join(keys)}" if keys else "cancels it"
                by = f"revision {revision.revision} by {revision.by or 'nobody'}"
                self._end(attempt, armed, "disarmed", f"{by} {what}", now)
        self._arm(attempt, ledger)

    def _arm(self, attempt: Attempt, ledger: Ledger, *, taken_over: bool = False) -> None:
        if ledger.armed:
            guard = guard_grammar.parse(ledger.revision.revert_if)
            watches = {target: Watch(guard, self._recent(target)) for target in ledger.targets}
            self._armed.setdefault(attempt.key, []).append(_Armed(ledger, guard, watches, taken_over))

    def _recent(self, replica: str) -> RecentPoints:
        vitals = self._hub.vitals.get(replica)
        return RecentPoints() if vitals is None else vitals.recent

    def _of(self, attempt: Attempt) -> Iterator[_Armed]:
        """Yield the guards of an attempt; those of one that was forgotten are not of its namesake."""
        for armed in list(self._armed.get(attempt.key, ())):
            if attempt.ledger(armed.ledger.revision.revision) is armed.ledger:
                yield armed
            else:
                self._remove(attempt, armed)

    def _remove(self, attempt: Attempt, armed: _Armed) -> None:
        self._armed[attempt.key].remove(armed)
        if not self._armed[attempt.key]:
            del self._armed[attempt.key]

    # --- what is reported ---------------------------------------------------------------------

    def status(self, attempt: Attempt, replica: str, status: Status, now: float) -> None:
        """A replica reported."""
        if attempt.key not in self._armed:  # as a rule, and asked at each status
            return
        for armed in self._of(attempt):
            watch = armed.watches.get(replica)
            if watch is None or armed.ending:
                continue
            watch.take(status.metrics)
            self._begin(attempt, armed, watch, replica, status.step, now)
            # While not all ranks are known to have it there is nothing that all could go back to.
            if not armed.fired and not armed.ledger.scheduled:
                awaited = status.step if status.awaited is None else status.awaited
                found = watch.look(awaited, armed.ledger.baselines.get(replica, {}))
                armed.fired = f"{found} on rank {attempt.rank(replica)}" if found else ""
                self._fire(attempt, armed, now)

    def _begin(
        self, attempt: Attempt, armed: _Armed, watch: Watch, replica: str, reached: int, now: float
    ) -> None:
        outcome = armed.ledger.outcomes.get(replica)
        if not watch.begun and outcome is not None and outcome.outcome == "applied":
            watch.begin(reached if outcome.step is None else outcome.step)
            if watch.dropped is not None:
                text = (
                    f"too many points of rank {attempt.rank(replica)} came before its outcome was on disk: "
                    f"those up to step {watch.dropped} are not judged"
                )
                self._trouble(attempt, armed, text, now)

    def _fire(self, attempt: Attempt, armed: _Armed, now: float) -> None:
        """Take the revision back where it is still in force; what stands against that is told once."""
        if not armed.fired or armed.ending or moot(attempt, armed.ledger):
            return
        try:
            armed.ending = self._revert(
                attempt, armed.ledger, armed.fired, partial(self._reverted, attempt, armed), now
            )
        except Refused as refused:
            self._trouble(attempt, armed, f"{armed.fired}, but it cannot be reverted: {refused.text}", now)

    def _reverted(self, attempt: Attempt, armed: _Armed, end: GuardEnd | None) -> None:
        self._ended(attempt, armed, end, self._hub.now)
        if end is not None:
            self._reverts[attempt.key, end.revision] = armed.ledger.revision.revision

    def _answered(self, attempt: Attempt, ledger: Ledger, now: float) -> None:
        """A revision has a new outcome: one that was to restore values may have failed."""
        number = ledger.revision.revision
        guarded = self._reverts.get((attempt.key, number))
        if guarded is None or not ledger.settled:
            return
        del self._reverts[attempt.key, number]
        if ledger.void:
            errors = "; ".join({f"{each.outcome}: {each.error}" for each in attempt.outcomes(ledger)})
            self._tell(attempt, "guard_failed", f"revision {number} did not revert {guarded}: {errors}", now)

    # --- time ---------------------------------------------------------------------------------

    def next_timer(self) -> float:
        """Return when `on_timer` has something to do, or infinity."""
        return self._recheck if self._armed else inf

    def on_timer(self, now: float) -> None:
        """Do what is due."""
        if now < self._recheck or self._hub.settings.read_only:
            return
        self._recheck = now + RECHECK
        for key in list(self._armed):
            attempt = self._hub.state.attempts.get(key)
            if attempt is None:
                del self._armed[key]
                continue
            for armed in self._of(attempt):
                self._consider(attempt, armed, now)

    def _consider(self, attempt: Attempt, armed: _Armed, now: float) -> None:
        ledger, watches = armed.ledger, armed.watches
        why = moot(attempt, ledger)
        if why:
            self._end(attempt, armed, "disarmed", why, now)
        elif armed.fired:
            self._fire(attempt, armed, now)
        elif ledger.settled and all(
            is_over(attempt, ledger, target, watches[target]) for target in ledger.targets
        ):
            kind, text = _outcome(armed)
            self._end(attempt, armed, kind, text, now)
        elif ledger.settled:
            self._look_for_baselines(attempt, armed, now)

    def _look_for_baselines(self, attempt: Attempt, armed: _Armed, now: float) -> None:
        known = {name for baselines in armed.ledger.baselines.values() for name in baselines}
        missing = sorted(measured(armed.guard.condition) - known)
        if missing:
            text = f"{', '.join(missing)} was not reported before it, so there is no baseline to compare with"
            self._trouble(attempt, armed, text, now)

    # --- the end ------------------------------------------------------------------------------

    def _end(
        self,
        attempt: Attempt,
        armed: _Armed,
        kind: Literal["passed", "disarmed"],
        text: str,
        now: float,
    ) -> None:
        if armed.ending or attempt.key in self._hub.forgetting:
            return
        armed.ending = True
        end = GuardEnd(kind, text, self._hub.wall(now))
        record = GuardEnded(
            run=attempt.run, attempt=attempt.id, revision=armed.ledger.revision.revision, end=end
        )
        self._hub.commit(
            record,
            then=lambda: self._ended(attempt, armed, end, self._hub.now),
            failed=lambda _: self._ended(attempt, armed, None, self._hub.now),
        )

    def _ended(self, attempt: Attempt, armed: _Armed, end: GuardEnd | None, now: float) -> None:
        armed.ending = False
        if end is not None:
            self._remove(attempt, armed)
            by = f" by revision {end.revision}" if end.revision else ""
            text = f"revision {armed.ledger.revision.revision}{by}: {end.text}"
            self._tell(attempt, _EVENTS[end.kind], text, now)

    def _trouble(self, attempt: Attempt, armed: _Armed, text: str, now: float) -> None:
        if armed.trouble != text:
            armed.trouble = text
            self._tell(attempt, "guard_failed", f"revision {armed.ledger.revision.revision}: {text}", now)

    def _tell(self, attempt: Attempt, kind: Kind, text: str, now: float) -> None:
        self._hub.event(Event(kind, attempt.run, attempt.id, text=text), now)


def _outcome(armed: _Armed) -> tuple[Literal["passed", "disarmed"], str]:
    """Return how a guard ends whose steps are over at all replicas, and why."""
    steps = counted(armed.guard.within, "step")
    past = [watch for watch in armed.watches.values() if watch.past]
    if not past:
        return "disarmed", f"no replica is left of those that had {steps} to go"
    unseen = set.intersection(*(watch.unseen for watch in past))
    if not unseen:
        return "passed", f"{steps} passed"
    those = "it" if armed.guard.within == 1 else "them"
    since = " since the broker was restarted" if armed.taken_over else ""
    none = f"no point of {' or '.join(sorted(unseen))} was reported for {those}{since}"
    judged = metrics(armed.guard.condition) > unseen
    return ("passed" if judged else "disarmed"), f"{steps} passed, and {none}"


def _measured(
    run: str, attempt: str, revision: int, baselines: Mapping[str, dict[str, float]]
) -> list[AnyRecord]:
    known = {replica: each for replica, each in baselines.items() if each}
    return [GuardMeasured(run=run, attempt=attempt, revision=revision, baselines=known)] if known else []
