"""The requests of an operator that still want an answer. Pure: time is the argument `now`."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from zloom.messages import Answer, Follow, FromOperator, RevisionState

RESEND = 1.0
"""Seconds until a request without an answer is sent again, under the same id: it has one effect."""


SPARE = 16
"""Times that may be out of date besides one for each request."""

Place = tuple[str, str, int]
"""Run, attempt and number of a revision."""


@dataclass(slots=True)
class _Open:
    owner: str
    """Id of the request that was made; its follow has another."""
    number: int
    """Grows with each request that is made."""
    message: FromOperator
    due: float
    sent: bool = False
    revision: Place | None = None
    """Once that is known."""


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
        self._following: dict[Place, set[str]] = {}
        """Owners of the requests that made, or follow, a revision."""
        self._made = 0
        self._agenda: list[tuple[float, int, str]] = []
        """A heap of when each owner is due, by age where at once; outdated where its entry says otherwise."""
        self.resent = 0

    def __len__(self) -> int:
        """Requests that are open."""
        return len(self._open)

    def add(self, message: FromOperator, now: float) -> None:
        """Take a request, due at once; one that makes a revision stays open until that is settled."""
        self.drop(message.id)  # one that is open twice is one
        self._made += 1
        self._open[message.id] = entry = _Open(message.id, self._made, message, now)
        self._owners[message.id] = message.id
        self._schedule(entry, now)

    def drop(self, request: str) -> None:
        """Forget a request: nobody waits for it any more. What it did stays done."""
        entry = self._open.pop(request, None)
        if entry is None:
            return
        for name in {request, entry.message.id}:
            del self._owners[name]
        self._unfollow(entry)
        if len(self._agenda) > 2 * len(self._open) + SPARE:
            self._agenda = [(entry.due, entry.number, owner) for owner, entry in self._open.items()]
            heapq.heapify(self._agenda)

    def receive(self, answer: Answer, now: float) -> list[Answered]:
        """Take an answer; return it for each request that it answers, none when nobody waits for it.

        The broker pushes a revision's state once a connection, under the id that asked first, so it goes to
        all that wait for the revision.
        """
        owners = {self._owners[answer.id]} if answer.id in self._owners else set()
        if isinstance(answer, RevisionState):
            owners |= self._following.get(_place(answer), set())
        return [self._take(self._open[owner], answer, now) for owner in sorted(owners)]

    def _take(self, entry: _Open, answer: Answer, now: float) -> Answered:
        goes_on = isinstance(answer, RevisionState) and not answer.settled
        if isinstance(answer, RevisionState) and goes_on:
            self._follow(entry, answer, now)
        else:
            self.drop(entry.owner)
        return Answered(entry.owner, answer, last=not goes_on)

    def first_due(self, now: float) -> FromOperator | None:
        """Return what is to be sent now, before all else, or None; once it is, `sent` brings the next."""
        due = self.next_due()
        return None if due is None or due > now else self._open[self._agenda[0][2]].message

    def sent(self, message: FromOperator, now: float) -> None:
        """What was `first_due` was sent: the next time comes after `RESEND` seconds."""
        entry = self._open[self._owners[message.id]]
        self.resent += entry.sent and not isinstance(message, Follow)
        entry.sent = True
        self._schedule(entry, now + RESEND)

    def next_due(self) -> float | None:
        """Return when the next request is due, or None."""
        while self._agenda and not self._is_current(self._agenda[0]):
            heapq.heappop(self._agenda)
        return self._agenda[0][0] if self._agenda else None

    def restart(self, now: float) -> None:
        """A new connection: whatever is open is due at once."""
        for entry in self._open.values():
            self._schedule(entry, now)

    def _follow(self, entry: _Open, state: RevisionState, now: float) -> None:
        if entry.revision != (place := _place(state)):
            self._unfollow(entry)
            entry.revision = place
            self._following.setdefault(place, set()).add(entry.owner)
        if isinstance(entry.message, Follow):
            return
        follow = Follow(
            id=self._new_id(),
            run=state.run,
            attempt=state.attempt,
            revision=state.revision,
            chain=state.chain,
        )
        self._owners[follow.id] = entry.owner
        entry.message = follow
        self._schedule(entry, now + RESEND)

    def _unfollow(self, entry: _Open) -> None:
        if entry.revision is not None:
            following = self._following[entry.revision]
            following.remove(entry.owner)
            if not following:
                del self._following[entry.revision]

    def _schedule(self, entry: _Open, due: float) -> None:
        entry.due = due
        heapq.heappush(self._agenda, (due, entry.number, entry.owner))

    def _is_current(self, planned: tuple[float, int, str]) -> bool:
        due, number, owner = planned
        entry = self._open.get(owner)
        return entry is not None and entry.due == due and entry.number == number


def _place(state: RevisionState) -> Place:
    return state.run, state.attempt, state.revision
