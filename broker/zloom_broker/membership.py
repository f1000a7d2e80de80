"""Who is there: hellos, declarations, goodbyes, losses and returns."""

from functools import partial

from zloom.codec import MAX_MESSAGE_SIZE
from zloom.messages import PROTOCOL, Declare, Declared, Error, Goodbye, Hello, Wait, Welcome
from zloom.model import NAME, NAME_RULE, Event, Key, Replica
from zloom.version import __version__
from zloom_broker.attempt import Attempt
from zloom_broker.failures import Failures
from zloom_broker.hub import Hub, Peer
from zloom_broker.inheritance import inherited
from zloom_broker.liveness import Vitals
from zloom_broker.outcomes import Outcomes
from zloom_broker.records import AttemptStarted, ReplicaJoined, ReplicaLeft
from zloom_broker.state import AttemptKey

WAIT_RETRY = 1.0
"""Seconds until a replica that must wait asks again: a killed predecessor is lost within 2 s."""


class Membership:
    """Registers peers and replicas."""

    def __init__(self, hub: Hub, outcomes: Outcomes, failures: Failures) -> None:
        self._hub = hub
        self._outcomes = outcomes
        self._failures = failures
        self._joining: dict[str, tuple[bytes, Hello]] = {}
        """The newest hello of each replica whose registration is being written."""
        self._leaving: set[str] = set()
        self._conflicts: set[tuple[str, str]] = set()

    # --- hello -------------------------------------------------------------------------------

    def hello(self, identity: bytes, hello: Hello, now: float) -> None:
        """A peer introduces itself, for the first time or again."""
        problem = _problem(hello)
        if problem is not None:
            self._hub.send_unknown(identity, problem)
        elif hello.replica is None:
            self._welcome(identity, hello, now)
        elif hello.replica.id in self._joining:
            self._joining[hello.replica.id] = identity, hello
        else:
            self._join(identity, hello, hello.replica, now)

    def _join(self, identity: bytes, hello: Hello, replica: Replica, now: float) -> None:
        reason = self._obstacle(replica, now)
        if reason:
            self._hub.send_unknown(identity, Wait(reason=reason, retry=WAIT_RETRY))
            return
        attempt = self._hub.state.attempts.get((replica.run, replica.attempt))
        known = attempt is not None and attempt.replicas.get(replica.id) == replica
        if attempt is not None and known and replica.id not in attempt.left:
            self._welcome(identity, hello, now)
            return
        self._joining[replica.id] = identity, hello
        failed = partial(self._not_joined, replica.id)
        if attempt is None:
            self._start(replica, hello, now)
        self._hub.commit(
            ReplicaJoined(replica=replica, at=self._hub.wall(now)),
            partial(self._joined, replica, now),
            failed,
        )
        if attempt is None and hello.inherit:
            self._inherit(replica, now)

    def _start(self, replica: Replica, hello: Hello, now: float) -> None:
        started = AttemptStarted(
            run=replica.run, attempt=replica.attempt, world_size=replica.world_size, at=self._hub.wall(now)
        )
        event = Event(
            "attempt_started", replica.run, replica.attempt, text=f"world size {replica.world_size}"
        )
        self._hub.commit(started, partial(self._hub.event, event, now))

    def _inherit(self, replica: Replica, now: float) -> None:
        record = inherited(self._hub.state, replica, self._hub.wall(now))
        if record is not None:
            self._hub.commit(record)

    def _obstacle(self, replica: Replica, now: float) -> str:
        """Return why a replica cannot join now; empty when it can."""
        if self._hub.settings.read_only:
            return f"the journal is read-only: {self._hub.settings.read_only}"
        joining = [h.replica for _, h in self._joining.values() if h.replica]
        if any(_same_attempt(other, replica) for other in joining) and not self._attempt(replica):
            return "the attempt is being started"
        rival = self._rival(replica, joining)
        if rival is None:
            return ""
        text = (
            f"rank {replica.rank} of {replica.run} ({replica.attempt}) is held by {rival.id} "
            f"on {rival.host} (pid {rival.pid}); {replica.id} on {replica.host} (pid {replica.pid}) waits "
            "until it is lost"
        )
        if (replica.id, rival.id) not in self._conflicts:
            self._conflicts.add((replica.id, rival.id))
            pair = [rival.id, replica.id]
            event = Event("rank_conflict", replica.run, replica.attempt, text=text, replicas=pair)
            self._hub.event(event, now)
        return text

    def _rival(self, replica: Replica, joining: list[Replica]) -> Replica | None:
        attempt = self._attempt(replica)
        present = [] if attempt is None else list(attempt.present())
        for other in (*present, *joining):
            if other.id != replica.id and other.rank == replica.rank and _same_attempt(other, replica):
                return other
        return None

    def _attempt(self, replica: Replica) -> Attempt | None:
        return self._hub.state.attempts.get((replica.run, replica.attempt))

    def _joined(self, replica: Replica, now: float) -> None:
        identity, hello = self._joining.pop(replica.id)
        returned = replica.id in self._failures.lost
        self._failures.lost.discard(replica.id)
        kind, text = ("returned", "it was lost") if returned else ("joined", "")
        where = f"rank {replica.rank} on {replica.host} (pid {replica.pid})"
        event = Event(kind, replica.run, replica.attempt, text=text or where, replicas=[replica.id])  # type: ignore[arg-type]
        self._hub.event(event, now)
        self._compare_baselines(replica, now)
        self._welcome(identity, hello, now)

    def _not_joined(self, replica: str, reason: str) -> None:
        identity, _ = self._joining.pop(replica)
        self._hub.send_unknown(
            identity, Wait(reason=f"the journal could not be written: {reason}", retry=WAIT_RETRY)
        )

    def _compare_baselines(self, replica: Replica, now: float) -> None:
        baseline = self._hub.state.attempts[replica.run, replica.attempt].baseline
        for key in replica.keys:
            if baseline[key.name] != key.baseline:
                mine, theirs = key.baseline, baseline[key.name]
                text = f"{key.name}: {replica.id} begins with {mine!r}, others with {theirs!r}"
                event = Event(
                    "baseline_differs", replica.run, replica.attempt, text=text, replicas=[replica.id]
                )
                self._hub.event(event, now)

    def _welcome(self, identity: bytes, hello: Hello, now: float) -> None:
        peer = Peer(identity, hello.user, nonce=hello.nonce)
        if hello.replica is not None:
            self._bind(peer, hello.replica)
        peer.vitals.connect(now)
        self._hub.peers[identity] = peer
        settings = self._hub.settings
        self._hub.send(
            peer,
            Welcome(
                protocol=PROTOCOL,
                epoch=settings.epoch,
                updates=settings.addresses.updates_for(hello.endpoint),
                beat=settings.beat,
                credit=settings.credit,
                max_message_size=MAX_MESSAGE_SIZE,
                software=f"zloom {__version__}",
            ),
        )
        if peer.replica:
            self._failures.resend(peer, now)

    def _bind(self, peer: Peer, replica: Replica) -> None:
        peer.replica, peer.attempt = replica.id, (replica.run, replica.attempt)
        before = self._hub.weavelets.get(replica.id)
        if before is not None:
            self._hub.peers.pop(before.id, None)
        self._hub.weavelets[replica.id] = peer
        peer.vitals = self._hub.vitals.setdefault(replica.id, Vitals())

    # --- declarations ------------------------------------------------------------------------

    def declare(self, peer: Peer, declare: Declare, now: float) -> None:
        """A weavelet's keys and commands changed."""
        attempt = self._hub.state.attempts[peer.attempt]
        before = attempt.replicas[peer.replica]
        replica = _redeclared(before, declare.keys, declare)
        answer = partial(self._hub.send, peer, Declared(seq=declare.seq))
        if replica == before:
            answer()
        elif not self._hub.settings.read_only:
            self._hub.commit(ReplicaJoined(replica=replica, at=self._hub.wall(now)), answer)

    # --- departures --------------------------------------------------------------------------

    def goodbye(self, peer: Peer, goodbye: Goodbye, now: float) -> None:
        """A trainer leaves on its own account."""
        self._leave(peer.replica, peer.attempt, goodbye.reason, now, lost=False)

    def lose(self, replica: str, reason: str, now: float) -> None:
        """A replica is gone without a word."""
        for key, attempt in self._hub.state.attempts.items():
            if replica in attempt.replicas:
                self._leave(replica, key, reason, now, lost=True)

    def _leave(self, replica: str, key: AttemptKey, reason: str, now: float, *, lost: bool) -> None:
        attempt = self._hub.state.attempts[key]
        if replica in self._leaving or replica in attempt.left:
            return
        self._leaving.add(replica)
        left = ReplicaLeft(
            run=key[0],
            attempt=key[1],
            replica=replica,
            outcome="lost" if lost else "not_reached",
            reason=reason,
            at=self._hub.wall(now),
        )
        owed = [ledger.revision.revision for ledger in attempt.owed(replica)]
        then = partial(self._left, left, owed, now)
        if self._hub.settings.read_only:
            self._leaving.discard(replica)
            self._forget_connection(replica)
        else:
            self._hub.commit(left, then, lambda reason: self._leaving.discard(replica))

    def _left(self, left: ReplicaLeft, owed: list[int], now: float) -> None:
        self._leaving.discard(left.replica)
        self._forget_connection(left.replica)
        attempt = self._hub.state.attempts[left.run, left.attempt]
        rank = attempt.replicas[left.replica].rank
        lost = left.outcome == "lost"
        text = f"rank {rank}: {left.reason}"
        event = Event(
            "lost" if lost else "finished", left.run, left.attempt, text=text, replicas=[left.replica]
        )
        self._hub.event(event, now)
        self._outcomes.announce(attempt, owed, left.replica, now)
        if lost:
            self._failures.replica_lost(attempt, left, now)

    def _forget_connection(self, replica: str) -> None:
        peer = self._hub.weavelets.pop(replica, None)
        if peer is not None:
            self._hub.peers.pop(peer.id, None)
        self._hub.vitals.pop(replica, None)


