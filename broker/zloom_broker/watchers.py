"""Which runs somebody watches, so that what nobody does is not even made. Pure."""

from zloom.codec import watch_topic

EVERYTHING = watch_topic("")
"""What the topics begin with of all that is watched."""

MAX_TOPICS = 100_000
"""Subscriptions from which on everything counts as watched: one peer may make millions."""


def concerns(topic: bytes) -> bool:
    """Whether who subscribes to a topic watches anything; a subscription holds for all that begins so."""
    return topic.startswith(EVERYTHING) or EVERYTHING.startswith(topic)


class Watchers:
    """The subscriptions of all who watch, as far as XPUB tells of them; not thread-safe."""

    def __init__(self) -> None:
        self._topics: set[bytes] = set()
        self._many = False

    def take(self, topic: bytes, *, present: bool) -> None:
        """A topic has a subscriber, or has lost its last one."""
        if not present:
            self._topics.discard(topic)
        elif len(self._topics) < MAX_TOPICS:
            self._topics.add(topic)
        else:
            self._many = True

    def clear(self) -> None:
        """All connections were closed, and will subscribe again."""
        self._topics.clear()
        self._many = False

    def watch(self, topic: bytes) -> bool:
        """Whether somebody would get what is published on a topic."""
        if self._many or not self._topics:
            return self._many
        return any(topic[:length] in self._topics for length in range(len(topic) + 1))
