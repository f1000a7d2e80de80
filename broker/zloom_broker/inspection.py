"""What the threads of replicas do: asked of the weavelet, which needs no co-operation of the trainer."""

from dataclasses import dataclass, field
from math import inf

from zloom.errors import Refused
from zloom.messages import GetStacks, StacksTaken, TakeStacks
from zloom.model import ReplicaStatus
from zloom.stacks import of_replica
from zloom_broker.hub import Hub, Peer
from zloom_broker.queries import Queries

PATIENCE = 3.0
"""Seconds that a weavelet may take to answer: as many as until it counts as unresponsive."""


@dataclass(slots=True)
class _Asked:
    id: int
    until: float
    waiting: dict[tuple[bytes, str], Peer] = field(default_factory=dict)
    """Who wants to know, by connection and request id."""


class Inspection:
    """Carries out `GetStacks`. Of each replica one question is under way at a time, whoever asks for it."""

    def __init__(self, hub: Hub, queries: Queries) -> None:
        self._hub = hub
        self._queries = queries
        self._asked: dict[str, _Asked] = {}
        self._next_id = 0

    def ask(self, peer: Peer, request: GetStacks, now: float) -> None:
        """Ask a replica, or say at once why that is no use.

        Raises:
            Refused: There is no such replica, or none that the asker may know of.
        """
        home = self._hub.state.homes.get(request.replica)
        if home is not None and not peer.access.covers(home[0]):
            raise _unknown(request.replica)
        status = self._status(request.replica, now)
        asked = self._asked.get(request.replica)
        weavelet = self._hub.weavelets.get(request.replica)
        if asked is not None:
            asked.waiting[peer.id, request.id] = peer
        elif weavelet is None or status.state in ("unresponsive", "lost", "finished"):
            self._hub.send(peer, of_replica(request.id, status, StacksTaken(id=0, reason=_why(status))))
        else:
            self._next_id += 1
            asked = _Asked(self._next_id, now + PATIENCE, {(peer.id, request.id): peer})
            self._asked[request.replica] = asked
            self._hub.send(weavelet, TakeStacks(id=asked.id))

    def taken(self, weavelet: Peer, message: StacksTaken, now: float) -> None:
        """A replica answered; one that did so too late is no longer waited for."""
        asked = self._asked.get(weavelet.replica)
        if asked is not None and asked.id == message.id:
            self._tell(weavelet.replica, message, now)

    def next_timer(self) -> float:
        """Return when `on_timer` must be called next, or infinity."""
        return min((asked.until for asked in self._asked.values()), default=inf)

    def on_timer(self, now: float) -> None:
        """Give up what was not answered."""
        for replica in [name for name, asked in self._asked.items() if asked.until <= now]:
            reason = f"its weavelet did not answer within {PATIENCE:g} s"
            self._tell(replica, StacksTaken(id=0, reason=reason), now)

    def _tell(self, replica: str, taken: StacksTaken, now: float) -> None:
        asked = self._asked.pop(replica)
        if replica not in self._hub.state.homes:  # forgotten meanwhile, and whoever asks again is told
            return
        status = self._status(replica, now)
        for (_, request), peer in asked.waiting.items():
            self._hub.send(peer, of_replica(request, status, taken))

    def _status(self, name: str, now: float) -> ReplicaStatus:
        home = self._hub.state.homes.get(name)
        if home is None:
            raise _unknown(name)
        attempt = self._hub.state.attempts[home]
        return self._queries.status(attempt, attempt.replicas[name], now)


def _unknown(name: str) -> Refused:
    return Refused("unknown_replica", f"there is no replica {name[:64]!r}; `zloom ps` lists all")


def _why(status: ReplicaStatus) -> str:
    if status.state != "unresponsive":
        return f"it is {status.state}: {status.reason}" if status.reason else f"it is {status.state}"
    since = "" if status.seen is None else f" since {status.seen:.0f} s"
    return f"its weavelet does not answer{since}: the GIL is held, the process stopped, or its host cut off"
