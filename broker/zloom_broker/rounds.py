"""One round: a step is proposed to all ranks, they promise it, and the decision is written."""

from dataclasses import dataclass, field
from itertools import count
from math import ceil, inf
from typing import NamedTuple, Protocol

from zloom.messages import Decision, FromBroker, Prepare, Promise
from zloom.words import named
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.hub import Hub, Peer
from zloom_broker.ledger import Ledger
from zloom_broker.liveness import Vitals
from zloom_broker.records import RevisionAgreed

ANSWER_TIMEOUT = 1.0
"""Seconds that ranks have to promise. They do it between two steps of nothing but their own loop, so one that
takes longer holds the GIL or is gone; and the others hold at their step meanwhile."""


class Reached(NamedTuple):
    """How far the ranks are known to have come."""

    step: int
    at: float
    """Seconds: when a rank told it."""


NOWHERE = Reached(0, 0.0)
"""No rank has told anything."""


class Listener(Protocol):
    """Hears how rounds end."""

    def round_decided(self, attempt: Attempt, ledger: Ledger, now: float) -> None:
        """All ranks promised one step; the decision is on disk and they have been told."""

    def round_refused(self, attempt: Attempt, ledger: Ledger, why: str, now: float) -> None:
        """A rank refuses the revision, so another round is of no use."""

    def round_failed(self, attempt: Attempt, ledger: Ledger, why: str, reached: Reached, now: float) -> None:
        """Nothing was decided; `reached` is the highest step that a rank told."""


@dataclass(slots=True)
class _Round:
    """The round of an attempt that is under way."""

    attempt: Attempt
    ledger: Ledger
    number: int
    step: int
    deadline: float
    promises: dict[str, Promise] = field(default_factory=dict)
    reached: Reached = NOWHERE
    deciding: bool = False
    """The decision is being written."""

    def is_of(self, promise: Promise, epoch: str) -> bool:
        """Whether a promise was given in this round."""
        same = self.ledger.revision.revision, self.number, epoch
        return (promise.revision, promise.round, promise.epoch) == same

    def silent(self) -> str:
        """Name the ranks that have not answered."""
        names = [name for name in self.ledger.targets if name not in self.promises]
        ranks = named([self.attempt.rank(name) for name in names])
        return f"{ranks} did not answer within {ANSWER_TIMEOUT:g} s"


