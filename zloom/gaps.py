"""Sequence numbers of publications, and how many did not come by those that did. Pure."""

from collections import OrderedDict

from zloom.messages import Echo, Own, Published
from zloom.oldest import forget_oldest

MAX_PLACES = 10_000
"""Topics, and senders on users' own, that are counted: a step in a topic's name must not fill the memory."""


class PublishSeqs:
    """Sequence numbers of what one peer publishes, by topic; topics used longest ago are forgotten."""

    def __init__(self) -> None:
        self._newest = OrderedDict[str, int]()

    def next(self, topic: str) -> int:
        """Return the number of the next publication on a topic, from 1 on."""
        seq = self._newest.pop(topic, 0) + 1
        self._newest[topic] = seq
        forget_oldest(self._newest, MAX_PLACES)
        return seq


class Gaps:
    """Sequence numbers by topic, and on users' own by sender; those heard of longest ago are forgotten."""

    def __init__(self) -> None:
        self._last = OrderedDict[tuple[bytes, str], int]()

    def see(self, topic: bytes, message: Published) -> int:
        """Take note of a publication; return how many before it did not come. The first begins the count."""
        if isinstance(message, Echo):
            return 0
        if isinstance(message, Own):
            place, seq = (topic, message.sender), message.sender_seq
        else:
            place, seq = (topic, ""), message.seq
        missed = seq - self._last.pop(place, seq - 1) - 1
        self._last[place] = seq
        forget_oldest(self._last, MAX_PLACES)
        return max(0, missed)

    def restart(self) -> None:
        """Another life of the broker counts from the beginning."""
        self._last.clear()
