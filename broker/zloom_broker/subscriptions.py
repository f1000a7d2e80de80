"""Who is subscribed to what, where that is checked: each subscription is admitted or not.

XPUB tells of a subscription whose key it came with, and not from which connection. When a connection breaks
it tells what was subscribed there, of refused subscriptions too, and not even whose it was.
"""

from collections import Counter

from zloom_broker.hub import Hub
from zloom_broker.permissions import OWNER, Access, subscription_problem

MAX_BYTES = 2 * 1024 * 1024
"""What one user's subscriptions may take: libzmq keeps each byte of a topic in a node of a tree, some 40
bytes, also of those that are not admitted. A thousand weavelets with one key have half a megabyte."""

OVERHEAD = 32
"""Bytes that a subscription counts for beside its topic."""


class Subscriptions:
    """Admits subscriptions and counts them; not thread-safe."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._holders: dict[bytes, Counter[str]] = {}
        """By topic: how often each user has subscribed to it."""
        self._bytes: Counter[str] = Counter()
        self._present: Counter[bytes] = Counter()
        """Refused ones too: XPUB tells their end as well, which must not count for an admitted one's."""

    def take(self, topic: bytes, access: Access | None, *, present: bool) -> bool:
        """Take what XPUB tells. Returns whether the topic has a subscriber now, or lost its last one."""
        if not present:
            self._hub.admit(topic, present=False)
            self._gone(topic, access)
            return self._leave(topic)
        self._present[topic] += 1
        if access is None:
            return False
        self._count(topic, access)
        problem = subscription_problem(access, topic)
        if problem is not None:
            self._hub.counters["subscriptions_refused"] += 1
            for peer in [each for each in self._hub.peers.values() if each.access == access]:
                self._hub.send(peer, problem)
            return False
        self._hub.admit(topic, present=True)
        return True

    def clear(self) -> None:
        """All connections were closed, and will subscribe again."""
        self._holders.clear()
        self._bytes.clear()
        self._present.clear()

    def _count(self, topic: bytes, access: Access) -> None:
        if access == OWNER:
            return
        self._holders.setdefault(topic, Counter())[access.user] += 1
        before = self._bytes[access.user]
        self._bytes[access.user] = after = before + len(topic) + OVERHEAD
        if before <= MAX_BYTES < after:
            self._hub.counters["subscribers_expelled"] += 1
            self._hub.ask_to_expel(access.user, f"subscriptions of more than {MAX_BYTES} bytes")

    def _gone(self, topic: bytes, access: Access | None) -> None:
        holders = self._holders.get(topic)
        if not holders:
            return
        # Of a topic that many have it may have been another's, and then both counts are off by one: such
        # topics are few, and those of a flood are the flooder's alone.
        user = access.user if access is not None else max(holders, key=lambda each: holders[each])
        if holders[user] > 0:
            holders[user] -= 1
            self._bytes[user] -= len(topic) + OVERHEAD
        if not +holders:
            del self._holders[topic]

    def _leave(self, topic: bytes) -> bool:
        self._present[topic] -= 1
        if self._present[topic] > 0:
            return False
        return self._present.pop(topic) == 0
