"""Snapshots of the broker's state: how one comes about beside everything else."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Sequence

from zloom_broker.journal import Journal
from zloom_broker.parts import ImageError
from zloom_broker.records import encode
from zloom_broker.state import State
from zloom_broker.tail import Tail

PACKING_TIME = 0.005
"""Seconds in one turn of the loop for a snapshot that is due: no beat, ping or change waits long for it."""


END_TIME = 0.5
"""Seconds for the last one, of the 2 in which a broker is to be gone."""


class Snapshots:
    """Writes snapshots to a journal on the running loop. Not thread-safe."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._log = logging.getLogger("zloom.broker")
        recovered = journal.recovered
        parts = sum(map(len, recovered.parts.values()))
        rows = sum(len(payload) for _, payload in recovered.rows)
        self._tail = Tail(rows, len(recovered.snapshot or b"") + parts)
        self._submitted: deque[tuple[int, int]] = deque()
        """Of rows that are being written: the number of the last of some, and their bytes."""
        self._newest = recovered.snapshot_seq, set(recovered.parts)
        """Row and digests of the newest snapshot …"""
        self._before = self._newest
        """… and of the one before it."""
        self._failures = journal.counters.snapshot_failures
        self._committed = recovered.last_seq
        self._packing: Iterator[None] | None = None
        """What a snapshot that is due still has to pack."""

    def submitted(self, seq: int, payloads: Sequence[bytes]) -> None:
        """Rows are about to be written, the first of them `seq`."""
        self._submitted.append((seq + len(payloads) - 1, sum(map(len, payloads))))

    def discarded(self, seq: int) -> None:
        """Rows from `seq` on were not written."""
        while self._submitted and self._submitted[-1][0] >= seq:
            self._submitted.pop()

    def committed(self, seq: int, state: State) -> None:
        """Rows were written, and the state took them in; a snapshot of it follows where one is due."""
        self._committed = seq
        while self._submitted and self._submitted[0][0] <= seq:
            self._tail.size += self._submitted.popleft()[1]
        self._look_for_failure()
        if self._packing is None and self._tail.is_long:
            self._packing = state.pack()
            self._loop.call_soon(self._pack, state)

    def end(self, seq: int, state: State) -> None:
        """Write the last one, as of a row, so that a start has none to replay; unless that takes too long."""
        self._committed, self._packing = seq, state.pack()
        self._look_for_failure()
        self._finish(state, self._loop.time() + END_TIME)

    def _pack(self, state: State) -> None:
        """Pack revisions for a moment; the snapshot follows once there are no more."""
        if self._packing is not None and not self._finish(state, self._loop.time() + PACKING_TIME):
            self._loop.call_soon(self._pack, state)

    def _finish(self, state: State, until: float) -> bool:
        """Go on with a snapshot until a time; return whether it is done with, in one way or another."""
        try:
            for _ in self._packing or ():
                if self._loop.time() >= until:
                    return False
            self._write(state)
        except ImageError as error:
            self._put_off(f"it would not hold what the rows do: {error}")
        except Exception:  # noqa: BLE001 - a bug here must not keep all later ones from being taken
            self._log.exception("a snapshot could not be taken")
            self._put_off("see above")
        self._packing = None
        return True

    def _put_off(self, reason: str) -> None:
        self._log.error("no snapshot is written, the rows alone count: %s", reason)
        self._tail.put_off()

    def _write(self, state: State) -> None:
        if self._committed == self._newest[0]:
            return
        payload, parts = encode(state.image()), state.parts()
        sizes = {digest: len(content) for digest, content in parts.items()}
        fresh = sum(size for digest, size in sizes.items() if digest not in self._newest[1])
        self._journal.write_snapshot(self._committed, payload, parts)
        self._tail.snapshot(len(payload) + sum(sizes.values()), len(payload) + fresh)
        self._before, self._newest = self._newest, (self._committed, set(parts))

    def _look_for_failure(self) -> None:
        """Have the rows of the newest snapshot count again where the disk did not take it."""
        if self._newest is self._before or self._journal.snapshot_seq >= self._newest[0]:
            return  # none was taken, or it is written, as nearly always
        counters = self._journal.counters
        if counters.snapshot_failures > self._failures:
            self._failures = counters.snapshot_failures
            self._newest = self._before
            self._tail.failed()
            self._log.error("a snapshot could not be written: %s", counters.snapshot_error)
