"""What becomes of an update that all ranks agreed on: all keep it, or all undo it.

Ranks that share a store conclude there, and are told here only that one of them is lost; and of a command
that one has carried it out, as its process may take the store along. For others this is the register: the
conclusion is on disk before anybody is told.
"""

from dataclasses import dataclass, field
from math import inf

from zloom.messages import Conclusion, Confirm
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.hub import Hub, Peer
from zloom_broker.ledger import Ledger
from zloom_broker.records import RevisionAgreed, RevisionConcluded

CONFIRM_TIMEOUT = 60.0
"""Seconds from the first confirmation until all must have come: as long as the slowest handler may take."""

WRITE_RETRY = 1.0
"""Seconds until a conclusion that the journal could not take is tried again."""


@dataclass(slots=True)
class _Open:
    """An agreed update that is not concluded."""

    deadline: float
    steps: dict[str, int] = field(default_factory=dict)
    """At which step each replica carried it out."""
    why: str = ""
    """Why no rank may keep it, once that is known."""
    writing: bool = False


NOT_IN_BACKUP = "the broker's journal was restored from a backup that lacks the ranks' decision"


class Conclusions:
    """Collects confirmations; not thread-safe."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._open: dict[tuple[AttemptKey, int], _Open] = {}
        self._stand: set[tuple[AttemptKey, int]] = set()
        """Commands of which the ranks were told that they stand, and not all have answered."""

    def next_timer(self) -> float:
        """Return when the first time-out is due, or infinity."""
        return min((each.deadline for each in self._open.values() if not each.writing), default=inf)

    def on_timer(self, now: float) -> None:
        """Have what was not confirmed in time undone."""
        for (key, number), entry in list(self._open.items()):
            attempt = self._hub.state.attempts.get(key)
            ledger = attempt.ledger(number) if attempt else None
            if attempt is None or ledger is None:
                del self._open[key, number]
            elif now >= entry.deadline and not entry.writing:
                entry.deadline = now + WRITE_RETRY
                why = entry.why or f"not all ranks had applied it after {CONFIRM_TIMEOUT:g} s"
                self._conclude(attempt, ledger, why)

    def agreed(self, attempt: Attempt, ledger: Ledger, now: float) -> None:
        """The ranks agreed; one may have left meanwhile."""
        self.answered(attempt, ledger, now)

    def confirm(self, peer: Peer, message: Confirm, now: float) -> None:
        """A rank has carried an update out."""
        attempt = self._hub.state.attempts[peer.attempt]
        ledger = attempt.ledger(message.revision)
        agreed = ledger.agreed if ledger else None
        if ledger is None or agreed is None or (agreed.epoch, agreed.round) != (message.epoch, message.round):
            # All who carried it out hear the same.
            undo = RevisionConcluded(run="", attempt="", revision=0, keep=False, reason=NOT_IN_BACKUP)
            self._send(peer, message, undo)
        elif ledger.concluded is not None:
            self._send(peer, message, ledger.concluded)
        elif not agreed.store and ledger.is_target(peer.replica):
            entry = self._entry(attempt, message.revision, now)
            entry.steps[peer.replica] = message.step
            self.answered(attempt, ledger, now)  # a loss may be all that a former life could write down
            self._look_at(attempt, ledger, entry)

    def answered(self, attempt: Attempt, ledger: Ledger, now: float) -> None:
        """A replica's outcome is on disk: if it did not apply an agreed update, no other may keep it."""
        agreed = ledger.agreed
        if agreed is None or ledger.concluded is not None:
            return
        if ledger.revision.kind != "config":
            self._tell_whether_it_stands(attempt, ledger, agreed)
            return
        if agreed.store and ledger.settled:
            self._open.pop((attempt.key, ledger.revision.revision), None)
            return
        outcome = ledger.first_refusal
        if outcome is not None:
            why = f"rank {attempt.rank(outcome.replica)}: {outcome.error or outcome.outcome}"
            entry = self._entry(attempt, ledger.revision.revision, now)
            entry.why, entry.deadline = why, now + WRITE_RETRY
            self._conclude(attempt, ledger, why)

    def synced(self, peer: Peer) -> None:
        """A rank is back: it may have missed that a command stands."""
        attempt = self._hub.state.attempts[peer.attempt]
        for ledger in attempt.deferred.values():
            agreed = ledger.agreed
            if agreed is not None and _is_carried_out(ledger, agreed):
                self._tell(ledger, agreed, _standing(attempt, ledger), only=peer.replica)

    def _tell_whether_it_stands(self, attempt: Attempt, ledger: Ledger, agreed: RevisionAgreed) -> None:
        """Of a command that a rank has carried out others need ask no store, which may be gone with it."""
        mark = attempt.key, ledger.revision.revision
        if ledger.settled:
            self._stand.discard(mark)
        elif mark not in self._stand and _is_carried_out(ledger, agreed):
            self._stand.add(mark)
            self._tell(ledger, agreed, _standing(attempt, ledger))

    def _entry(self, attempt: Attempt, number: int, now: float) -> _Open:
        return self._open.setdefault((attempt.key, number), _Open(now + CONFIRM_TIMEOUT))

    def _look_at(self, attempt: Attempt, ledger: Ledger, entry: _Open) -> None:
        if entry.why or entry.writing or len(entry.steps) < len(ledger.targets):
            return
        if len(set(entry.steps.values())) == 1:
            self._conclude(attempt, ledger, "")
        else:
            steps = ", ".join(f"rank {attempt.rank(name)} at {step}" for name, step in entry.steps.items())
            self._conclude(attempt, ledger, f"the ranks were ready at different steps: {steps}")

    def _conclude(self, attempt: Attempt, ledger: Ledger, why: str) -> None:
        """Keep an update, or have it undone for a reason."""
        agreed, number = ledger.agreed, ledger.revision.revision
        entry = self._open[attempt.key, number]
        if agreed is None or entry.writing or self._hub.settings.read_only:
            return
        record = RevisionConcluded(
            run=attempt.run, attempt=attempt.id, revision=number, keep=not why, reason=why
        )
        if agreed.store:
            del self._open[attempt.key, number]
            self._tell(ledger, agreed, record)
            return
        entry.writing = True

        def then() -> None:
            self._open.pop((attempt.key, number), None)
            self._tell(ledger, agreed, record)

        def failed(reason: str) -> None:
            entry.writing = False  # the ranks confirm again, and each reason is tried again

        self._hub.commit(record, then=then, failed=failed)

    def _tell(
        self, ledger: Ledger, agreed: RevisionAgreed, record: RevisionConcluded, only: str = ""
    ) -> None:
        for name in [only] if only else ledger.targets:
            peer = self._hub.weavelets.get(name)
            if peer is not None and (name not in ledger.outcomes or ledger.outcomes[name].outcome == "lost"):
                self._send(peer, agreed, record)

    def _send(self, peer: Peer, of: Confirm | RevisionAgreed, record: RevisionConcluded) -> None:
        conclusion = Conclusion(
            epoch=of.epoch, revision=of.revision, round=of.round, keep=record.keep, reason=record.reason
        )
        self._hub.send(peer, conclusion)


def _standing(attempt: Attempt, ledger: Ledger) -> RevisionConcluded:
    return RevisionConcluded(
        run=attempt.run, attempt=attempt.id, revision=ledger.revision.revision, keep=True
    )


def _is_carried_out(ledger: Ledger, agreed: RevisionAgreed) -> bool:
    """Whether a rank has carried a command out, in which ranks with a store found that it stands."""
    if ledger.revision.kind == "config" or not agreed.store:
        return False
    # What was carried out in a history that a backup lacks was at a step before this round's.
    outcomes = ledger.outcomes.values()
    return any(each.outcome == "applied" and (each.step or 0) >= agreed.step for each in outcomes)
