"""The same step on every rank: rounds of prepare, promise and decision. `docs/consistency.md` states them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from math import ceil

from zloom.messages import Confirm, Decision, FromBroker, Prepare, Promise, Status
from zloom.model import Outcome, OutcomeKind
from zloom_broker.attempt import Attempt, Ledger
from zloom_broker.conclusions import Conclusions
from zloom_broker.hub import Hub, Peer
from zloom_broker.outcomes import Outcomes
from zloom_broker.records import OutcomesRecorded, RevisionAgreed
from zloom_broker.state import AttemptKey

LEAD = 0.05
"""Seconds that the step of a first round lies ahead: a promise and a decision with its fsync take some
milliseconds each. It doubles with each round, since then it was too short."""

ANSWER_TIMEOUT = 1.0
"""Seconds that ranks have to promise. They do it between two steps of nothing but their own loop, so one that
takes longer holds the GIL or is gone; and the others hold at their step meanwhile."""

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
class _Round:
    """The round of an attempt that is under way."""

    ledger: Ledger
    number: int
    step: int
    deadline: float
    promises: dict[str, Promise] = field(default_factory=dict)
    deciding: bool = False
    """The decision is being written."""


@dataclass(slots=True)
class _Waiting:
    """What is known of an undecided revision beside its ledger."""

    absent_since: float | None = None
    """Since when a rank cannot answer; None while all can."""
    rounds: int = 0
    reached: int = 0
    """The highest step that a rank told in a round that came too late."""
    trouble: str = ""
    """Why the newest round failed."""


class Steering:
    """Runs at most one round of each attempt at a time; not thread-safe."""

    def __init__(self, hub: Hub, outcomes: Outcomes, now: float) -> None:
        self._hub = hub
        self._outcomes = outcomes
        self._conclusions = Conclusions(hub)
        self._numbers = count(1)
        self._rounds: dict[AttemptKey, _Round] = {}
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
            self._waiting[_key(attempt), ledger.revision.revision] = _Waiting()
            self._consider(attempt, now)

    def synced(self, peer: Peer, now: float) -> None:
        """A replica has what it lacked, so it can take part."""
        if any(key == peer.attempt for key, _ in self._waiting):
            self._consider(self._hub.state.attempts[peer.attempt], now)

    def promise(self, peer: Peer, promise: Promise, now: float) -> None:
        """A rank answers a round."""
        attempt = self._hub.state.attempts[peer.attempt]
        round = self._rounds.get(peer.attempt)
        if round is None or not _is_of(round, promise, self._hub.settings.epoch):
            self._tell_of_past(peer, attempt, promise)
        elif peer.replica in round.ledger.targets and not round.deciding:
            round.promises[peer.replica] = promise
            self._look_at(round, attempt, now)

    def confirm(self, peer: Peer, message: Confirm, now: float) -> None:
        """A rank has carried an agreed update out."""
        self._conclusions.confirm(peer, message, now)

    def is_agreed(self, attempt: Attempt, number: int) -> bool:
        """Whether the ranks agreed on a revision, or that is being written."""
        ledger, round = attempt.ledger(number), self._rounds.get(_key(attempt))
        deciding = round is not None and round.deciding and round.ledger is ledger
        return deciding or (ledger is not None and ledger.agreed is not None)

    # --- time ---------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Return when `on_timer` has something to do, or None."""
        times = [round.deadline for round in self._rounds.values() if not round.deciding]
        times += [self._recheck] if self._waiting else []
        conclusion = self._conclusions.next_timer()
        return min(times if conclusion is None else [*times, conclusion], default=None)

    def on_timer(self, now: float) -> None:
        """Do what is due."""
        self._conclusions.on_timer(now)
        for key, round in list(self._rounds.items()):
            if not round.deciding and now >= round.deadline:
                self._fail(round, self._hub.state.attempts[key], self._silent(round, key), now)
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
            ledger = attempt.ledgers[number - 1]
            self._ending.add((_key(attempt), number))
            round = self._rounds.get(_key(attempt))
            if round is not None and round.ledger is ledger:
                self._stop(round, attempt, why)
            records += _ended(attempt, ledger, kind, why)
        return records

    def withdrawn(self, attempt: Attempt, numbers: Iterable[int], now: float) -> None:
        """What ends these revisions is on disk."""
        for number in numbers:
            self._forget((_key(attempt), number))
            for replica in attempt.ledgers[number - 1].targets:
                self._outcomes.announce(attempt, [number], replica, now)
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
            then=lambda: self.withdrawn(attempt, numbers, now),
            failed=lambda _: self.not_withdrawn(_key(attempt), numbers),
        )

    def _give_up(self, attempt: Attempt, ledger: Ledger, why: str, now: float) -> None:
        self.end(attempt, ledger.revision.revision, "aborted", why, now)

    def _forget(self, mark: Mark) -> None:
        self._ending.discard(mark)
        self._waiting.pop(mark, None)

    # --- rounds -------------------------------------------------------------------------------

    def _consider(self, attempt: Attempt, now: float) -> None:
        """Begin a round of the first revision that can have one."""
        key = _key(attempt)
        if key in self._rounds or self._hub.settings.read_only or attempt.is_about_to_pause():
            return
        for ledger in list(attempt.undecided()):
            mark = key, ledger.revision.revision
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
        return f"{_ranks(ranks)} had not caught up after {PATIENCE:g} s" if ranks else ""

    def _is_due(self, ledger: Ledger, now: float) -> bool:
        at_step = ledger.revision.at_step
        if at_step is None or self._is_paused_at_first(ledger):
            return True
        return self._step_ahead(ledger, EARLY, 0, now) >= at_step

    def _begin(self, attempt: Attempt, ledger: Ledger, waiting: _Waiting, now: float) -> None:
        lead = LEAD * 2**waiting.rounds
        step = max(self._step_ahead(ledger, lead, waiting.reached, now), ledger.revision.at_step or 0)
        waiting.rounds += 1
        number = next(self._numbers)
        self._rounds[_key(attempt)] = _Round(ledger, number, step, now + ANSWER_TIMEOUT)
        epoch = self._hub.settings.epoch
        self._tell(ledger, Prepare(epoch=epoch, round=number, step=step, revision=ledger.revision))

    def _step_ahead(self, ledger: Ledger, seconds: float, reached: int, now: float) -> int:
        """Return a step that no rank will have begun for so long."""
        vitals = [self._hub.vitals[name] for name in ledger.targets if name in self._hub.vitals]
        highest = max([reached, *(each.step_at(now) for each in vitals)])
        paces = self._paces(ledger)
        return highest + 1 + (ceil(seconds / min(paces)) if paces else 1)

    def _is_paused_at_first(self, ledger: Ledger) -> bool:
        """Whether all ranks stand before they have a pace: once they go on, any step may come at once."""
        statuses = self._statuses(ledger)
        stand = [status for status in statuses if status is not None and status.paused]
        return len(stand) == len(ledger.targets) and not self._paces(ledger)

    def _paces(self, ledger: Ledger) -> list[float]:
        """Return the seconds that a step takes, of each rank that has told it."""
        return [status.step_time for status in self._statuses(ledger) if status and status.step_time]

    def _statuses(self, ledger: Ledger) -> list[Status | None]:
        return [self._hub.vitals[name].status for name in ledger.targets if name in self._hub.vitals]

    def _look_at(self, round: _Round, attempt: Attempt, now: float) -> None:
        """See what the promises say so far."""
        for name, promise in round.promises.items():
            if promise.refused:
                why = f"rank {attempt.rank(name)} refuses: {promise.refused}"
                self._stop(round, attempt, why)
                self._give_up(attempt, round.ledger, why, now)
                return
        if len(round.promises) < len(round.ledger.targets):
            return
        promises = round.promises.values()
        if len({promise.store for promise in promises}) > 1:
            without = [attempt.rank(name) for name, promise in round.promises.items() if not promise.store]
            why = f"{_ranks(without)} shares no torch.distributed store with the others; make the weavelet"
            self._stop(round, attempt, why)
            self._give_up(attempt, round.ledger, f"{why} after init_process_group on every rank", now)
        elif all(promise.promised for promise in promises) and len({p.step for p in promises}) == 1:
            self._decide(round, attempt, now)
        else:
            steps = ", ".join(str(step) for step in sorted({promise.step for promise in promises}))
            self._fail(round, attempt, f"the ranks were too far apart, or past the step: {steps}", now)

    def _decide(self, round: _Round, attempt: Attempt, now: float) -> None:
        round.deciding = True
        promise = next(iter(round.promises.values()))
        number = round.ledger.revision.revision
        agreed = RevisionAgreed(
            run=attempt.run,
            attempt=attempt.id,
            revision=number,
            epoch=self._hub.settings.epoch,
            round=round.number,
            step=promise.step,
            store=promise.store,
        )

        def then() -> None:
            del self._rounds[_key(attempt)]
            self._forget((_key(attempt), number))
            self._tell(round.ledger, self._decision(number, round.number, commit=True))
            self._conclusions.agreed(attempt, round.ledger, now)
            self._consider(attempt, now)

        def failed(reason: str) -> None:
            round.deciding = False
            self._fail(round, attempt, f"the journal could not be written: {reason}", now)

        self._hub.commit(agreed, then=then, failed=failed)

    def _fail(self, round: _Round, attempt: Attempt, why: str, now: float) -> None:
        """End a round; another one follows unless there were too many."""
        mark = _key(attempt), round.ledger.revision.revision
        waiting = self._waiting.setdefault(mark, _Waiting())
        waiting.trouble = why
        waiting.reached = max([waiting.reached, *(promise.step for promise in round.promises.values())])
        self._stop(round, attempt, why)
        self._consider(attempt, now)

    def _stop(self, round: _Round, attempt: Attempt, why: str) -> None:
        del self._rounds[_key(attempt)]
        decision = self._decision(round.ledger.revision.revision, round.number, commit=False, reason=why)
        self._tell(round.ledger, decision)

    def _silent(self, round: _Round, key: AttemptKey) -> str:
        attempt = self._hub.state.attempts[key]
        silent = [attempt.rank(name) for name in round.ledger.targets if name not in round.promises]
        return f"{_ranks(silent)} did not answer within {ANSWER_TIMEOUT:g} s"

    # --- telling ------------------------------------------------------------------------------

    def _tell_of_past(self, peer: Peer, attempt: Attempt, promise: Promise) -> None:
        """Answer a promise of a round that is over: without a decision on disk it was aborted."""
        ledger = attempt.ledger(promise.revision)
        agreed = ledger.agreed if ledger else None
        commit = agreed is not None and (agreed.epoch, agreed.round) == (promise.epoch, promise.round)
        decision = Decision(
            epoch=promise.epoch,
            revision=promise.revision,
            round=promise.round,
            commit=commit,
            reason="" if commit else "the round is over",
        )
        self._hub.send(peer, decision)

    def _decision(self, number: int, round: int, *, commit: bool, reason: str = "") -> Decision:
        epoch = self._hub.settings.epoch
        return Decision(epoch=epoch, revision=number, round=round, commit=commit, reason=reason)

    def _tell(self, ledger: Ledger, message: FromBroker) -> None:
        for name in ledger.targets:
            peer = self._hub.weavelets.get(name)
            if peer is not None:
                self._hub.send(peer, message)

    def _answered(self, attempt: Attempt, ledger: Ledger, now: float) -> None:
        """A replica's outcome is on disk: it may be the end of a round, or of waiting for one."""
        if ledger.revision.mode != "consistent":
            return
        round = self._rounds.get(_key(attempt))
        mark = _key(attempt), ledger.revision.revision
        if round is not None and round.ledger is ledger and not round.deciding and mark not in self._ending:
            self._fail(round, attempt, "a rank left", now)
        elif ledger.settled:
            self._forget(mark)
            self._consider(attempt, now)
        self._conclusions.answered(attempt, ledger, now)


def _key(attempt: Attempt) -> AttemptKey:
    return attempt.run, attempt.id


def _is_of(round: _Round, promise: Promise, epoch: str) -> bool:
    same = round.ledger.revision.revision, round.number, epoch
    return (promise.revision, promise.round, promise.epoch) == same


def _ended(attempt: Attempt, ledger: Ledger, kind: OutcomeKind, why: str) -> list[OutcomesRecorded]:
    number = ledger.revision.revision
    return [
        OutcomesRecorded(
            run=attempt.run,
            attempt=attempt.id,
            outcomes={number: Outcome(name, attempt.rank(name), kind, error=why)},
        )
        for name in ledger.targets
        if name not in ledger.outcomes
    ]


def _ranks(ranks: list[int]) -> str:
    named = ", ".join(map(str, sorted(ranks)[:8]))
    more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {named}{more}"
