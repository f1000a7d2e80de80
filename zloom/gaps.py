"""How many publications did not come, by the sequence numbers of those that did. Pure."""

from collections import OrderedDict

from zloom.messages import Echo, Own, Published
from zloom.oldest import forget_oldest

MAX_PLACES = 10_000
"""Topics, and senders on users' own, that are counted: a step in a topic's name must not fill the memory."""


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
