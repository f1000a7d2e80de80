"""What an operator has subscribed, and from when on it misses nothing. Pure: time is the argument `now`."""

from collections import Counter
from collections.abc import Iterator

from zloom.client.effects import Confirmed, Effect
from zloom.codec import BEAT_TOPIC, echo_topic
from zloom.effects import Connect, Subscribe, Unsubscribe

ECHO_TIMEOUT = 1.0
"""Seconds until an echo that did not come is asked for again."""


class Subscriptions:
    """The socket of updates, opened with the first topic.

    A subscription travels to the broker like a message, so what is published at once after it may be missed.
    The nonce topic is therefore subscribed last: its echo tells that all before it have arrived.
    """

    def __init__(self) -> None:
        self._topics: Counter[bytes] = Counter()
        self._waiting: set[bytes] = set()
        """Topics that no echo under way will confirm."""
        self._asked: frozenset[bytes] = frozenset()
        """Topics that the echo under way will confirm."""
        self._echo = b""
        self._nonce = ""
        self._due = 0.0
        self._endpoint = ""
        self._heard = 0.0

    @property
    def open(self) -> bool:
        """Whether there is a socket of updates."""
        return bool(self._endpoint)

    def closed(self) -> None:
        """The socket was closed."""
        self._endpoint, self._echo, self._asked = "", b"", frozenset()

    def add(self, topic: bytes, endpoint: str, now: float) -> list[Effect]:
        """Subscribe to a topic.

        Args:
            endpoint: Of updates; empty while that is not known: `connected` makes up for it.
        """
        self._topics[topic] += 1
        self._waiting.add(topic)
        if not endpoint:
            return []
        if not self.open:
            return list(self._open(endpoint, now))
        return [Subscribe(topic), *self._ask_echo(now)]

    def remove(self, topic: bytes) -> list[Effect]:
        """Undo one `add`."""
        self._topics[topic] -= 1
        if self._topics[topic] == 0:
            del self._topics[topic]
            self._waiting.discard(topic)
        return [Unsubscribe(topic)] if self.open else []

    def connected(self, endpoint: str, nonce: str, now: float) -> list[Effect]:
        """A broker welcomed this peer: have it confirm everything once more."""
        self._nonce = nonce
        if not self._topics and not self.open:
            return []
        self._waiting |= set(self._topics)
        self._asked = frozenset()
        self._heard = now
        return self._ask_echo(now) if self._endpoint == endpoint else list(self._open(endpoint, now))

    def echoed(self, nonce: str, now: float) -> list[Effect]:
        """An echo came."""
        asked = self._asked
        if nonce != self._nonce or not asked:
            return []
        self._asked = frozenset()
        return [Confirmed(asked), *self._ask_echo(now)]

    def heard(self, now: float) -> None:
        """Something came on updates."""
        self._heard = now

    def silent_at(self, patience: float) -> float | None:
        """Return when the broker will have been silent for `patience` seconds; None without a socket."""
        return self._heard + patience if self.open else None

    def next_timer(self) -> float | None:
        """Return when `on_timer` wants to be called, or None."""
        return self._due if self._asked else None

    def on_timer(self, now: float) -> list[Effect]:
        """Ask for the echo again, if it is due."""
        if not self._asked or now < self._due:
            return []
        self._waiting |= self._asked & set(self._topics)
        self._asked = frozenset()
        return self._ask_echo(now)

    def _open(self, endpoint: str, now: float) -> Iterator[Effect]:
        self._endpoint, self._echo, self._heard = endpoint, b"", now
        yield Connect(endpoint)
        yield Subscribe(BEAT_TOPIC)
        for topic in self._topics.elements():
            yield Subscribe(topic)
        yield from self._ask_echo(now)

    def _ask_echo(self, now: float) -> list[Effect]:
        if self._asked or not self._waiting:
            return []
        before: list[Effect] = [Unsubscribe(self._echo)] if self._echo else []
        self._asked, self._waiting = frozenset(self._waiting), set()
        self._echo, self._due = echo_topic(self._nonce), now + ECHO_TIMEOUT
        return [*before, Subscribe(self._echo)]
