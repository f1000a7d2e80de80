"""The hash chain that ties each row of the journal to all rows before it. Pure."""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

from zloom.errors import JournalError

HASH_SIZE = 32
"""Bytes of each hash: BLAKE2b at 256 bits, so that no two histories share one, by accident or on purpose."""

# BLAKE2's personalisation keeps a row's hash from ever passing for a snapshot's.
_SNAPSHOT_PERSON = b"zloom snapshot"


class ChainBroken(JournalError):
    """A row is missing, damaged, or belongs to another journal."""


class Link(NamedTuple):
    """A place in the chain: the number of a row, and the hash of everything up to and including it."""

    seq: int
    chain: bytes


GENESIS = Link(0, bytes(HASH_SIZE))
"""The link before the first row of a journal."""


def extend(link: Link, payload: bytes) -> Link:
    """Return the link of the row that follows `link` and holds `payload`.

    Its hash is BLAKE2b-256 over the previous hash (32 bytes), the row's number (8 bytes, big-endian) and
    the payload. The first two have fixed sizes, so different inputs never concatenate to the same bytes.
    """
    seq = link.seq + 1
    digest = blake2b(link.chain + seq.to_bytes(8, "big"), digest_size=HASH_SIZE)
    digest.update(payload)
    return Link(seq, digest.digest())


def snapshot_digest(link: Link, payload: bytes, parts: bytes) -> bytes:
    """Return the hash that guards a snapshot of the state as of `link`, with the digests of its parts."""
    digest = blake2b(link.chain + link.seq.to_bytes(8, "big"), digest_size=HASH_SIZE, person=_SNAPSHOT_PERSON)
    digest.update(len(parts).to_bytes(8, "big"))
    digest.update(parts)
    digest.update(payload)
    return digest.digest()


def verified(rows: Iterable[tuple[int, object, object]], start: Link) -> Iterator[tuple[Link, bytes]]:
    """Yield each row (as its link and its payload) for as long as the rows continue the chain.

    Args:
        rows: Number, payload and hash, in the order of their numbers, as read from a disk that may lie.
        start: The link that the first of them must follow.

    Raises:
        ChainBroken: At the first row that does not fit. Nothing after it can be trusted to be complete.
    """
    link = start
    for seq, payload, chain in rows:
        if seq != link.seq + 1:
            raise ChainBroken(f"row {link.seq + 1} is missing; the next one that is there is row {seq}")
        if not isinstance(payload, bytes):
            raise ChainBroken(f"row {seq} is damaged: its payload is no longer bytes")
        link = extend(link, payload)
        if link.chain != chain:
            raise ChainBroken(f"row {seq} is damaged: its hash does not match its content")
        yield link, payload
