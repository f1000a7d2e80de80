"""The beat: telling everybody that the broker lives, asking everybody whether they do."""

from math import inf

from zloom.codec import BEAT_TOPIC, steer_topic
from zloom.messages import Beat, Ping, Pong
from zloom.model import Event
from zloom_broker.attempt import AttemptKey
from zloom_broker.departures import Departures
from zloom_broker.failures import Failures
from zloom_broker.hub import Hub, Peer
from zloom_broker.liveness import PROBE_INTERVAL, Vitals
from zloom_broker.straggling import Stragglers

SMALL_FLEET = 500
"""Weavelets up to which a beat is as it was set. Each tells its status once a beat, so that with more of them
the beat grows: what a fleet at rest costs its broker stays the same."""

MAX_STRETCH = 5.0
"""How many times as long as it was set a beat becomes at most: what is known of a training is as old."""

MAX_GROWTH = 1.25
"""How many times as long as the one before, or as short, a beat is at most: one who joins while many do was
told a shorter one, and would take a long one for the broker's death; one who speaks once in a long one would
be taken for dead when all others have left at once."""

RECORDED_BEATS = 3
"""Beats between two pings at least where the second does no more than to acknowledge outcomes: half of those
after which a weavelet sends them again."""


def paced(beat: float, weavelets: int) -> float:
    """Return the seconds between two beats of a fleet of so many, `beat` being those of a small one."""
    return beat * min(max(1.0, weavelets / SMALL_FLEET), MAX_STRETCH)


class Pulse:
    """Beats, pings, and the losses that they show."""

    def __init__(self, hub: Hub, departures: Departures, failures: Failures, now: float) -> None:
        self._hub = hub
        self._departures = departures
        self._failures = failures
        self._next_beat = now
        self._stragglers = Stragglers(hub)
        self._stalled: set[str] = set()

    def next_timer(self) -> float:
        """Return when `on_timer` must be called next."""
        return min(self._next_beat, self._hub.look_at)

    def on_timer(self, now: float) -> None:
        """Do what is due."""
        if now >= self._next_beat:
            self._set_pace()
            self._beat(now)
            self._next_beat = max(self._next_beat + self._hub.beat, now)
        if now >= self._hub.look_at:
            self._hub.look_at = inf
            for replica in list(self._hub.absent):
                self._look_after(replica, now)

    def subscription(self, nonce: str, now: float, *, present: bool) -> None:
        """An echo topic was subscribed, or its last subscriber is gone."""
        peer = self._hub.weavelets.of_nonce(nonce)
        if peer is not None and present:
            peer.vitals.subscribe()
        elif peer is not None:
            self._hub.miss(peer.replica, now)
            self._ping(peer, now)

    def unroutable(self, peer: Peer, now: float) -> None:
        """A peer's connection is closed."""
        if not peer.replica:
            self._hub.peers.pop(peer.id, None)
        elif self._hub.weavelets.get(peer.replica) is peer:
            self._hub.miss(peer.replica, now, unroutable=True)

    def pong(self, peer: Peer, message: Pong) -> None:
        """A peer answered a ping; what it has not received of all that was sent before is lost."""
        if peer.vitals.pong(message.id):
            self._hub.counters["lost_to_peers"] += peer.ponged(message.received)
        else:
            peer.acknowledge(message.received)

    def restore(self, now: float) -> None:
        """After a restart nobody is connected: whoever was there has a while to come back."""
        for attempt in self._hub.state.attempts.values():
            for replica in attempt.present():
                self._hub.vitals[replica.id] = Vitals()
                self._hub.miss(replica.id, now)

    def _set_pace(self) -> None:
        wanted, before = paced(self._hub.settings.beat, len(self._hub.weavelets)), self._hub.beat
        self._hub.beat = max(before / MAX_GROWTH, min(wanted, before * MAX_GROWTH))

    def _beat(self, now: float) -> None:
        epoch, beat = self._hub.settings.epoch, self._hub.beat
        self._hub.publish(BEAT_TOPIC, Beat(epoch=epoch, beat=beat))
        for key in self._followed():
            attempt = self._hub.state.attempts.get(key)
            if attempt is not None:
                self._hub.publish(steer_topic(*key), Beat(epoch=epoch, revision=attempt.revision, beat=beat))
        self._departures.retry(now)
        for peer in list(self._hub.peers.values()):
            self._failures.resend(peer, now)
            self._ping(peer, now)
        self._stalled &= self._hub.vitals.keys()
        self._stragglers.look(now)
        for replica, vitals in self._hub.vitals.items():
            self._tell_stall(replica, vitals, now)

    def _followed(self) -> set[AttemptKey]:
        """Return the attempts of all who are here or may come back: a beat of this life of the broker tells
        those that an earlier one knew to say hello."""
        homes = self._hub.state.homes
        return {homes[replica] for replica in self._hub.vitals if replica in homes}

    def _ping(self, peer: Peer, now: float) -> None:
        if peer.vitals.ping_due(now, self._hub.beat, news=self._has_news(peer, now)):
            # Not for credit: it tells both sides what was lost, and so gives credit back.
            recorded = sorted(peer.recorded)
            peer.recorded.clear()
            number, beat = peer.vitals.ping(now), self._hub.beat
            ping = Ping(id=number, received=peer.received, recorded=recorded, beat=beat)
            self._hub.send_anyway(peer, ping)
            peer.told, peer.sent_when_pinged, peer.pinged_at = peer.received, peer.sent, now

    def _has_news(self, peer: Peer, now: float) -> bool:
        """Whether a peer waits for its outcomes to be acknowledged, or may soon be told nothing any more."""
        waits = peer.recorded and now - peer.pinged_at >= RECORDED_BEATS * self._hub.beat
        return bool(waits) or peer.sent - peer.acked >= self._hub.quarter

    def _look_after(self, replica: str, now: float) -> None:
        vitals = self._hub.vitals.get(replica)
        lost_at = vitals.lost_at() if vitals else None
        peer = self._hub.weavelets.get(replica)
        if vitals is None or lost_at is None:
            self._hub.absent.discard(replica)
        elif now >= lost_at:
            self._hub.absent.discard(replica)
            self._departures.lose(replica, vitals.loss, now)
        else:
            if peer is not None:
                self._ping(peer, now)
            self._look_again(vitals, lost_at)

    def _look_again(self, vitals: Vitals, lost_at: float) -> None:
        probing = vitals.ping_sent is not None and not vitals.unroutable
        due = min(lost_at, vitals.ping_sent + PROBE_INTERVAL) if probing and vitals.ping_sent else lost_at
        self._hub.look_at = min(self._hub.look_at, due)

    def _tell_stall(self, replica: str, vitals: Vitals, now: float) -> None:
        state = vitals.state(now, self._hub.beat)
        stalled = state == "stalled"
        # One that does not answer has not recovered, whatever else is the matter with it.
        if stalled == (replica in self._stalled) or state == "unresponsive":
            return
        peer = self._hub.weavelets.get(replica)
        if peer is None:
            return
        self._stalled ^= {replica}
        step = vitals.status.step if vitals.status else 0
        text = f"no step since step {step}" if stalled else f"goes on at step {step}"
        self._hub.event(
            Event("stalled" if stalled else "recovered", *peer.attempt, text=text, replicas=[replica]), now
        )
