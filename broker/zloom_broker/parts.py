"""The parts of a snapshot that outlive it: what has not changed since the one before is not written again."""

from collections.abc import Mapping
from hashlib import blake2b

DIGEST_SIZE = 32
"""Bytes: BLAKE2b at 256 bits, so that no two parts share one, by accident or on purpose."""

# BLAKE2's personalisation keeps a part's digest from ever passing for that of a row or of a snapshot.
_PERSON = b"zloom part"

Parts = Mapping[bytes, bytes]
"""The content of each part, by its digest."""


class ImageError(ValueError):
    """An image of the state does not add up to the state that it says it is."""


def part_of(parts: Parts, digest: bytes) -> bytes:
    """Return a part.

    Raises:
        ImageError: It is not there.
    """
    try:
        return parts[digest]
    except KeyError:
        raise ImageError(f"its part {digest.hex()[:16]} is missing") from None


def digest_of_part(content: bytes) -> bytes:
    """Return the digest that a part is known by, and that guards it."""
    return blake2b(content, digest_size=DIGEST_SIZE, person=_PERSON).digest()
