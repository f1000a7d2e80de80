"""Who leaves: goodbyes and losses, written down until the journal takes them."""

from functools import partial
from typing import Literal

from zloom.messages import Goodbye
from zloom.model import Event
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.failures import Failures
from zloom_broker.followers import Followers
from zloom_broker.hub import Hub, Peer
from zloom_broker.liveness import Vitals
from zloom_broker.outcomes import Outcomes
from zloom_broker.records import ReplicaLeft

MAX_REASON = 255
"""Characters that are kept of a trainer's reason."""


class Departures:
    """Writes down who leaves, and lets go of the connection then."""

    def __init__(self, hub: Hub, followers: Followers, outcomes: Outcomes, failures: Failures) -> None:
        self._hub = hub
        self._followers = followers
        self._outcomes = outcomes
        self._failures = failures
        self._in_flight: dict[str, ReplicaLeft] = {}
        """The newest of each that is being written."""
        self._returning: set[str] = set()
        """Who is being registered anew behind the newest, so that another departure is another."""
        self._unwritten: dict[str, ReplicaLeft] = {}
        """Those that the journal could not take, to be tried again."""

    def under_way(self, replica: str) -> ReplicaLeft | None:
        """Return the newest departure of a replica that is being written."""
        return self._in_flight.get(replica)

    def take_back(self, replica: str) -> ReplicaLeft | None:
        """The replica is back; return its departure if that could not be written, and never will be."""
        if replica in self._in_flight:
            self._returning.add(replica)
        return self._unwritten.pop(replica, None)

    def leave_again(self, left: ReplicaLeft) -> None:
        """Who said goodbye was not let in again: it has left as it said, unless the journal has that."""
        attempt = self._hub.state.attempts.get((left.run, left.attempt))
        if attempt is None or left.replica not in attempt.replicas or left.replica in attempt.left:
            return
        self._unwritten.setdefault(left.replica, left)  # to be written at the next beat
        if left.replica in self._hub.vitals:
            self._hub.vitals[left.replica].leave()

    def goodbye(self, peer: Peer, goodbye: Goodbye, now: float) -> None:
        """A peer leaves on its own account."""
        if not peer.replica:
            self._followers.unfollow(peer)
            self._hub.peers.pop(peer.id, None)
            return
        reason = goodbye.reason[:MAX_REASON]
        self._leave(peer.replica, peer.attempt, "not_reached", reason, now, goodbye.step)

    def lose(self, replica: str, reason: str, now: float) -> None:
        """A replica is gone without a word."""
        home = self._hub.state.homes.get(replica)
        if home is not None:
            self._leave(replica, home, "lost", reason, now)

    def retry(self, now: float) -> None:
        """Write departures again that the journal could not take."""
        unwritten, self._unwritten = self._unwritten, {}
        for left in unwritten.values():
            self._write(left, now)

    def _leave(
        self,
        replica: str,
        key: AttemptKey,
        outcome: Literal["not_reached", "lost"],
        reason: str,
        now: float,
        step: int | None = None,
    ) -> None:
        vitals = self._hub.vitals.get(replica) or Vitals()
        trace = self._hub.state.attempts[key].traces.of(replica)
        known = vitals.status or trace
        left = ReplicaLeft(
            run=key[0],
            attempt=key[1],
            replica=replica,
            outcome=outcome,
            reason=reason,
            at=self._hub.wall(now),
            step=_highest(step, known.step),
            # One that stops at what it was told says no status after it.
            revision=_highest(known.revision, trace.revision),
            metrics=dict(vitals.metrics),
        )
        leaves = replica in self._unwritten or (replica in self._in_flight and replica not in self._returning)
        if self._hub.settings.read_only:
            self._forget_connection(replica)
        elif not leaves:
            self._write(left, now)

    def _write(self, left: ReplicaLeft, now: float) -> None:
        attempt = self._hub.state.attempts[left.run, left.attempt]
        self._in_flight[left.replica] = left
        self._returning.discard(left.replica)
        owed = [ledger.revision.revision for ledger in attempt.owed(left.replica)]
        then = partial(self._left, left, owed, attempt.revision, now)
        self._hub.commit(left, then=then, failed=lambda _: self._not_left(left))

    def _not_left(self, left: ReplicaLeft) -> None:
        self._landed(left)
        self._unwritten[left.replica] = left

    def _landed(self, left: ReplicaLeft) -> None:
        if self._in_flight[left.replica] is left:
            del self._in_flight[left.replica]
            self._returning.discard(left.replica)

    def _left(self, left: ReplicaLeft, owed: list[int], revision: int, now: float) -> None:
        self._landed(left)
        self._forget_connection(left.replica)
        attempt = self._hub.state.attempts[left.run, left.attempt]
        kind: Literal["lost", "finished"] = "lost" if left.outcome == "lost" else "finished"
        text = f"rank {attempt.replicas[left.replica].rank}: {left.reason}"
        self._hub.event(Event(kind, left.run, left.attempt, text=text, replicas=[left.replica]), now)
        # Revisions that were accepted while this was being written ended with it too.
        candidates = [*owed, *range(revision + 1, attempt.revision + 1)]
        ended = [number for number in candidates if _ended_by(attempt, number, left)]
        for number in ended:
            self._outcomes.announce(attempt, number, [left.replica], self._hub.now)
        self._failures.replica_left(attempt, left)

    def _forget_connection(self, replica: str) -> None:
        peer = self._hub.weavelets.pop(replica, None)
        if peer is not None:
            self._hub.peers.pop(peer.id, None)
        self._hub.vitals.pop(replica, None)


def _ended_by(attempt: Attempt, number: int, left: ReplicaLeft) -> bool:
    outcome = attempt.ledgers[number].outcomes.get(left.replica)
    return outcome is not None and outcome.outcome == left.outcome


def _highest(*numbers: int | None) -> int | None:
    return max((number for number in numbers if number is not None), default=None)
