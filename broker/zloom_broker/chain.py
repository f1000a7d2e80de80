"""The digest that binds a revision to all that came before it in its attempt."""

from hashlib import blake2b

import msgspec

from zloom.model import Revision

DIGEST_SIZE = 16
"""Bytes. It tells two histories apart, one of them restored from a backup; it is no defence."""

_encoder = msgspec.msgpack.Encoder()


def chained(revision: Revision, before: bytes) -> Revision:
    """Return a revision with its digest over itself and `before`, the digest of its predecessor."""
    bare = msgspec.structs.replace(revision, chain=b"")
    digest = blake2b(before + _encoder.encode(bare), digest_size=DIGEST_SIZE).digest()
    return msgspec.structs.replace(revision, chain=digest)