class Rounds:
    """At most one round of each attempt at a time; not thread-safe."""

    def __init__(self, hub: Hub, listener: Listener) -> None:
        self._hub = hub
        self._listener = listener
        self._numbers = count(1)
        self._rounds: dict[AttemptKey, _Round] = {}

    def __contains__(self, key: AttemptKey) -> bool:
        """Whether a round of an attempt is under way."""
        return key in self._rounds

    def is_asking(self, attempt: Attempt, ledger: Ledger) -> bool:
        """Whether ranks are being asked about a revision, and nothing is being written yet."""
        round = self._of(attempt, ledger)
        return round is not None and not round.deciding

    def is_deciding(self, attempt: Attempt, ledger: Ledger) -> bool:
        """Whether the decision about a revision is being written."""
        round = self._of(attempt, ledger)
        return round is not None and round.deciding

    def _of(self, attempt: Attempt, ledger: Ledger) -> _Round | None:
        round = self._rounds.get(attempt.key)
        return round if round is not None and round.ledger is ledger else None

    # --- time ---------------------------------------------------------------------------------

    def next_timer(self) -> float:
        """Return when the first round has waited long enough, or infinity."""
        return min((round.deadline for round in self._rounds.values() if not round.deciding), default=inf)

    def on_timer(self, now: float) -> None:
        """End the rounds that ranks have not answered in time."""
        for round in list(self._rounds.values()):
            if not round.deciding and now >= round.deadline:
                self._fail(round, round.silent(), now)

    def step_ahead(
        self, ledger: Ledger, seconds: float, now: float, *, reached: int = 0, pace: float = inf
    ) -> int:
        """Return a step that no rank will have begun for so long, and that is past `reached`.

        Args:
            ledger: Of the revision that is to be carried out there.
            seconds: How long no rank is to have begun it.
            now: Seconds.
            reached: The highest step that a rank told in a round, beside what its status told.
            pace: Seconds a step, where it was seen to be faster than its status told.
        """
        highest = max([reached, *(each.step_at(now) for each in self._vitals(ledger))])
        fastest = min([pace, *self._paces(ledger)])
        return highest + 1 + max(1, ceil(seconds / fastest))

    def are_paused_at_first(self, ledger: Ledger) -> bool:
        """Whether all ranks stand before they have a pace: once they go on, any step may come at once."""
        stand = [each for each in self._vitals(ledger) if each.status is not None and each.status.paused]
        return len(stand) == len(ledger.targets) and not self._paces(ledger)

    def _paces(self, ledger: Ledger) -> list[float]:
        """Return the seconds that a step takes, of each rank that has told it."""
        return [each.pace for each in self._vitals(ledger) if each.pace]

    def _vitals(self, ledger: Ledger) -> list[Vitals]:
        return [self._hub.vitals[name] for name in ledger.targets if name in self._hub.vitals]

    # --- a round ------------------------------------------------------------------------------

    def begin(self, attempt: Attempt, ledger: Ledger, step: int, now: float) -> None:
        """Ask all ranks for their promise."""
        number = next(self._numbers)
        self._rounds[attempt.key] = _Round(attempt, ledger, number, step, now + ANSWER_TIMEOUT)
        epoch = self._hub.settings.epoch
        self._tell(ledger, Prepare(epoch=epoch, round=number, step=step, revision=ledger.revision))

    def promise(self, peer: Peer, promise: Promise, now: float) -> None:
        """A rank answers a round."""
        round = self._rounds.get(peer.attempt)
        if round is None or not round.is_of(promise, self._hub.settings.epoch):
            self._tell_of_past(peer, promise)
        elif round.ledger.is_target(peer.replica) and not round.deciding:
            round.promises[peer.replica] = promise
            # One that promises the step that was proposed may be far from there yet.
            is_there = not promise.promised or promise.step > round.step
            if is_there and promise.step > round.reached.step:
                round.reached = Reached(promise.step, now)
            if promise.refused:
                rank = round.attempt.rank(peer.replica)
                self._refuse(round, f"rank {rank} refuses: {promise.refused}", now)
            else:
                self._look_at(round, now)

    def stop(self, attempt: Attempt, ledger: Ledger, why: str) -> None:
        """End the round of a revision, if there is one, and have the ranks go on."""
        if (round := self._of(attempt, ledger)) is not None:
            self._stop(round, why)

    def fail(self, attempt: Attempt, ledger: Ledger, why: str, now: float) -> None:
        """End the round of a revision, if there is one; another one may follow."""
        if (round := self._of(attempt, ledger)) is not None:
            self._fail(round, why, now)

    def _look_at(self, round: _Round, now: float) -> None:
        """See what the promises say so far."""
        if len(round.promises) < len(round.ledger.targets):
            return
        promises = round.promises.values()
        if len({promise.store for promise in promises}) > 1:
            without = [name for name, promise in round.promises.items() if not promise.store]
            ranks = named([round.attempt.rank(name) for name in without])
            hint = "make the weavelet after init_process_group on every rank"
            self._refuse(round, f"{ranks} shares no torch.distributed store with the others; {hint}", now)
        elif all(promise.promised for promise in promises) and len({p.step for p in promises}) == 1:
            self._decide(round)
        else:
            steps = ", ".join(str(step) for step in sorted({promise.step for promise in promises}))
            self._fail(round, f"the ranks were too far apart, or past the step: {steps}", now)

    def _decide(self, round: _Round) -> None:
        round.deciding = True
        attempt, ledger = round.attempt, round.ledger
        promise = next(iter(round.promises.values()))
        number = ledger.revision.revision
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
            del self._rounds[attempt.key]
            self._tell(ledger, self._decision(number, round.number, commit=True))
            self._listener.round_decided(attempt, ledger, self._hub.now)

        def failed(reason: str) -> None:
            round.deciding = False
            self._fail(round, f"the journal could not be written: {reason}", self._hub.now)

        self._hub.commit(agreed, then=then, failed=failed)

    def _refuse(self, round: _Round, why: str, now: float) -> None:
        self._stop(round, why)
        self._listener.round_refused(round.attempt, round.ledger, why, now)

    def _fail(self, round: _Round, why: str, now: float) -> None:
        self._stop(round, why)
        self._listener.round_failed(round.attempt, round.ledger, why, round.reached, now)

    def _stop(self, round: _Round, why: str) -> None:
        del self._rounds[round.attempt.key]
        decision = self._decision(round.ledger.revision.revision, round.number, commit=False, reason=why)
        self._tell(round.ledger, decision)

    # --- telling ------------------------------------------------------------------------------

    def _tell_of_past(self, peer: Peer, promise: Promise) -> None:
        """Answer a promise of a round that is over: without a decision on disk it was aborted."""
        ledger = self._hub.state.attempts[peer.attempt].ledger(promise.revision)
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
