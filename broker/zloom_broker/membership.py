"""Who is there: hellos and registrations."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Literal

from zloom.codec import watch_topic
from zloom.messages import Hello, HelloRequired, Revised, Wait
from zloom.model import Event, Replica
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.declarations import Declarations
from zloom_broker.departures import Departures
from zloom_broker.failures import Failures
from zloom_broker.greeting import problem_of
from zloom_broker.hub import Hub, Peer
from zloom_broker.inheritance import inherited
from zloom_broker.joins import Greeted, Join, Joins, Registration
from zloom_broker.liveness import Vitals
from zloom_broker.permissions import Access, hello_problem
from zloom_broker.records import AnyRecord, AttemptStarted, ReplicaJoined, RevisionAccepted
from zloom_broker.welcomes import Welcomes

WAIT_RETRY = 1.0
"""Seconds until a replica that must wait asks again: a killed predecessor is lost within 2 s."""


MAX_CONFLICTS = 1000
"""Conflicts that are remembered, so that each is told once."""


class Membership:
    """Registers peers and replicas."""

    def __init__(
        self, hub: Hub, departures: Departures, declarations: Declarations, failures: Failures
    ) -> None:
        self._hub = hub
        self._departures = departures
        self._declarations = declarations
        self._joins = Joins()
        self._welcomes = Welcomes(hub, failures, self._joins)
        self._starting: set[AttemptKey] = set()
        """Attempts of which the first replica is being written."""
        self._conflicts: set[tuple[str, str]] = set()
        self._back: list[Replica] = []
        """Those on new connections since the last turn, whom the journal has."""

    def joining(self, key: AttemptKey) -> list[str]:
        """Return the ids of replicas that are about to join an attempt."""
        return [each.id for each in self._joins.replicas() if _home(each) == key]

    # --- hello -------------------------------------------------------------------------------

    def hello(self, identity: bytes, hello: Hello, access: Access, now: float) -> None:
        """A peer introduces itself, for the first time or again."""
        problem = problem_of(hello) or hello_problem(access, hello)
        if problem is not None:
            self._hub.send_unknown(identity, problem)
        elif hello.replica is None:
            self._welcomes.welcome(Greeted(identity, hello, access), now)
        else:
            self._approach(Join(Greeted(identity, hello, access), hello.replica), now)

    def end_turn(self) -> None:
        """Tell of those who came back in one turn of the loop: after a restart a thousand may."""
        for replica in self._back:
            self._hub.tell(*_home(replica), "reconnected", _where(replica))
        self._back.clear()

    def is_superseded(self, peer: Peer) -> bool:
        """Return whether the replica of a connection has said hello on another since then."""
        if not peer.replica:
            return False
        bound = self._hub.weavelets.get(peer.replica)
        newest = self._joins.newest(peer.replica) or (bound.id if bound else peer.id)
        return newest != peer.id

    def goodbye(self, peer: Peer, leave: Callable[[], None]) -> None:
        """A peer leaves, now or in its turn.

        Args:
            peer: Who.
            leave: Lets it go.
        """
        if not peer.replica:
            leave()
        elif not self.is_superseded(peer):
            self._declarations.before_goodbye(peer.replica, leave)
        elif self._joins.newest(peer.replica) and self._joins.defer(
            peer.replica, partial(self._leave_late, peer, leave)
        ):
            if peer.replica in self._hub.vitals:
                self._hub.vitals[peer.replica].leave()
        else:
            self._hub.counters["superseded"] += 1

    def _leave_late(self, peer: Peer, leave: Callable[[], None]) -> None:
        attempt = self._hub.state.attempts.get(peer.attempt)
        if attempt is not None and peer.replica in attempt.replicas and peer.replica not in attempt.left:
            self._declarations.before_goodbye(peer.replica, leave)

    def _not_welcomed(self, replica: str) -> None:
        """A hello came to nothing: what was said before it holds, if no other waits."""
        goodbye = self._joins.take_goodbye(replica)
        if goodbye is not None:
            goodbye()

    def _approach(self, join: Join, now: float) -> None:
        # Before it waits in the place of another: one of another run must not displace the replica's own.
        reason = self._belongs_elsewhere(join)
        if reason:
            self._hub.send_unknown(join.greeted.identity, Wait(reason=reason, retry=WAIT_RETRY))
            return
        self._await_turn(join)
        replica = join.replica.id
        vitals = self._hub.vitals.get(replica)
        if vitals is not None and self._joins.newest(replica):
            vitals.greet(now)

    def _await_turn(self, join: Join) -> None:
        replica = join.replica.id
        self._joins.coming[replica] = join
        self._declarations.before_hello(replica, partial(self._greet, replica))

    def _greet(self, replica: str) -> None:
        join = self._joins.coming.pop(replica, None)
        if join is None:  # its key was revoked
            return
        registering = self._joins.registering.get(replica)
        if registering is None:
            self._admit(join, self._hub.now)
        elif self._departures.under_way(replica) in (None, registering.before):
            registering.newest = join
        else:  # who is being registered has left again since then, and is to go before this one comes
            self._joins.coming[replica] = join

    def _admit(self, join: Join, now: float) -> None:
        reason = self._obstacle(join, now)
        if reason:
            self._put_off(join, reason)
        elif self._is_registered(join.replica):
            bound = self._hub.weavelets.get(join.replica.id)
            if bound is None or bound.id != join.greeted.identity:
                self._back.append(join.replica)
            self._departures.take_back(join.replica.id)
            self._welcomes.welcome(join.greeted, now)
        elif self._hub.settings.read_only:
            text = f"the journal is read-only, so nobody can register: {self._hub.settings.read_only}"
            self._put_off(join, text)
        else:
            self._register(join, now)

    def _put_off(self, join: Join, reason: str) -> None:
        self._hub.send_unknown(join.greeted.identity, Wait(reason=reason, retry=WAIT_RETRY))
        self._not_welcomed(join.replica.id)

    def _is_registered(self, replica: Replica) -> bool:
        """Whether the journal holds exactly this replica, so that nothing need be written."""
        attempt = self._attempt(replica)
        if attempt is None or attempt.replicas.get(replica.id) != replica:
            return False
        if self._departures.under_way(replica.id):
            return False
        # On a read-only journal a return cannot be written, but the weavelet may read all the same.
        return replica.id not in attempt.left or bool(self._hub.settings.read_only)

    def _register(self, join: Join, now: float) -> None:
        replica, key = join.replica, _home(join.replica)
        attempt = self._attempt(replica)
        before = self._departures.under_way(replica.id)
        left = before or (attempt.left.get(replica.id) if attempt is not None else None)
        returned = left is not None
        left = self._departures.take_back(replica.id) or left
        said_goodbye = left if left is not None and left.outcome == "not_reached" else None
        self._joins.registering[replica.id] = Registration(join, said_goodbye, before)
        joined = ReplicaJoined(replica=replica, at=self._hub.wall(now))
        if attempt is not None or key in self._starting:
            then = partial(self._joined, replica, now, returned=returned)
            self._hub.commit(joined, then=then, failed=partial(self._not_joined, replica))
        else:
            self._start(joined, join.greeted.hello, now)

    def _start(self, joined: ReplicaJoined, hello: Hello, now: float) -> None:
        replica, at = joined.replica, joined.at
        self._starting.add(_home(replica))
        started = AttemptStarted(
            run=replica.run, attempt=replica.attempt, world_size=replica.world_size, at=at
        )
        accepted = inherited(self._hub.state, replica, at) if hello.inherit else None
        records: list[AnyRecord] = [started, joined, *([accepted] if accepted else [])]
        then = partial(self._started, replica, accepted, now)
        self._hub.commit(*records, then=then, failed=partial(self._not_joined, replica))

    def _obstacle(self, join: Join, now: float) -> str:
        """Return why a replica cannot join now; empty when it can."""
        replica, key = join.replica, _home(join.replica)
        if key in self._hub.forgetting:
            return f"{replica.run} ({replica.attempt}) is being forgotten"
        elsewhere = self._belongs_elsewhere(join)
        if elsewhere:
            return elsewhere
        if any(_claims_rank_of(other, replica) for other in self._joins.replicas()):
            return f"rank {replica.rank} of {replica.run} ({replica.attempt}) is being given to another"
        attempt = self._attempt(replica)
        for other in attempt.present() if attempt else ():
            if _claims_rank_of(other, replica):
                return self._conflict(other, replica, now)
        return ""

    def _belongs_elsewhere(self, join: Join) -> str:
        """Return why a hello cannot be that of the replica it names; empty when it may be."""
        replica, key = join.replica, _home(join.replica)
        registering = self._joins.registering.get(replica.id)
        being_written = _home(registering.newest.replica) if registering else key
        home = self._hub.state.homes.get(replica.id, being_written)
        if home == key:
            return ""
        whose = f"attempt {home[1]} of {home[0]}" if join.greeted.access.covers(home[0]) else "another run"
        return f"replica id {replica.id} belongs to {whose}; use a fresh one"

    def _conflict(self, holder: Replica, replica: Replica, now: float) -> str:
        text = (
            f"rank {replica.rank} of {replica.run} ({replica.attempt}) is held by {holder.id} "
            f"on {holder.host} (pid {holder.pid}); {replica.id} on {replica.host} (pid {replica.pid}) waits "
            "until it is lost"
        )
        pair = holder.id, replica.id
        if pair not in self._conflicts:
            if len(self._conflicts) >= MAX_CONFLICTS:
                self._conflicts.clear()
            self._conflicts.add(pair)
            event = Event("rank_conflict", replica.run, replica.attempt, text=text, replicas=list(pair))
            self._hub.event(event, now)
        return text

    def _attempt(self, replica: Replica) -> Attempt | None:
        return self._hub.state.attempts.get(_home(replica))

    def _started(self, replica: Replica, accepted: RevisionAccepted | None, now: float) -> None:
        key = _home(replica)
        self._starting.discard(key)
        self._hub.event(Event("attempt_started", *key, text=f"world size {replica.world_size}"), now)
        if accepted is not None:
            revised = Revised(
                epoch=self._hub.settings.epoch, run=key[0], attempt=key[1], revision=accepted.revision
            )
            self._hub.publish(watch_topic(replica.run), revised)
        self._joined(replica, now, returned=False)

    def _joined(self, replica: Replica, now: float, *, returned: bool) -> None:
        # What is told and written is of when it said hello; its life counts from now, as a disk may hang.
        kind: Literal["joined", "returned"] = "returned" if returned else "joined"
        self._hub.event(Event(kind, *_home(replica), text=_where(replica), replicas=[replica.id]), now)
        self._compare_baselines(replica, now)
        registration = self._joins.registering.pop(replica.id)
        join = registration.newest
        if join.replica == replica and not join.revoked:
            self._welcomes.welcome(join.greeted, self._hub.now)
        else:
            self._joined_unwelcomed(registration)
        waiting = self._joins.coming.get(replica.id)
        if waiting is not None:
            self._await_turn(waiting)

    def _joined_unwelcomed(self, registration: Registration) -> None:
        join = registration.newest
        replica = join.replica.id
        if replica not in self._hub.vitals:  # who is registered and not welcomed is lost like others
            self._hub.vitals[replica] = Vitals(revoked=join.revoked)
            self._hub.miss(replica, self._hub.now)
        if registration.said_goodbye is not None:
            self._departures.leave_again(registration.said_goodbye)
        if join.revoked:
            self._not_welcomed(replica)
        else:  # it said hello again meanwhile, with other declarations
            self._admit(join, self._hub.now)

    def _not_joined(self, replica: Replica, reason: str) -> None:
        self._starting.discard(_home(replica))
        self._hub.miss(replica.id, self._hub.now)
        registration = self._joins.registering.pop(replica.id)
        # Nor is one admitted that waits for what is written behind this: that fails too.
        waiting = self._joins.coming.pop(replica.id, None)
        text = f"the journal could not be written: {reason}"
        for join in (registration.newest, waiting):
            if join is not None and not join.revoked:
                self._hub.send_unknown(join.greeted.identity, Wait(reason=text, retry=WAIT_RETRY))
        if registration.said_goodbye is not None:
            self._departures.leave_again(registration.said_goodbye)
        self._not_welcomed(replica.id)

    def _compare_baselines(self, replica: Replica, now: float) -> None:
        baseline = self._hub.state.attempts[_home(replica)].config.baseline
        for key in replica.keys:
            if baseline[key.name] != key.baseline and not replica.resumed:
                mine, theirs = key.baseline, baseline[key.name]
                text = f"{key.name}: {replica.id} begins with {mine!r}, others with {theirs!r}"
                event = Event("baseline_differs", *_home(replica), text=text, replicas=[replica.id])
                self._hub.event(event, now)

    def revoke(self, peer: Peer) -> None:
        """A peer's key was taken from him, or means something else now: he must say hello anew."""
        self._hub.peers.pop(peer.id, None)
        if peer.replica and self._hub.weavelets.get(peer.replica) is peer:
            del self._hub.weavelets[peer.replica]
            peer.vitals.revoked = True
        peer.revoked = True
        self._hub.send_unknown(peer.id, HelloRequired())

    def revoke_hellos(self, users: Collection[str]) -> None:
        """The keys of these users were taken from them: their hellos that wait for the disk count no more."""
        for join in self._joins.revoke(users):
            self._turn_away(join)

    def _turn_away(self, join: Join) -> None:
        vitals = self._hub.vitals.get(join.replica.id)
        if vitals is not None and join.replica.id not in self._hub.weavelets:
            vitals.revoked = True
        self._hub.send_unknown(join.greeted.identity, HelloRequired())
        if join.replica.id not in self._joins.coming:
            self._declarations.drop_hello(join.replica.id)
        self._not_welcomed(join.replica.id)


def _where(replica: Replica) -> str:
    return f"rank {replica.rank} on {replica.host} (pid {replica.pid})"


def _home(replica: Replica) -> AttemptKey:
    return replica.run, replica.attempt


def _claims_rank_of(one: Replica, other: Replica) -> bool:
    # The rank first, which tells most apart: each of 1,000 replicas that come back is compared with all.
    return one.rank == other.rank and one.id != other.id and _home(one) == _home(other)
