"""Snapshots of the broker's state: how one comes about beside everything else."""

import asyncio
from collections.abc import Iterator, Sequence

from zloom_broker.journal import Journal
from zloom_broker.records import encode
from zloom_broker.state import State
from zloom_broker.tail import Tail

PACKING_TIME = 0.005
"""Seconds in one turn of the loop for a snapshot that is due: no beat, ping or change waits long for it."""


class Snapshots:
    """Writes snapshots to a journal on the running loop. Not thread-safe."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        recovered = journal.recovered
        parts = sum(map(len, recovered.parts.values()))
        rows = sum(len(payload) for _, payload in recovered.rows)
        self._tail = Tail(rows, len(recovered.snapshot or b"") + parts)
        self._parts = set(recovered.parts)
        """Digests of those of the newest snapshot."""
        self._seq = recovered.snapshot_seq
        self._committed = recovered.last_seq
        self._packing: Iterator[None] | None = None
        """What a snapshot that is due still has to pack."""

    def submitted(self, payloads: Sequence[bytes]) -> None:
        """Rows are about to be written."""
        self._tail.size += sum(map(len, payloads))

    def committed(self, seq: int, state: State) -> None:
        """Rows were written, and the state took them in; a snapshot of it follows where one is due."""
        self._committed = seq
        if self._packing is None and self._tail.is_long:
            self._packing = state.pack()
            self._loop.call_soon(self._pack, state)

    def end(self, seq: int, state: State) -> None:
        """Write the last one, as of a row, so that a start has none to replay."""
        self._committed, self._packing = seq, None
        for _ in state.pack():
            pass
        self._write(state)

    def _pack(self, state: State) -> None:
        """Pack revisions for a moment; the snapshot follows once there are no more."""
        if self._packing is None:
            return
        until = self._loop.time() + PACKING_TIME
        for _ in self._packing:
            if self._loop.time() >= until:
                self._loop.call_soon(self._pack, state)
                return
        self._packing = None
        self._write(state)

    def _write(self, state: State) -> None:
        if self._committed == self._seq:
            return
        self._seq = self._committed
        payload, parts = encode(state.image()), state.parts()
        sizes = {digest: len(content) for digest, content in parts.items()}
        fresh = sum(size for digest, size in sizes.items() if digest not in self._parts)
        self._tail.snapshot(len(payload) + sum(sizes.values()), len(payload) + fresh)
        self._parts = set(parts)
        self._journal.write_snapshot(self._seq, payload, parts)
