"""What a start has to read of a journal, and hence when the next snapshot is due. Pure."""

TAIL_LEAST = 512 * 1024
"""Bytes of rows after which a snapshot is due at the earliest …"""

TAIL_SHARE = 0.5
"""… and their share of the snapshot before, …"""

TAIL_MOST = 4 * 1024 * 1024
"""… but no more than these, which a start replays in under half a second, be they many rows or a few with the
outcomes of a thousand replicas."""


class Tail:
    """The rows after the newest snapshot."""

    def __init__(self, size: int, snapshot: int) -> None:
        """Take a journal as a start finds it.

        Args:
            size: Bytes of the rows after its newest snapshot.
            snapshot: Bytes of that, with its parts; 0 where there is none.
        """
        self.size = size
        self._snapshot = snapshot
        self._written = 0
        self._not_before = 0
        self._before = size, snapshot, 0

    def snapshot(self, size: int, written: int) -> None:
        """A snapshot was taken of all rows so far.

        Args:
            size: Its bytes.
            written: How many of them no snapshot before it had.
        """
        self._before = self.size, self._snapshot, self._written
        self.size, self._snapshot, self._written, self._not_before = 0, size, written, 0

    def failed(self) -> None:
        """That snapshot was not written: its rows count again, and it is tried again after some more."""
        size, self._snapshot, self._written = self._before
        self.size += size
        self.put_off()

    def put_off(self) -> None:
        """No snapshot can be taken: it is tried again after some more rows."""
        self._not_before = self.size + TAIL_LEAST

    @property
    def is_long(self) -> bool:
        """Whether the next snapshot is due.

        It is not before the rows have half the bytes that the snapshot before had to write, so that snapshots
        cost in proportion to rows. Half, because it writes again what its rows say: were it all of them, the
        tail would grow by the rest each time. A long history costs little: what of it has not changed is not
        written again.
        """
        most = max(TAIL_MOST, self._written / 2)
        return self.size >= max(TAIL_LEAST, self._not_before, min(TAIL_SHARE * self._snapshot, most))
