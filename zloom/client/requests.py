"""The requests of an operator that still want an answer. Pure: time is the argument `now`."""

from collections.abc import Callable
from dataclasses import dataclass

from zloom.messages import Answer, Follow, FromOperator, RevisionState

RESEND = 1.0
"""Seconds until a request without an answer is sent again, under the same id: it has one effect."""


@dataclass(slots=True)
class _Open:
    owner: str
    """Id of the request that was made; its follow has another."""
    message: FromOperator
    due: float
    sent: bool = False
    revision: tuple[str, str, int] | None = None
    """Run, attempt and number of the revision, once that is known."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer to a request; `last` when no more will come."""

    request: str
    answer: Answer
    last: bool


class RequestTable:
    """Which requests are open, and when each is to be sent again.

    A request that made a revision becomes a `Follow` of it until all have answered: the broker's own pushes
    come at most once, and a broker that was restarted does not know who waited.

    Args:
        new_id: Returns a fresh id for each follow.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._open: dict[str, _Open] = {}
        self._owners: dict[str, str] = {}
        self.resent = 0

    def __len__(self) -> int:
        """Requests that are open."""
        return len(self._open)

    def add(self, message: FromOperator, now: float) -> None:
        """Take a request, due at once; one that makes a revision stays open until that is settled."""
        self._open[message.id] = _Open(message.id, message, now)
        self._owners[message.id] = message.id

    def drop(self, request: str) -> None:
        """Forget a request: nobody waits for it any more. What it did stays done."""
        self._open.pop(request, None)
        self._owners = {name: owner for name, owner in self._owners.items() if owner != request}

    def receive(self, answer: Answer, now: float) -> list[Answered]:
        """Take an answer; return it for each request that it answers, none when nobody waits for it.

        The broker pushes a revision's state once a connection, under the id that asked first, so it goes to
        all that wait for the revision.
        """
        owners = {self._owners[answer.id]} if answer.id in self._owners else set()
        if isinstance(answer, RevisionState):
            place = _place(answer)
            owners |= {owner for owner, entry in self._open.items() if entry.revision == place}
        return [self._take(self._open[owner], answer, now) for owner in sorted(owners)]

    def _take(self, entry: _Open, answer: Answer, now: float) -> Answered:
        goes_on = isinstance(answer, RevisionState) and not answer.settled
        if isinstance(answer, RevisionState) and goes_on:
            self._follow(entry, answer, now)
        else:
            self.drop(entry.owner)
        return Answered(entry.owner, answer, last=not goes_on)

    def due(self, now: float) -> list[FromOperator]:
        """Return what is to be sent now; `sent` is told of each that was."""
        return [entry.message for entry in self._open.values() if entry.due <= now]

    def sent(self, message: FromOperator, now: float) -> None:
        """A message of `due` was sent: the next time comes after `RESEND` seconds."""
        entry = self._open[self._owners[message.id]]
        self.resent += entry.sent and not isinstance(message, Follow)
        entry.sent, entry.due = True, now + RESEND

    def next_due(self) -> float | None:
        """Return when the next request is due, or None."""
        return min((entry.due for entry in self._open.values()), default=None)

    def restart(self, now: float) -> None:
        """A new connection: whatever is open is due at once."""
        for entry in self._open.values():
            entry.due = now

    def _follow(self, entry: _Open, state: RevisionState, now: float) -> None:
        entry.revision = _place(state)
        if isinstance(entry.message, Follow):
            return
        follow = Follow(id=self._new_id(), run=state.run, attempt=state.attempt, revision=state.revision)
        self._owners[follow.id] = entry.owner
        entry.message, entry.due = follow, now + RESEND


def _place(state: RevisionState) -> tuple[str, str, int]:
    return state.run, state.attempt, state.revision
