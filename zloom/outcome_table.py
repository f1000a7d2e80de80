"""Outcomes that the broker may not have, and when each is to be sent again. Pure."""

from dataclasses import dataclass

from msgspec.structs import replace

from zloom.model import Outcome

RESEND = 1.0
"""Seconds until an outcome without acknowledgement is sent again."""

BATCH = 100
"""Outcomes in one message, which with the longest texts is still below 1 MiB."""

KEPT = BATCH
"""Acknowledged outcomes that are told again to another life of the broker: one message for each replica."""

TEXT_LIMIT = 1000
"""Characters of an error or detail: what a person reads of it."""


def sendable(text: str) -> str:
    """Return a text as a message can hold it; a file's name may have bytes in it that are no Unicode."""
    return text[:TEXT_LIMIT].encode(errors="replace").decode()


@dataclass(slots=True)
class _Entry:
    outcome: Outcome
    due: float
    sent: bool = False


class OutcomeTable:
    """Keeps each outcome until its acknowledgement, and the newest beyond that."""

    def __init__(self) -> None:
        self.resent = 0
        self._entries: dict[int, _Entry] = {}
        self._acknowledged: dict[int, Outcome] = {}

    def __len__(self) -> int:
        """Outcomes that are not acknowledged."""
        return len(self._entries)

    def add(self, revision: int, outcome: Outcome, now: float) -> None:
        """Take an outcome, due at once."""
        cut = replace(outcome, error=sendable(outcome.error), detail=sendable(outcome.detail))
        self._entries[revision] = _Entry(cut, now)
        self._acknowledged.pop(revision, None)

    def due(self, now: float) -> dict[int, Outcome]:
        """Return outcomes for one message, which is being sent now; empty when none is due."""
        due = [number for number, entry in self._entries.items() if entry.due <= now][:BATCH]
        for number in due:
            entry = self._entries[number]
            self.resent += entry.sent
            entry.sent, entry.due = True, now + RESEND
        return {number: self._entries[number].outcome for number in due}

    def next_due(self) -> float | None:
        """Return when the next is due, or None."""
        return min((entry.due for entry in self._entries.values()), default=None)

    def acknowledge(self, revisions: list[int]) -> None:
        """These are in the journal."""
        for number in revisions:
            entry = self._entries.pop(number, None)
            if entry is not None:
                self._acknowledged[number] = entry.outcome
        while len(self._acknowledged) > KEPT:
            del self._acknowledged[next(iter(self._acknowledged))]

    def doubt(self) -> None:
        """Another life of the broker, which may be on a restored backup, may lack what was acknowledged."""
        for number, outcome in self._acknowledged.items():
            self._entries[number] = _Entry(outcome, 0.0, sent=True)
        self._acknowledged.clear()

    def restart(self, now: float) -> None:
        """A new connection: whatever is left is due at once."""
        for entry in self._entries.values():
            entry.due = now

    def clear(self) -> None:
        """The broker's history is another one, in which these numbers mean something else."""
        self._entries.clear()
        self._acknowledged.clear()