def _problem(hello: Hello) -> Error | None:
    if PROTOCOL not in hello.protocols:
        spoken = ", ".join(map(str, hello.protocols[:8])) or "none"
        return Error(
            code="protocol_version", text=f"this broker speaks protocol {PROTOCOL}, the hello offers {spoken}"
        )
    if (hello.role == "weavelet") != (hello.replica is not None):
        return Error(code="bad_hello", text="a weavelet's hello names its replica, an operator's has none")
    replica = hello.replica
    if replica is None:
        return None
    for what, name in (("run", replica.run), ("attempt", replica.attempt), ("replica", replica.id)):
        if not NAME.fullmatch(name):
            return Error(code="bad_name", text=f"{what} {name[:64]!r}: expected {NAME_RULE}")
    if not 0 <= replica.rank < replica.world_size:
        return Error(
            code="bad_hello", text=f"rank {replica.rank} is not below the world size {replica.world_size}"
        )
    return None


def _same_attempt(one: Replica, other: Replica) -> bool:
    return (one.run, one.attempt) == (other.run, other.attempt)


def _redeclared(replica: Replica, keys: list[Key], declare: Declare) -> Replica:
    return Replica(
        id=replica.id,
        run=replica.run,
        attempt=replica.attempt,
        rank=replica.rank,
        world_size=replica.world_size,
        host=replica.host,
        pid=replica.pid,
        keys=keys,
        commands=declare.commands,
        devices=replica.devices,
    )
