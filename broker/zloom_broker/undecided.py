"""Changes that only a revision stands against that is being written: they wait for its end. Pure."""

from collections import OrderedDict
from typing import NamedTuple

from zloom.codec import encode
from zloom.messages import Cancel, Rollback, SendCommand, SetConfig
from zloom_broker.attempt import AttemptKey
from zloom_broker.hub import Peer

Change = SetConfig | Rollback | SendCommand | Cancel


class Waiting(NamedTuple):
    """A change that waits, and who asked for it."""

    peer: Peer
    request: Change
    size: int
    """Bytes."""

    @property
    def mark(self) -> tuple[bytes, str]:
        """Return what it is known by: one that is sent again takes the place of the first."""
        return self.peer.id, self.request.id


class Undecided:
    """Those of all attempts, each attempt's in their order."""

    def __init__(self) -> None:
        self._attempts: dict[AttemptKey, OrderedDict[tuple[bytes, str], Waiting]] = {}
        self.size = 0
        """Bytes of all."""

    def add(self, key: AttemptKey, peer: Peer, request: Change) -> None:
        """Have a change wait behind the others."""
        waiting = Waiting(peer, request, len(encode(request)))
        others = self._attempts.setdefault(key, OrderedDict())
        before = others.get(waiting.mark)
        others[waiting.mark] = waiting
        self.size += waiting.size - (before.size if before else 0)

    def take(self, key: AttemptKey) -> Waiting | None:
        """Take the first that waits in an attempt."""
        others = self._attempts.get(key)
        if not others:
            return None
        _, waiting = others.popitem(last=False)
        if not others:
            del self._attempts[key]
        self.size -= waiting.size
        return waiting

    def put_back(self, key: AttemptKey, waiting: Waiting) -> None:
        """Have one that was taken wait before all others."""
        others = self._attempts.setdefault(key, OrderedDict())
        others[waiting.mark] = waiting
        others.move_to_end(waiting.mark, last=False)
        self.size += waiting.size
