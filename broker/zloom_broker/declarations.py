"""What trainers declare while they train: keys and commands, which count once they are written."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from zloom.messages import Declare, Declared
from zloom.model import Replica
from zloom_broker.departures import Departures
from zloom_broker.greeting import bad_names
from zloom_broker.hub import Hub, Peer
from zloom_broker.records import ReplicaJoined


class Declarations:
    """Writes what weavelets declare after their hello."""

    def __init__(self, hub: Hub, departures: Departures) -> None:
        self._hub = hub
        self._departures = departures
        self._written: dict[str, Replica] = {}
        """What each replica declared last, while that is being written."""
        self._behind: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)

    def under_way(self, replica: str) -> bool:
        """Return whether something that a replica declared is being written."""
        return replica in self._written

    def behind(self, replica: str, action: Callable[[], None]) -> None:
        """Do something now, or once what a replica declared before is written, or cannot be.

        So nobody is told of a step and then refused a key that was declared before it.
        """
        if replica in self._written:
            self._behind[replica].append(action)
        else:
            action()

    def declare(self, peer: Peer, declare: Declare, now: float) -> None:
        """A weavelet's keys and commands changed."""
        if self._departures.under_way(peer.replica):
            self._hub.counters["declarations_too_late"] += 1
            return
        known = self._hub.state.attempts[peer.attempt].replicas[peer.replica]
        replica = replace(known, keys=declare.keys, commands=declare.commands)
        problem = bad_names(replica)
        if problem is not None:
            self._hub.send(peer, problem)
        elif replica == self._written.get(peer.replica, known):
            if replica == known:
                self._hub.send(peer, Declared(seq=declare.seq))
            # Otherwise it is being written; the weavelet asks again.
        elif not self._hub.settings.read_only:
            self._written[peer.replica] = replica
            joined = ReplicaJoined(replica=replica, at=self._hub.wall(now))
            then = partial(self._declared, peer, declare.seq, replica)
            self._hub.commit(joined, then=then, failed=lambda _: self._end(replica))

    def _declared(self, peer: Peer, seq: int, replica: Replica) -> None:
        self._hub.send(peer, Declared(seq=seq))
        self._end(replica)

    def _end(self, replica: Replica) -> None:
        if self._written.get(replica.id) is replica:
            del self._written[replica.id]
            for action in self._behind.pop(replica.id, ()):
                action()
