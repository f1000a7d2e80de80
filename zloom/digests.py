"""Digests by which the values of ranks are compared. Pure."""

import hashlib

from msgspec import msgpack

from zloom.model import Value

BYTES = 6
"""Of a digest: two values share one in 10^14 cases, and any codec has integers of 48 bits."""


def digest(value: Value) -> int:
    """Return a digest of a value; equal values of one type have the same."""
    told = hashlib.blake2b(msgpack.encode(value, order="deterministic"), digest_size=BYTES)
    return int.from_bytes(told.digest())
