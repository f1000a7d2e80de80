"""What trainers declare while they train: keys and commands, which count once they are written."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from zloom.messages import Declare, Declared
from zloom.model import Replica
from zloom_broker.departures import Departures
from zloom_broker.greeting import bad_names
from zloom_broker.hub import Hub, Peer
from zloom_broker.records import ReplicaJoined


@dataclass(slots=True, eq=False)
class _Writing:
    """A declaration that is being written, and what came behind it."""

    replica: Replica
    behind: list[Callable[[], None]] = field(default_factory=list)


class Declarations:
    """Writes what weavelets declare after their hello."""

    def __init__(self, hub: Hub, departures: Departures) -> None:
        self._hub = hub
        self._departures = departures
        self._writing: dict[str, list[_Writing]] = {}
        """By replica, in their order."""

    def under_way(self, replica: str) -> bool:
        """Return whether something that a replica declared is being written."""
        return replica in self._writing

    def behind(self, replica: str, action: Callable[[], None]) -> None:
        """Do something now, or once what a replica declared before is written, or cannot be.

        So nobody is told of a step and then refused a key that was declared before it.
        """
        if replica in self._writing:
            self._writing[replica][-1].behind.append(action)
        else:
            action()

    def declare(self, peer: Peer, declare: Declare, now: float) -> None:
        """A weavelet's keys and commands changed."""
        if self._departures.under_way(peer.replica):
            self._hub.counters["declarations_too_late"] += 1
            return
        known = self._hub.state.attempts[peer.attempt].replicas[peer.replica]
        writing = self._writing.get(peer.replica)
        newest = writing[-1].replica if writing else known
        replica = replace(known, keys=declare.keys, commands=declare.commands)
        problem = bad_names(replica)
        if problem is not None:
            self._hub.send(peer, problem)
        elif replica == newest:
            if not writing:
                self._hub.send(peer, Declared(seq=declare.seq))
            # Otherwise it is being written; the weavelet asks again.
        elif not self._hub.settings.read_only:
            entry = _Writing(replica)
            self._writing.setdefault(peer.replica, []).append(entry)
            joined = ReplicaJoined(replica=replica, at=self._hub.wall(now))
            then = partial(self._declared, peer, declare.seq, entry)
            self._hub.commit(joined, then=then, failed=lambda _: self._end(entry))

    def _declared(self, peer: Peer, seq: int, entry: _Writing) -> None:
        self._hub.send(peer, Declared(seq=seq))
        self._end(entry)

    def _end(self, entry: _Writing) -> None:
        writing = self._writing[entry.replica.id]
        writing.remove(entry)
        if not writing:
            del self._writing[entry.replica.id]
        failed: list[Exception] = []
        for action in entry.behind:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - a bug in one must not lose a goodbye behind it
                failed.append(error)
        if failed:
            raise failed[0]
