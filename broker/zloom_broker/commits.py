"""What is on its way to the disk, in the order of its sequence numbers. Pure."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zloom_broker.records import AnyRecord


@dataclass(slots=True)
class PendingCommit:
    """Records that are written, all or none.

    Attributes:
        first: Sequence number of the first; the others follow it.
        records: Of the journal.
        size: Their bytes.
        then: To be called once they are on disk, and the state has them.
        failed: To be called with the reason when they could not be written.
    """

    first: int
    records: Sequence[AnyRecord]
    size: int
    then: Callable[[], None]
    failed: Callable[[str], None]

    @property
    def last(self) -> int:
        """Sequence number of the last record."""
        return self.first + len(self.records) - 1


class Commits:
    """Those that the disk has not answered yet.

    Args:
        last_seq: Sequence number of the last record on disk.
    """

    def __init__(self, last_seq: int) -> None:
        self._pending: deque[PendingCommit] = deque()
        self.next_seq = last_seq + 1
        """Sequence number of the next record."""
        self.size = 0
        """Bytes of all their records."""

    def add(
        self,
        records: Sequence[AnyRecord],
        size: int,
        then: Callable[[], None],
        failed: Callable[[str], None],
    ) -> int:
        """Add one; returns the sequence number of its first record."""
        first = self.next_seq
        self._pending.append(PendingCommit(first, records, size, then, failed))
        self.next_seq += len(records)
        self.size += size
        return first

    def take_written(self, seq: int) -> PendingCommit | None:
        """Take the oldest if all records up to `seq` are on disk and it is among them."""
        if not self._pending or self._pending[0].last > seq:
            return None
        written = self._pending.popleft()
        self.size -= written.size
        return written

    def take_failed(self, seq: int) -> list[PendingCommit]:
        """Take the one of record `seq`, which was not written, and all that came after: they rest on it."""
        failed = [pending for pending in self._pending if pending.last >= seq]
        self._pending = deque(pending for pending in self._pending if pending.last < seq)
        self.next_seq = seq
        self.size -= sum(pending.size for pending in failed)
        return failed
