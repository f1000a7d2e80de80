"""Messages that wait until a full queue has room again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence


class Outbox:
    """Messages in order for each destination (its lane), bounded for each lane.

    A lane that is stuck neither delays another one nor takes its places.

    Args:
        limit: Messages of one lane.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.lanes: dict[bytes, deque[list[bytes]]] = {}
        """What waits, by lane, only to be read; none is empty. A new message must wait behind its lane's."""
        self._size = 0

    def __len__(self) -> int:
        """Messages held, in all lanes."""
        return self._size

    def put(self, lane: bytes, frames: Sequence[bytes]) -> bool:
        """Hold a message; False when the lane is full."""
        if len(self.lanes.get(lane, ())) >= self._limit:
            return False
        self.lanes.setdefault(lane, deque()).append(list(frames))
        self._size += 1
        return True

    def flush(self, send: Callable[[list[bytes]], bool], attempts: int) -> bool:
        """Offer messages to `send`, at most `attempts` times, the oldest of a lane first.

        Args:
            send: Returns False when there is no room yet: the message stays and its lane's turn is over.
            attempts: Calls of `send`. What they did not reach comes first the next time.

        Returns:
            Whether any message left.
        """
        size = self._size
        for lane in list(self.lanes):
            if attempts <= 0:
                break
            attempts -= self._flush_lane(lane, send, attempts)
        return self._size < size

    def _flush_lane(self, lane: bytes, send: Callable[[list[bytes]], bool], attempts: int) -> int:
        queue = self.lanes.pop(lane)
        made = 0
        try:
            while queue and made < attempts:
                made += 1
                if not send(queue[0]):
                    break
                queue.popleft()
                self._size -= 1
        finally:
            if queue:
                self.lanes[lane] = queue  # again, but behind the lanes that are still to be tried
        return made

    def clear(self) -> int:
        """Forget everything; returns how many messages that were."""
        size, self._size = self._size, 0
        self.lanes.clear()
        return size
