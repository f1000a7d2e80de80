"""Outcomes that the broker may not have, and when each is to be sent again. Pure."""

from itertools import islice

from msgspec import Struct
from msgspec.structs import replace

from zloom.model import Outcome

BATCH = 100
"""Outcomes in one message, which with the longest texts is still below 1 MiB."""

KEPT = BATCH
"""Acknowledged outcomes that are told again to another life of the broker: one message for each replica."""

TEXT_LIMIT = 1000
"""Characters of an error or detail: what a person reads of it."""


def sendable(text: str) -> str:
    """Return a text as a message can hold it; a file's name may have bytes in it that are no Unicode."""
    return text[:TEXT_LIMIT].encode(errors="replace").decode()


class _Entry(Struct):
    outcome: Outcome
    due: float
    sent: bool = False


def _cut(outcome: Outcome) -> Outcome:
    """Return an outcome as a message can hold it."""
    if not outcome.error and not outcome.detail:
        return outcome
    return replace(outcome, error=sendable(outcome.error), detail=sendable(outcome.detail))


class OutcomeTable:
    """Keeps each outcome until its acknowledgement, and the newest beyond that.

    `due` and `next_due` look at no more than one message takes, however many wait for their acknowledgement.
    """

    def __init__(self) -> None:
        self.resent = 0
        self._new: dict[int, _Entry] = {}
        """To be sent now."""
        self._sent: dict[int, _Entry] = {}
        """In the order in which they are to be sent again."""
        self._acknowledged: dict[int, Outcome] = {}

    @property
    def has_new(self) -> bool:
        """Whether an outcome waits to be sent for the first time, or on a new connection."""
        return bool(self._new)

    def __len__(self) -> int:
        """Outcomes that are not acknowledged."""
        return len(self._new) + len(self._sent)

    def add(self, revision: int, outcome: Outcome, now: float) -> None:
        """Take an outcome, due at once."""
        self._forget(revision)
        self._new[revision] = _Entry(_cut(outcome), now)

    def send(self, revision: int, outcome: Outcome, again: float) -> dict[int, Outcome]:
        """Take an outcome and return it for a message of its own, which is being sent now.

        Args:
            revision: Whose it is.
            outcome: What became of it.
            again: When it is due again without an acknowledgement.
        """
        self._forget(revision)
        cut = _cut(outcome)
        self._hasten(again)
        self._sent[revision] = _Entry(cut, again, sent=True)
        return {revision: cut}

    def due(self, now: float, again: float) -> dict[int, Outcome]:
        """Return outcomes for one message, which is being sent now; empty when none is due.

        Args:
            now: Seconds.
            again: When they are due again without an acknowledgement.
        """
        numbers = list(islice(self._new, BATCH))
        for number, entry in self._sent.items():
            if entry.due > now or len(numbers) == BATCH:
                break
            numbers.append(number)
        if numbers:
            self._hasten(again)
        outcomes = {}
        for number in numbers:
            entry = self._new.pop(number) if number in self._new else self._sent.pop(number)
            self.resent += entry.sent
            entry.sent, entry.due = True, again
            self._sent[number] = entry
            outcomes[number] = entry.outcome
        return outcomes

    def next_due(self) -> float | None:
        """Return when the next is due, or None."""
        due = None
        for waiting in (self._new, self._sent):
            for first in waiting.values():
                due = first.due if due is None else min(due, first.due)
                break
        return due

    def acknowledge(self, revisions: list[int]) -> None:
        """These are in the journal."""
        for number in revisions:
            entry = self._new.pop(number, None) or self._sent.pop(number, None)
            if entry is not None:
                self._acknowledged[number] = entry.outcome
        if len(self._acknowledged) > KEPT:
            for number in sorted(self._acknowledged)[:-KEPT]:
                del self._acknowledged[number]

    def doubt(self) -> None:
        """Another life of the broker, which may be on a restored backup, may lack what was acknowledged."""
        doubted = {number: _Entry(outcome, 0.0, sent=True) for number, outcome in self._acknowledged.items()}
        self._new = doubted | self._new
        self._acknowledged.clear()

    def restart(self, now: float) -> None:
        """A new connection: whatever is left is due at once."""
        self._new = self._sent | self._new
        self._sent = {}
        for entry in self._new.values():
            entry.due = now

    def _hasten(self, again: float) -> None:
        """Have what was sent be due no later than what is being sent: the beat may have become shorter."""
        for entry in reversed(self._sent.values()):
            if entry.due <= again:
                return
            entry.due = again

    def _forget(self, revision: int) -> None:
        """Have no earlier outcome of a revision, which was answered anew."""
        self._new.pop(revision, None)
        self._sent.pop(revision, None)
        self._acknowledged.pop(revision, None)

    def clear(self) -> None:
        """The broker's history is another one, in which these numbers mean something else."""
        self._new.clear()
        self._sent.clear()
        self._acknowledged.clear()
