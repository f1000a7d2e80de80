"""What a new revision ends of those that the ranks have not agreed on yet: by cancel, stop or supersede."""

from zloom.model import Outcome, OutcomeKind, Revision
from zloom_broker.attempt import Attempt
from zloom_broker.outcomes import Outcomes
from zloom_broker.records import OutcomesRecorded, RevisionAccepted
from zloom_broker.steering import Steering


class Withdrawal:
    """The end of other revisions, written together with the revision that ends them.

    From now on the ranks cannot agree on them any more; `written` or `not_written` must follow.
    """

    def __init__(
        self, steering: Steering, outcomes: Outcomes, attempt: Attempt, accepted: RevisionAccepted
    ) -> None:
        self._steering = steering
        self._outcomes = outcomes
        self._attempt = attempt
        self._accepted = accepted
        kind, why, candidates = _ended_by(accepted.revision, attempt)
        self._numbers = self._undecided(candidates)
        self.records: list[OutcomesRecorded] = steering.withdraw(attempt, self._numbers, kind, why)
        """To be written right after the revision."""
        self._answered = accepted.revision.kind == "cancel" and bool(self._numbers)
        if self._answered:
            self.records.append(self._taken_back())

    def written(self, now: float) -> None:
        """All of it is on disk."""
        if self._numbers:
            self._steering.withdrawn(self._attempt, self._numbers, now)
        kind, why, candidates = _ended_by(self._accepted.revision, self._attempt)
        for number in self._undecided(candidates):  # what was being written itself when this was accepted
            self._steering.end(self._attempt, number, kind, why, now)
        if self._answered:
            number, targets = self._accepted.revision.revision, self._accepted.targets
            self._outcomes.announce(self._attempt, number, targets, now)

    def not_written(self) -> None:
        """None of it is."""
        self._steering.not_withdrawn((self._attempt.run, self._attempt.id), self._numbers)

    def _undecided(self, candidates: list[int]) -> list[int]:
        return [
            number
            for number in candidates
            if number < self._accepted.revision.revision
            and self._attempt.ledgers[number].undecided
            and not self._steering.is_agreed(self._attempt, number)
        ]

    def _taken_back(self) -> OutcomesRecorded:
        """The replicas need not be asked: they have promised nothing that counts."""
        attempt, number = self._attempt, self._accepted.revision.revision
        outcomes = [Outcome(name, attempt.rank(name), "applied") for name in self._accepted.targets]
        return OutcomesRecorded(run=attempt.run, attempt=attempt.id, outcomes={number: outcomes})


def _ended_by(revision: Revision, attempt: Attempt) -> tuple[OutcomeKind, str, list[int]]:
    by = f"by revision {revision.revision}"
    if revision.kind == "cancel":
        return "cancelled", by, [revision.cancels]
    if revision.kind == "command":
        undecided = [ledger.revision for ledger in attempt.undecided()]
        if revision.command == "stop":
            return "aborted", f"the run was stopped {by}", [each.revision for each in undecided]
        if revision.command == "resume":
            # Not agreed on by all yet, it would come after the resume on some ranks and before it on others.
            pauses = [each.revision for each in undecided if each.command == "pause"]
            return "aborted", f"the run was resumed {by}", pauses
    return "superseded", by, [number for number in revision.supersedes if number <= attempt.revision]
