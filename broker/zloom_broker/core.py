"""The broker without its sockets: messages in, effects out.

The shell feeds one message, timer or confirmed commit at a time and carries out the effects in order.
Time is the argument `now`, in seconds on any monotonic clock.
"""

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import get_args

from msgspec.structs import replace

from zloom.credit import STREAMED
from zloom.errors import Refused
from zloom.messages import (
    Cancel,
    Confirm,
    Credit,
    Declare,
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
    GetStacks,
    GetStats,
    Goodbye,
    Hello,
    HelloRequired,
    Outcomes,
    Pong,
    Promise,
    Publish,
    Refusal,
    Reported,
    Request,
    RevisionState,
    Rollback,
    SendCommand,
    SetConfig,
    StacksTaken,
    Status,
    Sync,
    ToBroker,
)
from zloom.series import MAX_STATUS_POINTS, points_in
from zloom_broker import outcomes, rules
from zloom_broker.catchup import LogPages, catch_up
from zloom_broker.changes import Changes
from zloom_broker.declarations import Declarations
from zloom_broker.departures import Departures
from zloom_broker.device_troubles import Reactions, Troubles
from zloom_broker.effects import Effect, Send
from zloom_broker.errands import Errands
from zloom_broker.failures import Failures
from zloom_broker.followers import Followers
from zloom_broker.guards import Guards
from zloom_broker.hub import BUG, CoreSettings, Hub, Peer
from zloom_broker.inspection import Inspection
from zloom_broker.membership import Membership
from zloom_broker.newcomers import Newcomers
from zloom_broker.own_topics import OwnTopics
from zloom_broker.permissions import OWNER, Access, check_request
from zloom_broker.pulse import Pulse
from zloom_broker.queries import Queries
from zloom_broker.ramping import failures
from zloom_broker.requests import Requests
from zloom_broker.state import State
from zloom_broker.steering import Steering
from zloom_broker.subscriptions import Subscriptions
from zloom_broker.watchers import concerns

ECHO = b"echo/"

_RECEIVED = {kind: f"received_{kind.__struct_config__.tag}" for kind in get_args(ToBroker)}
"""The counter of each type of message."""

