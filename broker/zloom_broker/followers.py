"""Who follows which revision, and when each is told of its state. Pure: time is the argument `now`.

What an operator waits for is told as soon as it is known as long as little happens. In a burst each message
saved is time for the changes behind it: then what is not settled yet is told a little later, and as a rule is
settled by then, so that one answer says all.
"""

import heapq
from dataclasses import dataclass, field
from math import inf

from zloom.messages import RevisionState
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.hub import Hub, Peer
from zloom_broker.ledger import Ledger
from zloom_broker.owed import Debt, Owed

PUSH_INTERVAL = 0.1
"""Seconds between two pushes of a revision that is not settled. The last one, which settles it, goes out at
once."""

PUSH_SHARE = 0.001
"""Seconds between them for each target, where that is more: each push lists the outcomes of all."""

PROMPT = 20
"""First answers to one connection within a `PUSH_INTERVAL` that go out before the revision is settled. More
are a burst, and each of those waits up to that long."""

FollowKey = tuple[AttemptKey, int]


@dataclass(slots=True)
class _Followed:
    """A revision that is not settled, and who is told of it."""

    key: FollowKey
    attempt: Attempt
    not_before: float
    """When it may be pushed again, unless it is settled."""
    due: float = inf
    """When a push that was held back goes out."""
    requests: dict[bytes, str] = field(default_factory=dict)
    """Connection → the request that its pushes answer, the first one."""


@dataclass(slots=True)
class _Answered:
    """First answers to one connection."""

    since: float
    count: int = 0


class Followers:
    """Connections by the revision that they follow."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._followed: dict[FollowKey, _Followed] = {}
        self._agenda: list[tuple[float, FollowKey]] = []
        """A heap of when each push that was held back is due; outdated where that says otherwise."""
        self._owed = Owed(hub)
        self._answered: dict[bytes, _Answered] = {}
        """By connection; forgotten with it."""

    def confirm(self, peer: Peer, request_id: str, attempt: Attempt, ledger: Ledger, now: float) -> None:
        """Answer the request that made a revision just now, in a burst together with what becomes of it.

        Nobody is answered whose connection is gone by now, nor the broker, which asked by itself.
        """
        here = self._hub.peers.get(peer.id)
        if here is None or here.user != peer.user:
            return
        if ledger.settled or not self._is_burst(here, now):
            self.follow(here, request_id, attempt, ledger, now)
        else:
            self._hold_back(self._add(here, request_id, attempt, ledger, now + PUSH_INTERVAL))

    def follow(
        self,
        peer: Peer,
        request_id: str,
        attempt: Attempt,
        ledger: Ledger,
        now: float,
        *,
        duplicate: bool = False,
    ) -> None:
        """Answer with a revision's state, and tell again when it changes."""
        if not ledger.settled:
            self._add(peer, request_id, attempt, ledger, now + _interval(ledger))
        self._tell(peer, attempt, ledger, request_id, duplicate=duplicate)

    def _add(
        self, peer: Peer, request_id: str, attempt: Attempt, ledger: Ledger, not_before: float
    ) -> _Followed:
        key = attempt.key, ledger.revision.revision
        followed = self._followed.get(key)
        if followed is None:
            followed = self._followed[key] = _Followed(key, attempt, not_before)
        followed.requests.setdefault(peer.id, request_id)
        return followed

    def unfollow(self, peer: Peer) -> None:
        """A connection is gone, and with it whom to tell."""
        self._owed.forgive(peer)
        self._answered.pop(peer.id, None)
        for key in [key for key, followed in self._followed.items() if peer.id in followed.requests]:
            del self._followed[key].requests[peer.id]
            if not self._followed[key].requests:
                del self._followed[key]

    def changed(self, attempt: Attempt, ledger: Ledger, now: float) -> None:
        """Tell those who follow a revision what the outcomes are now, or have them wait for more."""
        followed = self._followed.get((attempt.key, ledger.revision.revision))
        if followed is None:
            return
        if not ledger.settled and followed.not_before > now:
            self._hold_back(followed)
        else:
            self._push(followed, ledger, now)

    def credited(self, peer: Peer) -> None:
        """A peer has received more: tell it what it is owed."""
        for debt, duplicate in self._owed.due(peer):
            attempt = debt.attempt
            if self._hub.state.attempts.get(attempt.key) is attempt:  # it was not forgotten meanwhile
                self._tell(peer, attempt, attempt.ledgers[debt.revision], debt.request, duplicate=duplicate)

    def next_push(self) -> float:
        """Return when a push that was held back is due, or infinity."""
        while self._agenda:
            when, key = self._agenda[0]
            followed = self._followed.get(key)
            if followed is not None and followed.due == when:
                return when
            heapq.heappop(self._agenda)
        return inf

    def push_due(self, now: float) -> None:
        """Send the pushes that were held back."""
        while self.next_push() <= now:
            _, key = heapq.heappop(self._agenda)
            followed = self._followed[key]
            self._push(followed, followed.attempt.ledgers[key[1]], now)

    def _is_burst(self, peer: Peer, now: float) -> bool:
        answered = self._answered.get(peer.id)
        if answered is None or now - answered.since > PUSH_INTERVAL:
            answered = self._answered[peer.id] = _Answered(now)
        answered.count += 1
        return answered.count > PROMPT

    def _hold_back(self, followed: _Followed) -> None:
        if followed.due != followed.not_before:
            followed.due = followed.not_before
            heapq.heappush(self._agenda, (followed.due, followed.key))

    def _push(self, followed: _Followed, ledger: Ledger, now: float) -> None:
        for identity, request_id in followed.requests.items():
            peer = self._hub.peers.get(identity)
            if peer is not None:
                self._tell(peer, followed.attempt, ledger, request_id)
        if ledger.settled:
            del self._followed[followed.key]
        else:
            followed.not_before, followed.due = now + _interval(ledger), inf

    def _tell(
        self, peer: Peer, attempt: Attempt, ledger: Ledger, request_id: str, *, duplicate: bool = False
    ) -> None:
        number = ledger.revision.revision
        if not self._hub.may_send(peer):
            self._owed.owe(peer, Debt(attempt, number, request_id), duplicate=duplicate)
            return
        state = RevisionState(
            id=request_id,
            run=attempt.run,
            attempt=attempt.id,
            revision=number,
            chain=ledger.revision.chain,
            durable=self._hub.settings.durable or ledger.revision.kind != "config",
            duplicate=duplicate,
            at_step=ledger.revision.at_step,
            outcomes=attempt.outcomes(ledger),
            settled=ledger.settled,
        )
        self._hub.send(peer, state)


def _interval(ledger: Ledger) -> float:
    return max(PUSH_INTERVAL, PUSH_SHARE * len(ledger.targets))
