"""Telling replicas of failures that concern them, until they say that they heard."""

from dataclasses import dataclass
from typing import Literal

from zloom.messages import Failure, FailureReceived
from zloom.model import Event
from zloom_broker.attempt import Attempt
from zloom_broker.hub import Hub, Peer
from zloom_broker.records import DeviceFailed, ReplicaLeft

RESEND = 1.0
"""Seconds until a failure that was not acknowledged is sent again."""


@dataclass(slots=True)
class _Unheard:
    failure: Failure
    sent: float


class Failures:
    """Failures that replicas have yet to acknowledge. Kept in memory: they are about now."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._next_id = 0
        self._unheard: dict[str, dict[int, _Unheard]] = {}
        self._lost: list[tuple[Attempt, ReplicaLeft]] = []
        """Those of this turn of the loop, of whom the others are not told yet."""

    def device_failed(self, record: DeviceFailed, now: float) -> None:
        """Tell each replica on a device, and those who watch its run, that it failed."""
        for attempt in self._hub.state.attempts.values():
            names = [replica.id for replica in attempt.present() if replica.id in record.replicas]
            failure = self._new("device", device=record.device, reason=record.reason)
            for name in names:
                self._tell(name, failure, now)
            if names:
                text = f"{record.device}: {record.reason or 'no reason given'}"
                event = Event("device_failed", attempt.run, attempt.id, 0.0, text, names, record.device)
                self._hub.event(event, now)

    def replica_left(self, attempt: Attempt, left: ReplicaLeft) -> None:
        """Forget what a replica was to be told; if it was lost, others of its run are told at the turn's end.

        A thousand that are lost together are not told of each other then.
        """
        self._unheard.pop(left.replica, None)
        if left.outcome == "lost":
            self._lost.append((attempt, left))

    def end_turn(self) -> None:
        """Tell those who are still there of those who were lost in this turn of the loop."""
        lost, self._lost = self._lost, []
        for attempt, left in lost:
            rank = attempt.replicas[left.replica].rank
            failure = self._new("replica", replica=left.replica, rank=rank, reason=left.reason)
            for other in attempt.present():
                if other.id != left.replica:  # it may have come back
                    self._tell(other.id, failure, self._hub.now)

    def received(self, peer: Peer, message: FailureReceived) -> None:
        """A replica was told."""
        self._unheard.get(peer.replica, {}).pop(message.id, None)

    def resend(self, peer: Peer, now: float) -> None:
        """Tell a replica again what it has not acknowledged."""
        if peer.replica not in self._unheard:  # as a rule, and asked at each beat
            return
        for unheard in self._unheard[peer.replica].values():
            if now - unheard.sent >= RESEND and self._send(peer, unheard, now):
                self._hub.counters["failures_resent"] += 1

    def _new(
        self,
        kind: Literal["device", "replica"],
        *,
        device: str = "",
        replica: str = "",
        rank: int | None = None,
        reason: str,
    ) -> Failure:
        self._next_id += 1
        return Failure(id=self._next_id, kind=kind, device=device, replica=replica, rank=rank, reason=reason)

    def _tell(self, replica: str, failure: Failure, now: float) -> None:
        unheard = self._unheard.setdefault(replica, {})[failure.id] = _Unheard(failure, -RESEND)
        peer = self._hub.weavelets.get(replica)
        if peer is not None:
            self._send(peer, unheard, now)

    def _send(self, peer: Peer, unheard: _Unheard, now: float) -> bool:
        # Or each of a thousand ranks that die together would be told of each. Who lives is told a bit later.
        if peer.vitals.away:
            return False
        unheard.sent = now
        self._hub.send(peer, unheard.failure)
        return True
