"""What trainers declare while they train: keys and commands, which count once they are written."""

from dataclasses import dataclass, field
from functools import partial
from math import inf

from msgspec.structs import replace

from zloom.codec import watch_topic
from zloom.messages import Declare, Declared, Status
from zloom.model import Replica
from zloom_broker.departures import Departures
from zloom_broker.greeting import bad_names
from zloom_broker.held import Action, Held
from zloom_broker.hub import Hub, Peer
from zloom_broker.records import ReplicaJoined

ANSWER_BEATS = 2
"""Beats from one status that is held and answered to the next: a weavelet that hears nothing for six begins
again."""


@dataclass(slots=True, eq=False)
class _Writing:
    """A declaration that is being written, and what came behind it."""

    newest: Replica
    """As it was declared last: as it is being written, or as it is to be after that."""
    behind: Held = field(default_factory=Held)
    answered: float = -inf
    """When a status that is held was last answered with credit."""


class Declarations:
    """Writes what weavelets declare after their hello, one declaration of a replica at a time.

    What a replica sends behind one waits for it: nobody is told of a step and then refused a key that was
    declared before it, and who leaves or comes back does so in the order in which it said that. A status, a
    declaration and a goodbye are of when they came; who comes back is there from when he is let in.
    """

    def __init__(self, hub: Hub, departures: Departures) -> None:
        self._hub = hub
        self._departures = departures
        self._writing: dict[str, _Writing] = {}

    def before_status(self, peer: Peer, status: Status, take: Action, now: float) -> None:
        """Take a status once what was declared before it is written, or cannot be; or count it as dropped."""
        writing = self._writing.get(peer.replica)
        if writing is None:
            take()
        else:
            late = partial(self._take_late, peer, take)
            self._dropped(peer, writing.behind.status(status, late))
            # A sign of life, as often as otherwise; more credit would have it send more of what is dropped.
            if now - writing.answered >= ANSWER_BEATS * self._hub.beat:
                writing.answered = now
                self._hub.tell_credit(peer, 1)

    def before_goodbye(self, replica: str, action: Action) -> None:
        """Let a replica go now, or once what it declared before is written, or cannot be."""
        writing = self._writing.get(replica)
        if writing is None:
            action()
        else:
            writing.behind.goodbye(action)
            if replica in self._hub.vitals:
                self._hub.vitals[replica].leave()

    def before_hello(self, replica: str, action: Action) -> None:
        """Let a replica come now, or once what was declared of it before is written, or cannot be."""
        writing = self._writing.get(replica)
        if writing is None:
            action()
        else:
            writing.behind.hello(action)

    def drop_hello(self, replica: str) -> None:
        """The hello that waits is worth nothing any more."""
        if replica in self._writing:
            self._writing[replica].behind.drop_hello()

    def declare(self, peer: Peer, declare: Declare, now: float) -> None:
        """A weavelet's keys and commands changed."""
        if self._departures.under_way(peer.replica):
            self._hub.counters["declarations_too_late"] += 1
            return
        known = self._hub.state.attempts[peer.attempt].replicas[peer.replica]
        writing = self._writing.get(peer.replica)
        replica = replace(known, keys=declare.keys, commands=declare.commands)
        problem = bad_names(replica)
        if problem is not None:
            self._hub.send(peer, problem)
        elif writing is not None and writing.behind.comes_back:
            self._hub.counters["superseded"] += 1
        elif writing is not None:
            if replica != writing.newest:  # otherwise the weavelet asks again, until it is written
                writing.newest = replica
                writing.behind.declare(partial(self.declare, peer, declare, now))
        elif replica == known:
            self._hub.send(peer, Declared(seq=declare.seq))
        elif not self._hub.settings.read_only:
            self._write(peer, declare.seq, replica, now)

    def _write(self, peer: Peer, seq: int, replica: Replica, now: float) -> None:
        self._writing[replica.id] = _Writing(replica)
        joined = ReplicaJoined(replica=replica, at=self._hub.wall(now))
        then = partial(self._declared, peer, seq, replica.id)
        self._hub.commit(joined, then=then, failed=lambda _: self._end(replica.id))

    def _declared(self, peer: Peer, seq: int, replica: str) -> None:
        self._hub.send(peer, Declared(seq=seq))
        self._end(replica)

    def _end(self, replica: str) -> None:
        items = self._writing.pop(replica).behind.items
        failed: list[Exception] = []
        for place, item in enumerate(items):
            try:
                item.action()
            except Exception as error:  # noqa: BLE001 - a bug in one must not lose a goodbye behind it
                failed.append(error)
            if replica in self._writing:  # another declaration, which the rest came behind
                self._writing[replica].behind = Held(items[place + 1 :])
                break
        if failed:
            raise failed[0]

    def _take_late(self, peer: Peer, take: Action) -> None:
        current = self._hub.weavelets.get(peer.replica)
        if current is not None and current.id == peer.id:
            take()
        else:  # its key was revoked, or it is back on another connection
            self._dropped(peer, 1)

    def _dropped(self, peer: Peer, count: int) -> None:
        if count:
            self._hub.counters["statuses_dropped"] += count
            self._hub.skip(watch_topic(peer.attempt[0]), count)
