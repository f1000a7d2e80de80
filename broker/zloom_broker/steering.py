"""Which revision of an attempt its ranks are asked about next, and when there is no use in asking.

The same step on every rank: `docs/consistency.md` states it. A round itself is `zloom_broker.rounds`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from zloom.messages import Confirm, Promise
from zloom.model import Outcome, OutcomeKind
from zloom.words import named
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.conclusions import Conclusions
from zloom_broker.hub import Hub, Peer
from zloom_broker.ledger import Ledger
from zloom_broker.liveness import FASTEST_STEP
from zloom_broker.outcomes import Outcomes
from zloom_broker.records import OutcomesRecorded
from zloom_broker.rounds import NOWHERE, Reached, Rounds

LEAD = 0.05
"""Seconds that the step of a first round lies ahead: a promise and a decision with its fsync take some
milliseconds each. It doubles with each round, since then it was too short."""

MAX_ROUNDS = 6
"""Rounds until a revision is given up: the lead has grown to 1.6 s by then."""

PATIENCE = 10.0
"""Seconds that a revision waits for ranks that are there but have not caught up yet, after a restart of the
broker for one."""

RECHECK = 0.25
"""Seconds between two looks at revisions that wait for ranks, or for their step."""

EARLY = 5.0
"""Seconds before a step at which the ranks are asked about a revision that was scheduled for it."""

Mark = tuple[AttemptKey, int]
"""A revision of an attempt."""


@dataclass(slots=True)
class _Waiting:
    """What is known of an undecided revision beside its ledger."""

    absent_since: float | None = None
    """Since when a rank cannot answer; None while all can."""
    rounds: int = 0
    reached: Reached = NOWHERE
    """The highest step that a rank told to be at, in a round that failed."""
    pace: float = inf
    """Seconds a step, between the newest two times that one told it. The pace in their statuses is a median
    of half a minute, and none at all in their first second."""
    trouble: str = ""
    """Why the newest round failed."""

    def reach(self, reached: Reached) -> None:
        """A rank told where it is, in a round that failed."""
        before = self.reached
        if reached.step <= before.step:
            return
        if before.step:
            self.pace = max(FASTEST_STEP, (reached.at - before.at) / (reached.step - before.step))
        self.reached = reached


class Steering:
    """Has the undecided revisions of each attempt decided, one after the other; not thread-safe."""

    def __init__(self, hub: Hub, outcomes: Outcomes, now: float) -> None:
        self._hub = hub
        self._outcomes = outcomes
        self._conclusions = Conclusions(hub)
        self._rounds = Rounds(hub, self)
        self._waiting: dict[Mark, _Waiting] = {}
        self._ending: set[Mark] = set()
        """Undecided revisions whose end is being written."""
        self._recheck = now
        outcomes.observe(self._answered)
        for key, attempt in hub.state.attempts.items():
            for ledger in attempt.undecided():
                self._waiting[key, ledger.revision.revision] = _Waiting()

    # --- events -------------------------------------------------------------------------------

    def accepted(self, attempt: Attempt, ledger: Ledger, now: float) -> None:
        """A revision is on disk."""
        if ledger.undecided:
            self._waiting[attempt.key, ledger.revision.revision] = _Waiting()
            self._consider(attempt, now)

    def synced(self, peer: Peer, now: float) -> None:
        """A replica has what it lacked, so it can take part."""
        self._conclusions.synced(peer)
        if any(key == peer.attempt for key, _ in self._waiting):
            self._consider(self._hub.state.attempts[peer.attempt], now)

    def promise(self, peer: Peer, promise: Promise, now: float) -> None:
        """A rank answers a round."""
        self._rounds.promise(peer, promise, now)

    def confirm(self, peer: Peer, message: Confirm, now: float) -> None:
        """A rank has carried an agreed update out."""
        self._conclusions.confirm(peer, message, now)

    def is_agreed(self, attempt: Attempt, number: int) -> bool:
        """Whether the ranks agreed on a revision, or that is being written."""
        ledger = attempt.ledger(number)
        if ledger is None:
            return False
        return ledger.agreed is not None or self._rounds.is_deciding(attempt, ledger)

    # --- time ---------------------------------------------------------------------------------

    def next_timer(self) -> float:
        """Return when `on_timer` has something to do, or infinity."""
        recheck = self._recheck if self._waiting else inf
        return min(self._rounds.next_timer(), recheck, self._conclusions.next_timer())

    def on_timer(self, now: float) -> None:
        """Do what is due."""
        self._conclusions.on_timer(now)
        self._rounds.on_timer(now)
        if now >= self._recheck:
            self._recheck = now + RECHECK
            self._waiting = {mark: each for mark, each in self._waiting.items() if self._is_undecided(mark)}
            for key in {key for key, _ in self._waiting}:
                self._consider(self._hub.state.attempts[key], now)

    def _is_undecided(self, mark: Mark) -> bool:
        attempt = self._hub.state.attempts.get(mark[0])
        ledger = attempt.ledger(mark[1]) if attempt else None
        return ledger is not None and ledger.undecided

    # --- the end without a decision -----------------------------------------------------------

    def withdraw(
        self, attempt: Attempt, numbers: Iterable[int], kind: OutcomeKind, why: str
    ) -> list[OutcomesRecorded]:
        """Take undecided revisions out of the rounds; return the records that end them, to be written.

        `withdrawn` must follow once they are on disk, `not_withdrawn` if they could not be written.
        """
        records = []
        for number in numbers:
            ledger = attempt.ledgers[number]
            self._ending.add((attempt.key, number))
            self._rounds.stop(attempt, ledger, why)
            if ledger.missing:
                records.append(_ended(attempt, ledger, kind, why))
        return records

    def withdrawn(self, attempt: Attempt, numbers: Iterable[int], now: float) -> None:
        """What ends these revisions is on disk."""
        for number in numbers:
            self._forget((attempt.key, number))
            self._outcomes.announce(attempt, number, attempt.ledgers[number].targets, now)
        self._consider(attempt, now)

    def not_withdrawn(self, key: AttemptKey, numbers: Iterable[int]) -> None:
        """The end of these revisions could not be written: they are undecided still."""
        self._ending -= {(key, number) for number in numbers}

    def end(self, attempt: Attempt, number: int, kind: OutcomeKind, why: str, now: float) -> None:
        """End an undecided revision."""
        numbers = [number]
        records = self.withdraw(attempt, numbers, kind, why)
        self._hub.commit(
            *records,
            then=lambda: self.withdrawn(attempt, numbers, self._hub.now),
            failed=lambda _: self.not_withdrawn(attempt.key, numbers),
        )

    def _give_up(self, attempt: Attempt, ledger: Ledger, why: str, now: float) -> None:
        self.end(attempt, ledger.revision.revision, "aborted", why, now)

    def _forget(self, mark: Mark) -> None:
        self._ending.discard(mark)
        self._waiting.pop(mark, None)

    # --- which one is next --------------------------------------------------------------------

    def _consider(self, attempt: Attempt, now: float) -> None:
        """Begin a round of the first revision that can have one."""
        if attempt.key in self._rounds or self._hub.settings.read_only or attempt.is_about_to_pause():
            return
        for ledger in list(attempt.undecided()):
            mark = attempt.key, ledger.revision.revision
            if mark in self._ending:
                continue
            obstacle = self._obstacle(attempt, ledger)
            waiting = self._waiting.setdefault(mark, _Waiting())
            if obstacle:
                self._give_up(attempt, ledger, obstacle, now)
            elif waiting.rounds >= MAX_ROUNDS:
                self._give_up(attempt, ledger, f"{waiting.trouble}, in {MAX_ROUNDS} rounds", now)
            elif not self._is_due(ledger, now):
                continue
            elif not self._is_patient(attempt, ledger, waiting, now):
                self._give_up(attempt, ledger, self._absent(attempt, ledger), now)
            elif waiting.absent_since is None:
                self._begin(attempt, ledger, waiting, now)
                return
            else:
                return

    def _is_patient(self, attempt: Attempt, ledger: Ledger, waiting: _Waiting, now: float) -> bool:
        """Take note whether a rank cannot answer; return whether it may still be waited for."""
        if not self._absent(attempt, ledger):
            waiting.absent_since = None
            return True
        waiting.absent_since = now if waiting.absent_since is None else waiting.absent_since
        return now < waiting.absent_since + PATIENCE

    def _obstacle(self, attempt: Attempt, ledger: Ledger) -> str:
        """Return why there can be no round any more."""
        present = {replica.id for replica in attempt.present()}
        for name in ledger.targets:
            if name not in present:
                left = attempt.left.get(name)
                return f"rank {attempt.rank(name)} left: {left.reason if left else 'it was replaced'}"
        return "the ranks decided against it by themselves" if ledger.outcomes else ""

    def _absent(self, attempt: Attempt, ledger: Ledger) -> str:
        """Name the ranks that cannot answer yet."""
        peers = {name: self._hub.weavelets.get(name) for name in ledger.targets}
        ranks = [attempt.rank(name) for name, peer in peers.items() if peer is None or not peer.synced]
        return f"{named(ranks)} had not caught up after {PATIENCE:g} s" if ranks else ""

    def _is_due(self, ledger: Ledger, now: float) -> bool:
        at_step = ledger.revision.at_step
        if at_step is None or self._rounds.are_paused_at_first(ledger):
            return True
        return self._rounds.step_ahead(ledger, EARLY, now) >= at_step

    def _begin(self, attempt: Attempt, ledger: Ledger, waiting: _Waiting, now: float) -> None:
        lead = LEAD * 2**waiting.rounds
        step = self._rounds.step_ahead(ledger, lead, now, reached=waiting.reached.step, pace=waiting.pace)
        waiting.rounds += 1
        # Not before what it was queued behind, which may have needed more rounds and so a later step.
        step = max(step, ledger.revision.at_step or 0, attempt.step_of_earlier(ledger))
        self._rounds.begin(attempt, ledger, step, now)

    # --- how rounds end -----------------------------------------------------------------------

    def round_decided(self, attempt: Attempt, ledger: Ledger, now: float) -> None:
        """All ranks agreed on a revision."""
        self._forget((attempt.key, ledger.revision.revision))
        self._conclusions.agreed(attempt, ledger, now)
        self._consider(attempt, now)

    def round_refused(self, attempt: Attempt, ledger: Ledger, why: str, now: float) -> None:
        """A rank refuses a revision."""
        self.end(attempt, ledger.revision.revision, "aborted", why, now)

    def round_failed(self, attempt: Attempt, ledger: Ledger, why: str, reached: Reached, now: float) -> None:
        """A round came to nothing; another one follows unless there were too many."""
        waiting = self._waiting.setdefault((attempt.key, ledger.revision.revision), _Waiting())
        waiting.trouble = why
        waiting.reach(reached)
        self._consider(attempt, now)

    def _answered(self, attempt: Attempt, ledger: Ledger, now: float) -> None:
        """A replica's outcome is on disk: it may be the end of a round, or of waiting for one."""
        if ledger.revision.mode != "consistent":
            return
        mark = attempt.key, ledger.revision.revision
        if self._rounds.is_asking(attempt, ledger) and mark not in self._ending:
            self._rounds.fail(attempt, ledger, "a rank left", now)
        elif ledger.settled:
            self._forget(mark)
            self._consider(attempt, now)
        self._conclusions.answered(attempt, ledger, now)


def _ended(attempt: Attempt, ledger: Ledger, kind: OutcomeKind, why: str) -> OutcomesRecorded:
    owing = [name for name in ledger.targets if name not in ledger.outcomes]
    outcomes = [Outcome(name, attempt.rank(name), kind, error=why) for name in owing]
    return OutcomesRecorded(
        run=attempt.run, attempt=attempt.id, outcomes={ledger.revision.revision: outcomes}
    )
