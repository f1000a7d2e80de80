"""Who is welcomed: from then on a connection is known as a peer's. Pure."""

from zloom.codec import MAX_MESSAGE_SIZE
from zloom.messages import PROTOCOL, Hello, Welcome
from zloom.model import Replica
from zloom.version import __version__
from zloom_broker.failures import Failures
from zloom_broker.hub import Hub, Peer
from zloom_broker.joins import Greeted, Joins
from zloom_broker.liveness import Vitals


class Welcomes:
    """Welcomes peers, and binds the connection of a weavelet to its replica."""

    def __init__(self, hub: Hub, failures: Failures, joins: Joins) -> None:
        self._hub = hub
        self._failures = failures
        self._joins = joins

    def welcome(self, greeted: Greeted, now: float) -> None:
        """A hello is answered; of a replica, once its registration is on disk."""
        identity, hello, access = greeted
        self._abandon(identity, hello, now)
        peer = Peer(identity, access.user or hello.user, access, nonce=hello.nonce)
        if hello.replica is not None:
            self._bind(peer, hello.replica)
            if self._joins.welcomed(hello.replica.id):
                self._hub.counters["superseded"] += 1
        peer.vitals.connect(now)
        self._hub.peers[identity] = peer
        settings = self._hub.settings
        welcome = Welcome(
            protocol=PROTOCOL,
            epoch=settings.epoch,
            updates=settings.addresses.updates_for(hello.endpoint),
            beat=self._hub.beat,
            credit=settings.credit,
            max_message_size=MAX_MESSAGE_SIZE,
            software=f"zloom {__version__}",
        )
        self._hub.send(peer, welcome)
        if peer.replica:
            self._failures.resend(peer, now)

    def _abandon(self, identity: bytes, hello: Hello, now: float) -> None:
        """A connection that is somebody else's now shows nothing any more of who had it before."""
        before = self._hub.peers.get(identity)
        if (
            before is not None
            and before.replica
            and (hello.replica is None or hello.replica.id != before.replica)
        ):
            self._hub.weavelets.pop(before.replica, None)
            self._hub.cut_off(before.replica, now)  # nobody is found by its nonce any more
            self._hub.miss(before.replica, now, unroutable=True)

    def _bind(self, peer: Peer, replica: Replica) -> None:
        peer.replica, peer.attempt = replica.id, (replica.run, replica.attempt)
        before = self._hub.weavelets.get(replica.id)
        if before is not None:
            self._hub.peers.pop(before.id, None)
        self._hub.weavelets[replica.id] = peer
        peer.vitals = self._hub.vitals.setdefault(replica.id, Vitals())
