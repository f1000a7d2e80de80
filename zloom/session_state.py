"""The states of a `Session`, what leads from one to the other, its alarms and its counters. Pure."""

import enum
from dataclasses import dataclass

from zloom.errors import LocalProtocolError


class State(enum.Enum):
    """Where a weavelet's conversation with the broker stands."""

    NEW = "new"
    CONNECTING = "connecting"
    """Says hello until it is welcomed."""
    SYNCING = "syncing"
    """Welcomed; asks for what it lacks."""
    ACTIVE = "active"
    """Gets every revision in order."""
    CLOSED = "closed"


class Event(enum.Enum):
    """What moves a session from one state to another."""

    STARTED = enum.auto()
    WELCOMED = enum.auto()
    CAUGHT_UP = enum.auto()
    FELL_BEHIND = enum.auto()
    DISCONNECTED = enum.auto()
    REFUSED = enum.auto()
    LEFT = enum.auto()


_TRANSITIONS = {
    (State.NEW, Event.STARTED): State.CONNECTING,
    (State.NEW, Event.LEFT): State.CLOSED,
    (State.CONNECTING, Event.WELCOMED): State.SYNCING,
    (State.CONNECTING, Event.DISCONNECTED): State.CONNECTING,
    (State.CONNECTING, Event.REFUSED): State.CLOSED,
    (State.CONNECTING, Event.LEFT): State.CLOSED,
    (State.SYNCING, Event.CAUGHT_UP): State.ACTIVE,
    (State.SYNCING, Event.DISCONNECTED): State.CONNECTING,
    (State.SYNCING, Event.LEFT): State.CLOSED,
    (State.ACTIVE, Event.FELL_BEHIND): State.SYNCING,
    (State.ACTIVE, Event.DISCONNECTED): State.CONNECTING,
    (State.ACTIVE, Event.LEFT): State.CLOSED,
}


def following(state: State, event: Event) -> State:
    """Return the state that follows.

    Raises:
        LocalProtocolError: The event cannot happen in that state.
    """
    try:
        return _TRANSITIONS[state, event]
    except KeyError:
        raise LocalProtocolError(f"{event.name} cannot happen in a session that is {state.value}") from None


class Alarm(enum.IntEnum):
    """What a session waits for time to do. A number, because the hash of any other member is Python code."""

    HELLO = enum.auto()
    ECHO = enum.auto()
    SILENCE = enum.auto()
    UNANSWERED = enum.auto()
    SYNC = enum.auto()
    DECLARE = enum.auto()
    OUTCOMES = enum.auto()
    ROUNDS = enum.auto()
    STATUS = enum.auto()
    STREAM = enum.auto()
    STARVED = enum.auto()


class Alarms:
    """At most one time for each alarm."""

    def __init__(self) -> None:
        self._times: dict[Alarm, float] = {}

    def set(self, alarm: Alarm, when: float) -> None:
        """Set an alarm, in place of its earlier time."""
        self._times[alarm] = when

    def hasten(self, alarm: Alarm, when: float) -> None:
        """Set an alarm unless it rings before that anyway."""
        self._times[alarm] = min(when, self._times.get(alarm, when))

    def cancel(self, alarm: Alarm) -> None:
        """Have it not ring."""
        self._times.pop(alarm, None)

    def clear(self) -> None:
        """Have none ring."""
        self._times.clear()

    def next(self) -> float | None:
        """Return when the next one rings, or None."""
        return min(self._times.values(), default=None)

    def take_due(self, now: float) -> Alarm | None:
        """Remove the earliest that rings by now and return it, or None."""
        alarm = min(self._times, key=self._times.__getitem__, default=None)
        if alarm is None or self._times[alarm] > now:
            return None
        del self._times[alarm]
        return alarm


@dataclass(slots=True)
class SessionCounters:
    """What was repeated, dropped or missed since the session began."""

    reconnects: int = 0
    """Times that both sockets were made anew."""
    hellos: int = 0
    syncs: int = 0
    resent: int = 0
    """Outcomes and declarations that were sent once more."""
    missed: int = 0
    """Publications that were sent and did not come."""
    starved: int = 0
    """Times that something had to wait because the broker had not told that it read what came before."""
    publish_dropped: int = 0
    """Payloads for own topics that were not sent."""
    stale: int = 0
    """Messages and answers that came too late to mean anything."""
    bad_messages: int = 0
    """Messages that could not be read."""
    unknown_types: int = 0
    """Messages of a type that this version does not know, or that is not for weavelets."""
    errors: int = 0
    """Complaints of the broker."""
