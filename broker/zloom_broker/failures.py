"""Telling replicas of failures that concern them, until they say that they heard."""

from functools import partial

from zloom.messages import Done, FailDevice, Failure, FailureReceived
from zloom.model import Event
from zloom_broker.attempt import Attempt
from zloom_broker.hub import Hub, Peer
from zloom_broker.records import DeviceFailed, ReplicaLeft

RESEND = 1.0
"""Seconds until a failure that was not acknowledged is sent again."""


class Failures:
    """Failures that replicas have yet to acknowledge. Kept in memory: they are about now."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._next_id = 0
        self._unheard: dict[str, dict[int, Failure]] = {}
        self._sent: dict[tuple[str, int], float] = {}
        self.lost: set[str] = set()
        """Replicas that were lost in this life of the broker, so that their return is told as one."""

    def device_failed(self, peer: Peer, request: FailDevice, now: float) -> None:
        """An external monitor says that a device failed: write it down, then tell every replica on it."""
        record = DeviceFailed(
            device=request.device, reason=request.reason, by=peer.user, at=self._hub.wall(now)
        )
        self._hub.commit(record, partial(self._tell_of_device, peer, request, now))

    def _tell_of_device(self, peer: Peer, request: FailDevice, now: float) -> None:
        told = []
        for attempt in self._hub.state.attempts.values():
            on_it = [r for r in attempt.present() if any(d.id == request.device for d in r.devices)]
            for replica in on_it:
                failure = Failure(id=self._id(), kind="device", device=request.device, reason=request.reason)
                self._tell(replica.id, failure, now)
            if on_it:
                names = [replica.id for replica in on_it]
                told += names
                text = f"{request.device}: {request.reason or 'no reason given'}"
                event = Event("device_failed", attempt.run, attempt.id, 0.0, text, names, request.device)
                self._hub.event(event, now)
        self._hub.send(peer, Done(id=request.id, replicas=told))

    def replica_lost(self, attempt: Attempt, left: ReplicaLeft, now: float) -> None:
        """Tell the others of a run that one of them was lost."""
        self.lost.add(left.replica)
        self._unheard.pop(left.replica, None)
        rank = attempt.replicas[left.replica].rank
        for other in attempt.present():
            failure = Failure(
                id=self._id(), kind="replica", replica=left.replica, rank=rank, reason=left.reason
            )
            self._tell(other.id, failure, now)

    def received(self, peer: Peer, message: FailureReceived) -> None:
        """A replica was told."""
        unheard = self._unheard.get(peer.replica, {})
        unheard.pop(message.id, None)
        self._sent.pop((peer.replica, message.id), None)
        if not unheard:
            self._unheard.pop(peer.replica, None)

    def resend(self, peer: Peer, now: float) -> None:
        """Tell a replica again what it has not acknowledged."""
        for number, failure in self._unheard.get(peer.replica, {}).items():
            if now - self._sent.get((peer.replica, number), 0.0) >= RESEND:
                self._hub.counters["failures_resent"] += 1
                self._send(peer, failure, now)

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _tell(self, replica: str, failure: Failure, now: float) -> None:
        self._unheard.setdefault(replica, {})[failure.id] = failure
        peer = self._hub.weavelets.get(replica)
        if peer is not None:
            self._send(peer, failure, now)

    def _send(self, peer: Peer, failure: Failure, now: float) -> None:
        self._sent[peer.replica, failure.id] = now
        self._hub.send(peer, failure)
