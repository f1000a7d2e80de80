"""Blocks of an attempt's history as snapshots have them: packed; one call reads what is asked of all at once.

What they hold is durable, so the rules of `records` for what may change hold here too.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Self

import msgspec
from msgspec import Struct, field

from zloom.model import GuardEnd, Outcome, Revision
from zloom_broker.records import RevisionAgreed, RevisionConcluded


class LedgerRow(Struct, frozen=True, omit_defaults=True, array_like=True):
    """A ledger in a block, but for its revision."""

    targets: list[str]
    outcomes: list[Outcome]
    request_digest: bytes = b""
    agreed: RevisionAgreed | None = None
    concluded: RevisionConcluded | None = None
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    guard: GuardEnd | None = None


class Rows(Struct, frozen=True, array_like=True):
    """Packed values, one after the other, each of which can be unpacked alone."""

    content: memoryview
    ends: Sequence[int]
    """Where each ends in `content`."""

    @classmethod
    def of(cls, packed: Iterable[bytes]) -> Self:
        """Return values as rows."""
        values = list(packed)
        return cls(memoryview(b"".join(values)), list(accumulate(map(len, values))))

    def __getitem__(self, position: int) -> memoryview:
        """Return one of them, still packed."""
        return self.content[self.ends[position - 1] if position else 0 : self.ends[position]]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.ends)


class Block(Struct, frozen=True, omit_defaults=True):
    """Ledgers that follow each other, and what is asked of all of them, for which none is unpacked."""

    revisions: Rows
    """A `Revision` each: of a fleet, what became of one is a thousand times as long."""
    ledgers: Rows
    """A `LedgerRow` each."""
    requests: dict[str, dict[str, int]]
    """By user and request id, which of them that request made; the first is 0."""
    keys: dict[str, list[int]]
    """The revisions that say something about each key."""
    open: list[int] = field(default_factory=list)
    """Those that are not settled."""
    losses: dict[str, list[int]] = field(default_factory=dict)
    """Those in which each replica was lost."""
    doubtful: list[int] = field(default_factory=list)
    """Those that may turn void; see `Ledger.may_turn_void`."""
    void: list[int] = field(default_factory=list)
    """Those that nobody has applied and nobody will."""
    noted: list[int] = field(default_factory=list)
    """Those that somebody may look for; see `Ledger.noted`."""


_encoder = msgspec.msgpack.Encoder()
_revisions = msgspec.msgpack.Decoder(Revision)
_ledger_rows = msgspec.msgpack.Decoder(LedgerRow)
_blocks = msgspec.msgpack.Decoder(Block)


def pack(value: Revision | LedgerRow | Block) -> bytes:
    """Return a part of a ledger as a block has it, or a block as a snapshot has it."""
    return _encoder.encode(value)


def unpack_revision(packed: memoryview) -> Revision:
    """Return a revision of a block.

    Raises:
        msgspec.DecodeError: It is none that this version knows.
    """
    return _revisions.decode(packed)


def unpack_ledger(packed: memoryview) -> LedgerRow:
    """Return what a block has of a ledger beside its revision.

    Raises:
        msgspec.DecodeError: It is none that this version knows.
    """
    return _ledger_rows.decode(packed)


def unpack_block(payload: bytes) -> Block:
    """Return the block of a payload; its rows are views of that.

    Raises:
        msgspec.DecodeError: It is none that this version knows.
    """
    return _blocks.decode(payload)
