"""What the parts of the core share: peers, effects to be carried out, and commits under way."""

from collections import Counter, OrderedDict, UserDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Literal

import msgspec

from zloom.codec import watch_topic
from zloom.errors import Refused
from zloom.messages import Credit, Echo, FromBroker, Happened, Own, Published, Refusal
from zloom.model import Event
from zloom_broker.addresses import Addresses
from zloom_broker.attempt import AttemptKey
from zloom_broker.commits import Commits
from zloom_broker.effects import Admit, Bug, Commit, Effect, Expel, Publish, Send, Tell
from zloom_broker.liveness import PROBE_INTERVAL, Vitals
from zloom_broker.permissions import OWNER, Access
from zloom_broker.records import AnyRecord, encode
from zloom_broker.state import State
from zloom_broker.users import BROKER_NAME
from zloom_broker.watchers import Watchers

MAX_GAP = 1_000_000
"""Messages that one gap counts for at most: a counter must still fit into a message whatever a peer says."""


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """What the core must know of its shell."""

    epoch: str
    addresses: Addresses = field(default_factory=Addresses)
    """Where control and updates are bound."""
    beat: float = 1.0
    """Seconds between beats as long as the fleet is small: a peer gives up after three, so a broker's death
    shows in 3 s, at the cost of one small message a second and attempt."""
    credit: int = 250
    """Unanswered messages in each direction: a quarter of the high-water mark of 1,000."""
    durable: bool = True
    """Whether config updates are fsynced before they are confirmed."""
    on_device_failure: Literal["notify", "checkpoint", "stop"] = "notify"
    """What a run is made to do when a device fails that it computes on."""
    read_only: str = ""
    """Why the journal cannot be written; empty when it can."""
    secured: bool = False
    """Some peers are known by their keys: each subscription waits until it is admitted."""


@dataclass(slots=True, eq=False)
class Peer:
    """One connection on control, from its hello on."""

    id: bytes
    user: str
    """By his key, else as he calls himself."""
    access: Access = OWNER
    replica: str = ""
    """The replica's id when the peer is a weavelet."""
    attempt: AttemptKey = ("", "")
    nonce: str = ""
    received: int = 1
    """Messages received; the hello is the first."""
    told: int = 1
    """How much of `received` the peer has been told."""
    sent: int = 0
    acked: int = 0
    """How many of `sent` are known to be on their way no more."""
    messages_lost: int = 0
    """How many of `acked` never arrived: the peer's count lags behind by as many for good."""
    sent_when_pinged: int = 0
    """What `sent` was once the newest ping had gone out."""
    pinged_at: float = -inf
    """When that was."""
    synced: bool = False
    """A weavelet was told what it lacked, so its revision numbers mean the same as here."""
    recorded: set[int] = field(default_factory=set)
    """Revisions whose outcomes are on disk, or need not be; the next ping says so, as nobody waits for it."""
    vitals: Vitals = field(default_factory=Vitals)
    """A replica's outlive its connection."""
    statuses: int = 0
    """Statuses that were taken in on this connection."""
    publish_seqs: OrderedDict[str, int] = field(default_factory=OrderedDict)
    revoked: bool = False
    """His key was taken from him: nothing is sent to this connection any more."""

    def acknowledge(self, received: int) -> None:
        """The peer said how many messages it has received."""
        self.acked = max(self.acked, min(received + self.messages_lost, self.sent))

    def ponged(self, received: int) -> int:
        """The peer answered the newest ping, before which everything has arrived or never will.

        Returns:
            How many messages are found to be lost that were not known to be.
        """
        found = max(0, self.sent_when_pinged - received - self.messages_lost)
        self.messages_lost += found
        self.acknowledge(received)
        return found


class Connections(UserDict[str, Peer]):
    """The connection of each replica that has one, by its id; found by nonce too, without a search.

    Anybody may subscribe to any echo topic, as often as he likes.
    """

    def __init__(self) -> None:
        self._by_nonce: dict[str, Peer] = {}
        super().__init__()

    def __setitem__(self, replica: str, peer: Peer) -> None:
        """Remember the connection of a replica, in place of the one before."""
        self._forget_nonce(replica)
        self._by_nonce[peer.nonce] = peer
        super().__setitem__(replica, peer)

    def __delitem__(self, replica: str) -> None:
        """Forget the connection of a replica."""
        self._forget_nonce(replica)
        super().__delitem__(replica)

    def of_nonce(self, nonce: str) -> Peer | None:
        """Return the connection whose hello had this nonce."""
        return self._by_nonce.get(nonce)

    def attempts(self) -> set[AttemptKey]:
        """Return the attempts that have a connection."""
        return {peer.attempt for peer in self.data.values()}

    def _forget_nonce(self, replica: str) -> None:
        before = self.data.get(replica)
        if before is not None and self._by_nonce.get(before.nonce) is before:
            del self._by_nonce[before.nonce]


