"""The broker without its sockets: messages in, effects out.

The shell feeds one message, timer or confirmed commit at a time and carries out the effects in order.
Time is the argument `now`, in seconds on any monotonic clock.
"""

from collections.abc import Mapping

from zloom.codec import own_topic, watch_topic
from zloom.errors import Refused
from zloom.messages import (
    Cancel,
    Credit,
    Declare,
    Done,
    Echo,
    Error,
    FailDevice,
    FailureReceived,
    Follow,
    Forget,
    FromWeavelet,
    GetDevices,
    GetHistory,
    GetKeys,
    GetReplicas,
    GetRuns,
    GetStats,
    Goodbye,
    Hello,
    HelloRequired,
    Outcomes,
    Own,
    Pong,
    Publish,
    Refusal,
    Reported,
    Request,
    Rollback,
    SendCommand,
    SetConfig,
    Status,
    Sync,
    ToBroker,
)
from zloom.model import Event
from zloom_broker import outcomes
from zloom_broker.catchup import catch_up
from zloom_broker.changes import Changes
from zloom_broker.effects import Effect
from zloom_broker.failures import Failures
from zloom_broker.hub import CoreSettings, Hub, Peer
from zloom_broker.membership import Membership
from zloom_broker.pulse import Pulse
from zloom_broker.queries import Queries
from zloom_broker.records import AttemptForgotten
from zloom_broker.state import State

ECHO = "echo/"


