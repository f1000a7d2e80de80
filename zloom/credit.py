"""How many messages may be under way in each direction of one connection. Pure."""

from collections import deque

STREAMED = 4
"""Messages of a kind of which there are many that may be without an answer at a time."""


class CreditMeter:
    """Both sides count what they receive since the hello, and tell each other now and then.

    A queue of libzmq that is full drops or blocks without a word, so no side sends more than `credit`
    messages beyond what the other said that it received.
    """

    def __init__(self) -> None:
        self._limit = 0
        self._sent = self._acked = 0
        self._received = self._told = 0
        self._streamed: deque[int] = deque()
        """Which of those that were sent and are not acknowledged are of a kind of which there are many."""

    def said_hello(self) -> None:
        """A hello was sent: it is the first message that the other side counts."""
        self._sent = self._acked = 1
        self._limit = 0
        self._streamed.clear()

    def welcomed(self, credit: int) -> None:
        """The welcome came: it is the first message that this side counts."""
        self._limit = credit
        self._received = self._told = 1

    def may_send(self) -> bool:
        """Whether another message may be sent."""
        return self._sent - self._acked < self._limit

    def may_stream(self) -> bool:
        """Whether another message of many may be sent: what comes behind it must not wait long."""
        return len(self._streamed) < min(STREAMED, self._limit // 2)

    def sent(self, *, streamed: bool = False) -> None:
        """A message was sent, of a kind of which there are many, or another."""
        self._sent += 1
        if streamed:
            self._streamed.append(self._sent)

    def not_sent(self) -> None:
        """The message that was counted last never left: the other side will not acknowledge it."""
        if self._streamed and self._streamed[-1] == self._sent:
            self._streamed.pop()
        self._sent -= 1

    def received(self) -> None:
        """A message came."""
        self._received += 1

    def acknowledged(self, received: int) -> None:
        """The other side said how many it has received."""
        self._acked = max(self._acked, received)
        while self._streamed and self._streamed[0] <= self._acked:
            self._streamed.popleft()

    def is_due(self) -> bool:
        """Whether it is time to tell the other side how far it was heard."""
        return self._limit > 0 and self._received - self._told >= max(1, self._limit // 4)

    def tell(self) -> int:
        """Return how many messages were received, to be told now."""
        self._told = self._received
        return self._received