BROKER = Peer(b"", BROKER_NAME)
"""Who asks when the broker changes something by itself; what it is answered goes nowhere."""


BUG = "the broker failed at this message, which is a bug in it; its log says more"
"""What the sender of a message is told that an exception ended."""


MAX_UNWRITTEN = 32 * 1024 * 1024
"""Bytes that may wait for a disk before no operator's change is taken any more."""


class Hub:
    """Shared by the parts of the core; not thread-safe."""

    def __init__(self, state: State, settings: CoreSettings, last_seq: int) -> None:
        self.state = state
        self.settings = settings
        self.quarter = max(1, settings.credit // 4)
        """Messages after which their sender is told how far it was heard."""
        self.peers: dict[bytes, Peer] = {}
        self.weavelets = Connections()
        """The connection of each replica that has one."""
        self.vitals: dict[str, Vitals] = {}
        """Of each replica that is neither lost nor finished."""
        self.absent: set[str] = set()
        """Replicas that may have to be declared lost, so that a timer need not look at all of them."""
        self.now = 0.0
        """When the newest message came, or what became of the newest commit was told: then goes on what
        waited for that."""
        self.look_at = inf
        """When to look at them next, at the latest: to find that out anew at each message would cost a broker
        that came back to 1,000 weavelets most of its time."""
        self.forgetting: set[AttemptKey] = set()
        """Attempts whose end is being written: nothing may happen to them any more."""
        self.straggling: dict[str, str] = {}
        """Why which replicas make the others of their attempt wait."""
        self.counters: Counter[str] = Counter()
        self.shell_counters: dict[str, int] = {}
        """What sockets and journal counted."""
        self.shell_gauges: dict[str, float] = {}
        """What the shell measures: its queues, its lateness, the disk."""
        self.beat = settings.beat
        """Seconds between the newest beat and the next."""
        self.wall_offset = 0.0
        """Seconds to add to `now` to get the time since the Unix epoch."""
        self._effects: list[Effect] = []
        self._commits = Commits(last_seq)
        self.before_commit: Callable[[], None] = lambda: None
        """Commits what was decided earlier and is still to be written."""
        self._topic_seqs: dict[bytes, int] = {}
        self.watchers = Watchers()

    def take(self) -> list[Effect]:
        """Return the effects so far, and begin anew."""
        effects, self._effects = self._effects, []
        return effects

    # --- messages ----------------------------------------------------------------------------

    def send(self, peer: Peer, message: FromBroker) -> None:
        """Send to a peer as far as its credit goes.

        What is dropped is counted and comes again when its request is resent.
        """
        if peer is BROKER or peer.revoked:
            return
        if self.may_send(peer):
            self.send_anyway(peer, message)
        else:
            self.counters["dropped_for_credit"] += 1

    def may_send(self, peer: Peer) -> bool:
        """Whether a peer has credit for another message."""
        return peer.sent - peer.acked < self.settings.credit

    def send_anyway(self, peer: Peer, message: FromBroker) -> None:
        """Send what may not wait for credit; the other side counts it all the same."""
        peer.sent += 1
        self._effects.append(Send(peer.id, message))

    def tell(self, run: str, attempt: str, kind: str, text: str) -> None:
        """Have a line written to the log."""
        self._effects.append(Tell(run, attempt, kind, text))

    def ask_to_expel(self, user: str, reason: str) -> None:
        """Have a user's key taken from him."""
        self._effects.append(Expel(user, reason))

    def admit(self, topic: bytes, *, present: bool) -> None:
        """Let the connection that was heard last on updates have a topic, or have it no more."""
        self._effects.append(Admit(topic, present))

    def send_unknown(self, identity: bytes, message: FromBroker) -> None:
        """Send to one that is no peer."""
        self._effects.append(Send(identity, message))

    def received(self, peer: Peer) -> None:
        """Count a message of a peer, and tell it now and then how far it was heard."""
        peer.received += 1
        self.tell_credit(peer, self.quarter)

    def tell_credit(self, peer: Peer, beyond: int) -> None:
        """Tell a peer how far it was heard, if that are so many messages more than it knows."""
        if peer.received - peer.told >= beyond:
            peer.told = peer.received
            self.send_anyway(peer, Credit(received=peer.received))

    def refuse(self, peer: Peer, request_id: str, refused: Refused) -> None:
        """Answer a request with its refusal."""
        self.counters["refused"] += 1
        self.send(peer, Refusal(id=request_id, code=refused.code, text=refused.text))

    def stumbled(self, peer: Peer, request_id: str, error: Exception) -> None:
        """Answer a request that an exception ended, which is a bug."""
        self.counters["internal_errors"] += 1
        self._effects.append(Bug(error))
        self.send(peer, Refusal(id=request_id, code="internal_error", text=BUG))

    def check_writable(self) -> None:
        """Raise `Refused` if the journal is read-only."""
        if self.settings.read_only:
            raise Refused("read_only", f"the journal is read-only: {self.settings.read_only}")

    def check_takes_requests(self, beside: int = 0) -> None:
        """Raise `Refused` if the journal is read-only, or so much waits for it that nothing may be added.

        Args:
            beside: Bytes that wait for the disk beside what is being written.
        """
        self.check_writable()
        size = self._commits.size + beside
        if size > MAX_UNWRITTEN:
            text = (
                f"{size >> 20} MiB wait for the disk of the broker already, and it does not keep up; nothing "
                "was changed: ask again once it does; `zloom stats` tells how long its commits take"
            )
            raise Refused("journal_behind", text)

    def miss(self, replica: str, now: float, *, unroutable: bool = False) -> None:
        """A replica's subscription or its whole connection is gone; it may be lost."""
        vitals = self.vitals.get(replica)
        if vitals is not None:
            vitals.miss(now, unroutable=unroutable)
            self._watch(replica, now)

    def cut_off(self, replica: str, now: float) -> None:
        """The end of a replica's subscription will not be told; it may be lost if it does not come back."""
        vitals = self.vitals.get(replica)
        if vitals is not None:
            vitals.cut_off(now)
            self._watch(replica, now)

    def _watch(self, replica: str, now: float) -> None:
        self.absent.add(replica)
        self.look_at = min(self.look_at, now + PROBE_INTERVAL)

    def publish(self, topic: bytes, message: Published) -> None:
        """Publish with the topic's next sequence number."""
        if not isinstance(message, Echo | Own):
            seq = self._topic_seqs[topic] = self._topic_seqs.get(topic, 0) + 1
            message = msgspec.structs.replace(message, seq=seq)
        self._effects.append(Publish(topic, message))

    def report(self, run: str, make: Callable[[], Iterable[Published]]) -> None:
        """Publish what comes often and only those want who watch the run; if nobody does it is not made.

        It is counted all the same: one who was away for a moment is to see that he missed something.
        """
        topic = watch_topic(run)
        if self.watchers.watch(topic):
            for message in make():
                self.publish(topic, message)
        else:
            self.skip(topic, 1)

    def skip(self, topic: bytes, count: int) -> None:
        """Count what will never be published as if it had been: who watches sees that it is missing."""
        self._topic_seqs[topic] = self._topic_seqs.get(topic, 0) + count

    def event(self, event: Event, now: float) -> None:
        """Tell those who watch that something happened."""
        event = msgspec.structs.replace(event, at=self.wall(now))
        self.publish(watch_topic(event.run), Happened(event=event))

    def wall(self, now: float) -> float:
        """Return the time since the Unix epoch."""
        return now + self.wall_offset

    def count_gap(self, counter: str, before: int | None, seq: int) -> None:
        """Count what did not arrive between two messages that their sender numbered."""
        if before is not None and seq > before + 1:
            self.counters[counter] += min(seq - before - 1, MAX_GAP)

    # --- commits -----------------------------------------------------------------------------

    def commit(
        self,
        *records: AnyRecord,
        then: Callable[[], None] = lambda: None,
        failed: Callable[[str], None] = lambda reason: None,
        durable: bool = True,
    ) -> None:
        """Write records, all or none.

        Args:
            records: Taken in by the state once they are on disk, and not before.
            then: Called after that.
            failed: Called with the reason when they could not be written.
            durable: Fsync even where the journal is buffered.
        """
        self.before_commit()
        payloads = [encode(record) for record in records]  # what raises here leaves nothing behind
        first = self._commits.add(records, sum(map(len, payloads)), then, failed)
        self._effects.append(Commit(first, payloads, durable))

    def committed(self, seq: int) -> None:
        """All records up to `seq` are on disk."""
        while (written := self._commits.take_written(seq)) is not None:
            for record in written.records:
                self.state.apply(record)
            written.then()

    def commit_failed(self, seq: int, reason: str) -> None:
        """The record `seq` was not written, and so none that came after: they rest on it."""
        failed = self._commits.take_failed(seq)
        self.counters["commits_failed"] += 1
        for pending in failed:
            pending.failed(reason)