class Core:
    """The broker's core. Not thread-safe: one shell feeds it."""

    def __init__(self, state: State, settings: CoreSettings, last_seq: int, now: float, wall: float) -> None:
        """Begin a life on a state.

        Args:
            state: What the journal held, `EpochStarted` of this life included.
            settings: What the core must know of its shell.
            last_seq: Sequence number of the journal's last record.
            now: Seconds on the monotonic clock.
            wall: Seconds since the Unix epoch.
        """
        self._hub = Hub(state, settings, last_seq)
        self._hub.wall_offset = wall - now
        self._outcomes = outcomes.Outcomes(self._hub)
        self._failures = Failures(self._hub)
        self._membership = Membership(self._hub, self._outcomes, self._failures)
        self._changes = Changes(self._hub, self._outcomes)
        self._queries = Queries(self._hub)
        self._pulse = Pulse(self._hub, self._membership, self._failures, now)
        self._pulse.restore(now)

    @property
    def state(self) -> State:
        """The durable state; not to be changed."""
        return self._hub.state

    @property
    def next_seq(self) -> int:
        """Sequence number of the next record."""
        return self._hub.next_seq

    # --- events ------------------------------------------------------------------------------

    def receive(self, identity: bytes, message: ToBroker, now: float) -> list[Effect]:
        """Take a message that came on control."""
        peer = self._hub.peers.get(identity)
        self._hub.counters[f"received_{type(message).__struct_config__.tag}"] += 1
        if isinstance(message, Hello):
            self._membership.hello(identity, message, now)
        elif peer is None:
            self._hub.counters["unknown_peers"] += 1
            self._hub.send_unknown(identity, HelloRequired())
        else:
            self._hub.received(peer)
            peer.vitals.hear(now)
            if isinstance(message, Request):
                self._request(peer, message, now)
            else:
                self._weavelet(peer, message, now)
        return self._hub.take()

    def bad_message(self, identity: bytes, code: str, text: str) -> list[Effect]:
        """Something that is no message came on control."""
        self._hub.counters[code] += 1
        peer = self._hub.peers.get(identity)
        error = Error(code=code, text=text)
        if peer is None:
            self._hub.send_unknown(identity, error)
        else:
            self._hub.received(peer)
            self._hub.send(peer, error)
        return self._hub.take()

    def subscription(self, topic: bytes, now: float, *, present: bool) -> list[Effect]:
        """A topic was subscribed, or its last subscriber is gone."""
        name = topic.decode(errors="replace")
        if name.startswith(ECHO) and name.endswith("/"):
            nonce = name[len(ECHO) : -1]
            if present:
                self._hub.publish(topic, Echo(nonce=nonce))
            self._pulse.subscription(nonce, now, present=present)
        return self._hub.take()

    def unroutable(self, identity: bytes, now: float) -> list[Effect]:
        """A message could not be sent, because the peer's connection is closed."""
        peer = self._hub.peers.get(identity)
        if peer is not None:
            self._pulse.unroutable(peer, now)
        return self._hub.take()

    def committed(self, seq: int) -> list[Effect]:
        """All records up to `seq` are on disk."""
        self._hub.committed(seq)
        return self._hub.take()

    def commit_failed(self, seq: int, reason: str) -> list[Effect]:
        """The record `seq` and all after it were not written."""
        self._hub.commit_failed(seq, reason)
        return self._hub.take()

    def next_timer(self) -> float:
        """Return when `on_timer` must be called, in the seconds of `now`."""
        push = self._outcomes.next_push()
        beat = self._pulse.next_timer()
        return beat if push is None else min(beat, push)

    def on_timer(self, now: float, wall: float, gauges: Mapping[str, int]) -> list[Effect]:
        """Do what is due.

        Args:
            now: Seconds on the monotonic clock.
            wall: Seconds since the Unix epoch; that clock may be set while the broker runs.
            gauges: Counters of the shell, for those who ask for the broker's numbers.
        """
        self._hub.wall_offset = wall - now
        self._hub.gauges.update(gauges)
        self._pulse.on_timer(now)
        self._outcomes.push_due(now)
        return self._hub.take()

    # --- inside ------------------------------------------------------------------------------

    def _weavelet(self, peer: Peer, message: FromWeavelet, now: float) -> None:
        match message:
            case Pong():
                peer.acked = max(peer.acked, message.received)
                peer.vitals.pong(message.id)
            case Credit():
                peer.acked = max(peer.acked, message.received)
            case Publish():
                self._own(peer, message)
            case _ if not peer.replica:
                tag = type(message).__struct_config__.tag
                text = f"{tag} is for weavelets; this connection's hello had the role operator"
                self._hub.send(peer, Error(code="not_allowed", text=text))
            case Sync():
                catch_up(self._hub, peer, message, now)
            case Outcomes():
                self._outcomes.receive(peer, message, now)
            case Status():
                self._status(peer, message, now)
            case Declare():
                self._membership.declare(peer, message, now)
            case Goodbye():
                self._membership.goodbye(peer, message, now)
            case FailureReceived():
                self._failures.received(peer, message)

    def _request(self, peer: Peer, request: Request, now: float) -> None:
        try:
            self._answer(peer, request, now)
        except Refused as refused:
            self._hub.counters["refused"] += 1
            self._hub.send(peer, Refusal(id=request.id, code=refused.code, text=refused.text))

    def _answer(self, peer: Peer, request: Request, now: float) -> None:
        match request:
            case SetConfig() | Rollback() | SendCommand() | Cancel():
                self._changes.receive(peer, request, self._queries.attempt, now)
            case Follow():
                self._follow(peer, request, now)
            case FailDevice():
                self._fail_device(peer, request, now)
            case Forget():
                self._forget(peer, request, now)
            case GetHistory() | GetKeys() | GetRuns() | GetReplicas() | GetDevices() | GetStats():
                self._hub.send(peer, self._queries.answer(request, now))

    def _follow(self, peer: Peer, request: Follow, now: float) -> None:
        attempt = self._queries.attempt(request)
        if attempt.ledger(request.revision) is None:
            text = f"there is no revision {request.revision}; the newest is {attempt.revision}"
            raise Refused("unknown_revision", text)
        self._outcomes.follow(peer, request.id, attempt, request.revision, now)

    def _fail_device(self, peer: Peer, request: FailDevice, now: float) -> None:
        self._check_writable()
        known = self._queries.devices()
        if request.device not in known:
            names = ", ".join(sorted(known)) or "none"
            raise Refused("unknown_device", f"unknown device {request.device[:64]!r}; known are: {names}")
        self._failures.device_failed(peer, request, now)

    def _forget(self, peer: Peer, request: Forget, now: float) -> None:
        self._check_writable()
        attempt = self._queries.attempt(request)
        there = [replica.id for replica in attempt.present()]
        if there:
            text = f"{attempt.run} ({attempt.id}) still has replicas: {', '.join(there)}; stop it first"
            raise Refused("still_live", text)
        record = AttemptForgotten(run=attempt.run, attempt=attempt.id, by=peer.user, at=self._hub.wall(now))
        event = Event("forgotten", attempt.run, attempt.id, text=f"by {peer.user}")

        def then() -> None:
            self._hub.event(event, now)
            self._hub.send(peer, Done(id=request.id, replicas=list(attempt.replicas)))

        self._hub.commit(record, then)

    def _check_writable(self) -> None:
        if self._hub.settings.read_only:
            raise Refused("read_only", f"the journal is read-only: {self._hub.settings.read_only}")

    def _status(self, peer: Peer, status: Status, now: float) -> None:
        before = peer.vitals.status
        if before is not None and status.seq > before.seq + 1:
            self._hub.counters["status_missed"] += status.seq - before.seq - 1
        peer.vitals.report(status, now)
        attempt = self._hub.state.attempts[peer.attempt]
        replica = attempt.replicas[peer.replica]
        seen = self._queries.status(attempt, replica, now)
        reported = Reported(status=seen, metrics=status.metrics, devices=status.devices)
        self._hub.publish(watch_topic(attempt.run), reported)

    def _own(self, peer: Peer, message: Publish) -> None:
        before = peer.publish_seqs.get(message.topic)
        if before is not None and message.seq > before + 1:
            self._hub.counters["own_missed"] += message.seq - before - 1
        peer.publish_seqs[message.topic] = message.seq
        sender = peer.replica or peer.user
        own = Own(topic=message.topic, payload=message.payload, sender=sender, sender_seq=message.seq)
        self._hub.publish(own_topic(message.topic), own)