_OF_OPERATORS_TOO = (Pong, Credit, Publish, Goodbye)
"""What is no request and not for weavelets alone."""


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
        self._followers = Followers(self._hub)
        self._outcomes = outcomes.Outcomes(self._hub, self._followers)
        self._failures = Failures(self._hub)
        self._departures = Departures(self._hub, self._followers, self._outcomes, self._failures)
        self._declarations = Declarations(self._hub, self._departures)
        self._membership = Membership(self._hub, self._departures, self._declarations, self._failures)
        self._log_pages = LogPages(settings.epoch)
        self._queries = Queries(self._hub)
        self._inspection = Inspection(self._hub, self._queries)
        requests = Requests(self._hub, self._followers)
        self._steering = Steering(self._hub, self._outcomes, now)
        self._guards = Guards(self._hub, self._outcomes, now)
        self._changes = Changes(
            self._hub,
            requests,
            self._queries,
            self._followers,
            self._outcomes,
            self._steering,
            self._guards,
        )
        self._subscriptions = Subscriptions(self._hub)
        self._own_topics = OwnTopics(self._hub)
        self._newcomers = Newcomers(self._hub, self._changes)
        reactions = Reactions(self._hub, self._changes)
        self._errands = Errands(
            self._hub, requests, self._queries, self._failures, self._membership, reactions.failed
        )
        self._troubles = Troubles(self._hub, self._errands)
        self._pulse = Pulse(self._hub, self._departures, self._failures, now)
        self._pulse.restore(now)

    @property
    def state(self) -> State:
        """The durable state; not to be changed."""
        return self._hub.state

    # --- events ------------------------------------------------------------------------------

    def receive(self, identity: bytes, message: ToBroker, now: float, access: Access = OWNER) -> list[Effect]:
        """Take a message that came on control.

        Args:
            identity: The connection's routing id. Peers choose it, so that it proves nothing.
            message: What came.
            now: Seconds on the monotonic clock.
            access: Who sent it, by his key.
        """
        self._hub.now = now
        peer = self._hub.peers.get(identity)
        self._hub.counters[_RECEIVED[type(message)]] += 1
        if isinstance(message, Hello):
            self._membership.hello(identity, message, access, now)
        elif peer is None or (peer.access is not access and peer.access != access):
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

    def stranger(self, identity: bytes, message: ToBroker) -> list[Effect]:
        """A message came with a key that was good when its sender connected, and is no more."""
        self._hub.counters["strangers"] += 1
        if isinstance(message, Hello):
            text = "this key was revoked; the broker's owner gives out another with `zloom auth add`"
            self._hub.send_unknown(identity, Error(code="unauthenticated", text=text))
        else:
            self._hub.send_unknown(identity, HelloRequired())
        return self._hub.take()

    def revoked(self, users: Collection[str], now: float) -> list[Effect]:
        """The keys of these users were taken from them, or mean something else now."""
        for peer in [each for each in self._hub.peers.values() if each.access.user in users]:
            self._followers.unfollow(peer)
            self._membership.revoke(peer)
        self._membership.revoke_hellos(users)
        # Updates are bound anew, because no other way cuts a subscriber off. A socket that is closed tells
        # the end of no subscription: who dies meanwhile would count as subscribed for ever.
        self._hub.watchers.clear()
        self._subscriptions.clear()
        for replica in self._hub.vitals:
            self._hub.cut_off(replica, now)
        return self._hub.take()

    def failed(self, identity: bytes, message: ToBroker) -> list[Effect]:
        """An exception, which is a bug, ended `receive`: what was decided until then holds; tell the peer."""
        self._hub.counters["internal_errors"] += 1
        if isinstance(message, Request):
            self._hub.send_unknown(identity, Refusal(id=message.id, code="internal_error", text=BUG))
        else:
            self._hub.send_unknown(identity, Error(code="internal_error", text=BUG))
        return self._hub.take()

    def stumbled(self) -> list[Effect]:
        """An exception, which is a bug, ended another event: what was decided until then holds."""
        self._hub.counters["internal_errors"] += 1
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

    def minds(self, topic: bytes) -> bool:
        """Return whether `subscription` has anything to do for a topic: a peer may subscribe millions."""
        return self._hub.settings.secured or topic.startswith(ECHO) or concerns(topic)

    def subscription(
        self, topic: bytes, now: float, *, present: bool, access: Access | None = OWNER
    ) -> list[Effect]:
        """A topic was subscribed, or a subscriber of it is gone.

        Args:
            topic: All that begins so.
            now: Seconds on the monotonic clock.
            present: Whether it was subscribed.
            access: Who did it, by his key; None where that is not known, as when a connection broke.
        """
        if self._hub.settings.secured and not self._subscriptions.take(topic, access, present=present):
            return self._hub.take()
        if concerns(topic):
            self._hub.watchers.take(topic, present=present)
        if topic.startswith(ECHO) and topic.endswith(b"/"):
            nonce = topic[len(ECHO) : -1].decode(errors="replace")
            if present:
                self._hub.publish(topic, Echo(nonce=nonce))
            self._pulse.subscription(nonce, now, present=present)
        return self._hub.take()

    def unroutable(self, identity: bytes, now: float) -> list[Effect]:
        """A message could not be sent, because the peer's connection is closed."""
        peer = self._hub.peers.get(identity)
        if peer is not None:
            self._followers.unfollow(peer)
            self._pulse.unroutable(peer, now)
        return self._hub.take()

    def too_long(self, send: Send) -> list[Effect]:
        """A message could not be sent, because it is longer than a message may be."""
        self._hub.counters["answers_too_long"] += 1
        text = "the answer is longer than a message may be; ask for one run or attempt, or for fewer entries"
        request = getattr(send.message, "id", None)
        if isinstance(request, str) and not isinstance(send.message, RevisionState | Refusal):
            self._hub.send_unknown(send.peer, Refusal(id=request, code="too_large", text=text))
        else:
            self._hub.send_unknown(send.peer, Error(code="too_large", text=text))
        return self._hub.take()

    def end_turn(self) -> list[Effect]:
        """All that came in one turn of the loop was received: what belongs together is written together."""
        self._outcomes.end_turn()
        self._membership.end_turn()
        self._failures.end_turn()
        return self._hub.take()

    def end(self) -> list[Effect]:
        """No more will come: what waits to be written is written now."""
        self._outcomes.write()
        return self._hub.take()

    def committed(self, seq: int, now: float) -> list[Effect]:
        """All records up to `seq` are on disk."""
        self._hub.now = now
        self._hub.committed(seq)
        return self._hub.take()

    def commit_failed(self, seq: int, reason: str, now: float) -> list[Effect]:
        """The record `seq` and all after it were not written."""
        self._hub.now = now
        self._hub.commit_failed(seq, reason)
        return self._hub.take()

    def next_timer(self) -> float:
        """Return when `on_timer` must be called, in the seconds of `now`."""
        return min(
            self._pulse.next_timer(),
            self._followers.next_push(),
            self._steering.next_timer(),
            self._guards.next_timer(),
            self._inspection.next_timer(),
        )

    def numbers(self, now: float) -> tuple[dict[str, int], dict[str, float]]:
        """Return what was counted since the broker began, and the gauges as of now."""
        return self._queries.numbers(now)

    def on_timer(
        self, now: float, wall: float, counters: Mapping[str, int], gauges: Mapping[str, float]
    ) -> list[Effect]:
        """Do what is due.

        Args:
            now: Seconds on the monotonic clock.
            wall: Seconds since the Unix epoch; that clock may be set while the broker runs.
            counters: Of the shell, for those who ask for the broker's numbers.
            gauges: Of the shell, likewise.
        """
        self._hub.wall_offset = wall - now
        self._hub.shell_counters, self._hub.shell_gauges = dict(counters), dict(gauges)
        self._pulse.on_timer(now)
        self._followers.push_due(now)
        self._steering.on_timer(now)
        self._guards.on_timer(now)
        self._inspection.on_timer(now)
        return self._hub.take()

    # --- inside ------------------------------------------------------------------------------

    def _weavelet(self, peer: Peer, message: FromWeavelet, now: float) -> None:
        if not peer.replica and not isinstance(message, _OF_OPERATORS_TOO):
            tag = type(message).__struct_config__.tag
            text = f"{tag} is for weavelets; this connection's hello had the role operator"
            self._hub.send(peer, Error(code="not_allowed", text=text))
            return
        match message:  # what comes most first, as each case that it is not costs time
            case Status():
                # As it comes: what is dropped later, while it waits, is counted there.
                self._hub.count_gap("status_missed", peer.vitals.status_came, message.seq)
                peer.vitals.notice(message, now)
                status = partial(self._status, peer, message, now)
                self._declarations.before_status(peer, message, status, now)
            case Outcomes():
                self._outcomes.receive(peer, message)
            case Pong():
                self._pulse.pong(peer, message)
                self._followers.credited(peer)
            case Credit():
                peer.acknowledge(message.received)
                self._followers.credited(peer)
            case Promise():
                self._steering.promise(peer, message, now)
            case Confirm():
                self._steering.confirm(peer, message, now)
            case Publish():
                self._own_topics.publish(peer, message)
            case Goodbye():
                self._membership.goodbye(peer, partial(self._departures.goodbye, peer, message, now))
            case Sync():
                catch_up(self._hub, self._log_pages, peer, message, now)
                self._steering.synced(peer, now)
            case Declare() if self._membership.is_superseded(peer):
                self._hub.counters["superseded"] += 1
            case Declare():
                self._declarations.declare(peer, message, now)
            case FailureReceived():
                self._failures.received(peer, message)
            case StacksTaken():
                self._inspection.taken(peer, message, now)

    def _request(self, peer: Peer, request: Request, now: float) -> None:
        try:
            if peer.replica:
                raise Refused("not_allowed", "requests are for operators; this connection is a weavelet's")
            check_request(peer.access, request)
            self._answer(peer, request, now)
        except Refused as refused:
            self._hub.refuse(peer, request.id, refused)

    def _answer(self, peer: Peer, request: Request, now: float) -> None:
        match request:
            case SetConfig() | Rollback() | SendCommand() | Cancel():
                self._changes.receive(peer, request, now)
            case Follow():
                self._follow(peer, request, now)
            case FailDevice():
                self._errands.fail_device(peer, request, now)
            case Forget():
                self._errands.forget(peer, request, now)
            case GetStacks():
                self._inspection.ask(peer, request, now)
            case GetHistory() | GetKeys() | GetRuns() | GetReplicas() | GetDevices() | GetStats():
                self._hub.send(peer, self._queries.answer(request, peer.access, now))

    def _follow(self, peer: Peer, request: Follow, now: float) -> None:
        attempt = self._queries.attempt(request, peer.access)
        ledger = rules.named(attempt, request)
        self._followers.follow(peer, request.id, attempt, ledger, now)

    def _status(self, peer: Peer, status: Status, now: float) -> None:
        peer.statuses += 1
        points = points_in(status.metrics)
        if points > MAX_STATUS_POINTS:
            self._hub.counters["metrics_dropped"] += points
            status = replace(status, metrics={})
        if points or not peer.statuses % 2:  # a stream waits for it; without one it is a sign of life
            self._hub.tell_credit(peer, STREAMED // 2)
        before, readings = peer.vitals.status, dict(peer.vitals.devices) if status.devices else {}
        self._hub.counters["metrics_dropped"] += peer.vitals.report(status, now)
        peer.vitals.clock = status.at - self._hub.wall(now) if status.at else None
        attempt = self._hub.state.attempts[peer.attempt]
        replica = attempt.replicas[peer.replica]
        if status.ramps:
            for event in failures(attempt, replica, before, status):
                self._hub.event(event, now)

        def reported() -> Iterator[Reported]:
            seen = self._queries.status(attempt, replica, now)
            yield Reported(status=seen, metrics=status.metrics, devices=status.devices)

        self._hub.report(attempt.run, reported)
        self._guards.status(attempt, peer.replica, status, now)
        if status.devices:
            self._troubles.status(attempt, replica, readings, status, now)
        if status.lacks_config:
            self._newcomers.look(attempt, now)
