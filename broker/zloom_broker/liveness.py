"""What is known of one replica's life: whether it is there, answers, and gets on.

Two signs tell a dead process from a busy one without filling its queues. Its subscription to its own
echo topic vanishes with the connection, at once when the process dies and after the ZMTP heartbeat when its
host does; and whoever falls silent is pinged, with one ping outstanding at a time. A process that holds the
GIL keeps its subscription, because libzmq's thread answers heartbeats without Python: it is unresponsive,
never lost. Control may break meanwhile. libzmq's thread has it back too, but under another routing id, and so
no ping finds it: only Python can say whose it is.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import TypeVar

from msgspec.structs import replace

from zloom.messages import Status
from zloom.model import MAX_METRIC_NAME, MAX_METRICS, DeviceStatus, State
from zloom.series import Series
from zloom_broker.guard_watch import RecentPoints

MISSED_BEATS = 3
"""Beats without a word, and without an answer to a ping, until a replica counts as unresponsive."""

QUIET_BEATS = 1.5
"""Beats without a word until a replica is pinged whose subscription shows that it is there. Its status comes
each beat, and to ping it all the same would be half of what a fleet at rest costs its broker."""

PROBE_INTERVAL = 0.5
"""Seconds between pings to a replica whose subscription is gone. A ping to a closed connection fails at
once, so a killed process is found out by the next one."""

UNROUTABLE_GRACE = 1.0
"""Seconds at most that an absent replica has to come back on a new connection once its old one is found
closed, never beyond the limit it had: a weavelet that recreates its sockets is not lost. Killed processes are
lost within 2 s all the same."""

SILENT_LIMIT = 1.5
"""Seconds until a replica whose subscription has ended is lost though its connection looks open: a forked
child holds it, it is stopped, or its host is cut off. Heartbeats had no answer for 3 s before that; who lives
and lost that one connection has it back within a second, without Python."""

ABSENT_LIMIT = 6.0
"""Seconds until a replica is lost that was never seen to subscribe, in a broker that was just restarted or
has cut off all subscribers; also from the newest hello on of one that waits for the disk to be welcomed."""

STALL_FACTOR = 10.0
"""A replica is stalled after this many of its own median step times without a step …"""

STALL_FLOOR = 5.0
"""… but not before this many seconds: a status comes only once a second …"""

STALL_BEATS = 3
"""… or, in a large fleet, once a beat that is longer."""


LOOKS = 10
"""Looks at what the training thread does that count, one each status: a change shows within seconds …"""

ENOUGH_LOOKS = 5
"""… and from so many on they say something."""

FASTEST_STEP = 1e-6
"""Seconds. A step takes longer, so that no pace which a replica tells leads to a step beyond all numbers."""

MAX_DEVICES = 64
"""Devices of which the newest status is kept: more than a host has."""

T = TypeVar("T")


@dataclass(slots=True)
class Vitals:
    """The signs of life of one replica. Times are those of `now`, in seconds."""

    absent_since: float | None = None
    """Since when the echo subscription is gone; None while it is there."""
    unroutable: bool = False
    """Control is closed. Who is subscribed all the same lives."""
    subscribed: bool = False
    """The echo subscription was seen, so that its end will be."""
    patience: float = ABSENT_LIMIT
    """Seconds that it may be absent."""
    greeted: float | None = None
    """When it last said a hello that waits for the disk; None once it is welcomed."""
    leaves: bool = False
    """It said goodbye, which waits for the disk."""
    revoked: bool = False
    """Its key was taken from it, and it has said no hello with a good one since."""
    ping_id: int = 0
    ping_sent: float | None = None
    """When the outstanding ping was sent; None when it was answered."""
    heard: float | None = None
    status_came: int | None = None
    """Number of the newest status that came, though it may wait or be dropped."""
    step_came: int | None = None
    """The step in it."""
    status: Status | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """The newest value of each, at most `MAX_METRICS`."""
    recent: RecentPoints = field(default_factory=RecentPoints)
    devices: dict[str, DeviceStatus] = field(default_factory=dict)
    """The newest status of each device, by id, at most `MAX_DEVICES`."""
    troubled: dict[str, frozenset[str]] = field(default_factory=dict)
    """What is the matter with which device, by its id."""
    clock: float | None = None
    """Seconds that its clock is ahead of the broker's, as its newest status tells."""
    reported: float = 0.0
    """When the newest status came."""
    step_changed: float = 0.0
    _waits: bool = False
    """It was no step that passed when the newest status was made."""
    _step_told: float = 0.0
    """When the step of the newest status was first told."""
    _step_took: float = 0.0
    """Seconds a step between the newest two that were told; 0 where the trainer waited meanwhile."""
    _looks: deque[bool] = field(default_factory=lambda: deque(maxlen=LOOKS))
    """Whether the training thread was in a collective."""
    _step_times: deque[float] = field(default_factory=lambda: deque(maxlen=32))

    def hear(self, now: float) -> None:
        """A message came."""
        self.heard = now

    def connect(self, now: float) -> None:
        """The replica said hello on a new connection."""
        self.absent_since, self.unroutable, self.subscribed = None, False, False
        self.ping_sent, self.greeted, self.leaves, self.revoked = None, None, False, False
        self.heard = self.step_changed = now

    def greet(self, now: float) -> None:
        """The replica said a hello that waits for the disk: it lives, on whichever connection."""
        self.greeted = now

    def leave(self) -> None:
        """The replica said a goodbye that waits for the disk: it is no loss that it goes."""
        self.leaves = True

    def notice(self, status: Status, now: float) -> None:
        """A status came, though it may be taken in later: the training gets on, or does not."""
        if status.step != self.step_came:
            self.step_changed = now
        self.status_came, self.step_came = status.seq, status.step

    def subscribe(self) -> None:
        """The echo subscription is there."""
        self.absent_since, self.subscribed = None, True

    def miss(self, now: float, *, unroutable: bool = False) -> None:
        """The echo subscription is gone, or control."""
        closed = unroutable and not self.unroutable
        self.unroutable |= unroutable
        # A pong that is still on its way says nothing about now: the next ping has another id.
        self.ping_id += 1
        self.ping_sent = None
        # A process that dies takes its subscription along. Whoever has that has only lost his control, and
        # says hello once Python runs: at the answer to his next status, or after six beats without any.
        if unroutable and self.subscribed:
            return
        if self.absent_since is None:
            self.absent_since = now
            self.patience = SILENT_LIMIT if self.subscribed else ABSENT_LIMIT
        # From now on, where it is found out now: who was cut off for long makes its sockets anew at last. It
        # never adds to the limit that there was.
        if closed or (self.unroutable and self.subscribed):
            self.patience = min(self.patience, now - self.absent_since + UNROUTABLE_GRACE)
        self.subscribed = False

    def cut_off(self, now: float) -> None:
        """No subscription of before shows anything any more: who lives subscribes again, or says hello."""
        self.subscribed = False
        self.miss(now)

    def pong(self, ping_id: int) -> bool:
        """A ping was answered; return whether it was the newest.

        Then the replica is there, whatever its subscription says.
        """
        if ping_id != self.ping_id:
            return False
        self.ping_sent, self.absent_since, self.unroutable = None, None, False
        return True

    @property
    def away(self) -> bool:
        """Whether nothing that is sent to it arrives, as far as is known."""
        return self.absent_since is not None or self.unroutable

    def ping_due(self, now: float, beat: float, *, news: bool = False) -> bool:
        """Whether a ping should be sent now.

        One is outstanding at a time, unless no subscription would show the end of the connection.

        Args:
            now: Seconds.
            beat: Seconds between two beats.
            news: There is something that only a ping tells.
        """
        if self.unroutable:
            return False
        if self.ping_sent is None:
            return news or not self._speaks(now, beat)
        if self.absent_since is not None:
            return now - self.ping_sent >= PROBE_INTERVAL - 0.01
        return not self.subscribed and now - self.ping_sent >= ABSENT_LIMIT

    def _speaks(self, now: float, beat: float) -> bool:
        there = self.subscribed and self.absent_since is None
        return there and self.heard is not None and now - self.heard < QUIET_BEATS * beat

    def ping(self, now: float) -> int:
        """Note that a ping is sent, and return its id."""
        self.ping_id += 1
        self.ping_sent = now
        return self.ping_id

    def lost_at(self) -> float | None:
        """Return when the replica is lost if nothing is heard of it; None while it is there, or leaves."""
        if self.absent_since is None or self.leaves:
            return None
        lost_at = self.absent_since + self.patience
        return lost_at if self.greeted is None else max(lost_at, self.greeted + ABSENT_LIMIT)

    @property
    def loss(self) -> str:
        """Why it is lost, once it is."""
        if self.revoked:
            return "its key was revoked or changed"
        return "the connection was closed" if self.unroutable else "nothing was heard of it"

    def report(self, status: Status, now: float) -> int:
        """Take in a status; return how many metrics it named, or drove out, beyond what is kept."""
        before, status = self.status, _plausible(status)
        if before is None or status.step != before.step or status.phase != before.phase or status.paused:
            self.step_changed = max(self.step_changed, now)
        if status.step_time is not None:
            self._step_times.append(status.step_time)
        if status.waits is not None:
            self._looks.append(status.waits)
        self.status, self.reported = status, now
        waited, self._waits = self._waits, status.paused or status.holding or status.phase != "training"
        if waited or self._waits or before is None:
            self._step_told, self._step_took = now, 0.0
        elif status.step > before.step:
            self._step_took = (now - self._step_told) / (status.step - before.step)
            self._step_told = now
        if status.devices:
            _keep(self.devices, {device.id: device for device in status.devices}, MAX_DEVICES)
        return self._take(status.metrics) if status.metrics else 0

    def _take(self, metrics: dict[str, Series]) -> int:
        named = {name: series for name, series in metrics.items() if len(name) <= MAX_METRIC_NAME}
        self.recent.take(named)
        newest = {name: series.values[-1] for name, series in named.items() if len(series)}
        return _keep(self.metrics, newest, MAX_METRICS) + len(metrics) - len(named)

    @property
    def waiting(self) -> float | None:
        """Share of the newest looks at which it was in a collective; None before there were some."""
        return sum(self._looks) / len(self._looks) if len(self._looks) >= ENOUGH_LOOKS else None

    @property
    def knows_step(self) -> bool:
        """Whether `step_at` tells more than how far it was a while ago."""
        return self.status is not None and (self._waits or self.status.step_time is not None)

    @property
    def pace(self) -> float | None:
        """Seconds a step; None before it was told.

        What is told is a median of half a minute. Where the newest steps took longer, they count: at the pace
        of before, a few seconds would be taken for thousands of steps.
        """
        if self.status is None or not self.status.step_time:
            return None
        return max(self.status.step_time, self._step_took, self.reported - self._step_told)

    def step_at(self, now: float) -> int:
        """Return about the step that it has reached: the newest that was told, and its pace since then."""
        if self.status is None:
            return 0
        pace = None if self._waits else self.pace
        return self.status.step + (int((now - self.reported) / pace) if pace else 0)

    def pause_left(self, now: float) -> float | None:
        """Return the seconds until its pause ends by itself: as it told, less the time since then."""
        status = self.status
        if status is None or not status.paused or status.pause_left is None:
            return None
        return max(0.0, status.pause_left - (now - self.reported))

    def state(self, now: float, beat: float) -> State:
        """Return the state as operators see it."""
        if self.away:
            return "unresponsive"
        if self.ping_sent is not None:
            silent_since = self.ping_sent if self.heard is None else self.heard
            if now - silent_since > MISSED_BEATS * beat:
                return "unresponsive"
        if self.status is None:
            return "live"
        if self.status.paused:
            return "paused"
        if self.status.holding:
            return "holding"
        if self.status.phase == "training" and self._is_stalled(now - self.step_changed, beat):
            return "stalled"
        return "live"

    def _is_stalled(self, seconds: float, beat: float) -> bool:
        # In this order: the median of a replica that gets on is asked for by nobody.
        enough = seconds > max(STALL_FLOOR, STALL_BEATS * beat) and bool(self._step_times)
        return enough and seconds > STALL_FACTOR * median(self._step_times)


def _plausible(status: Status) -> Status:
    """Return a status with a pace to count with; other numbers that lead too far make no message."""
    if status.step_time is None or status.step_time >= FASTEST_STEP:
        return status
    return replace(status, step_time=FASTEST_STEP)


def _keep(known: dict[str, T], new: dict[str, T], limit: int) -> int:
    """Keep the newest up to a limit; return how many of the oldest had to go."""
    for name, value in new.items():
        known.pop(name, None)  # so that the oldest stands first
        known[name] = value
    surplus = len(known) - limit
    if surplus <= 0:
        return 0
    for name in list(islice(known, surplus)):
        del known[name]
    return surplus
