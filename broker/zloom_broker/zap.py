"""ZAP, the question that libzmq asks at each handshake: may this key connect? ZeroMQ's RFC 27. Pure."""

from collections.abc import Callable, Sequence

ENDPOINT = "inproc://zeromq.zap.01"
"""Where libzmq asks, in each context."""

_VERSION = b"1.0"

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

_FRAMES = 9
"""Of a request on a ROUTER by CURVE: identity, delimiter, version, request id, domain, address, routing id,
mechanism, public key."""


def answer(request: Sequence[bytes], knows: Callable[[str], bool]) -> tuple[list[bytes], bool]:
    """Return the frames of the answer, and whether the peer is admitted.

    The user id that libzmq puts to each message of the peer is its public key, not a name: a name may be
    given out again, with another key.

    Args:
        request: The frames, the first being the routing id.
        knows: Whether a public key, in Z85, is one of a user.
    """
    key = z85(request[8]) if len(request) == _FRAMES and request[7] == b"CURVE" else ""
    admitted = bool(key) and request[2] == _VERSION and knows(key)
    status, text = (b"200", b"OK") if admitted else (b"400", b"unknown key")
    user = key.encode() if admitted else b""
    return [*request[:2], _VERSION, *request[3:4], status, text, user, b""], admitted


def z85(raw: bytes) -> str:
    """Return a key as text; empty unless it has a multiple of four bytes."""
    if len(raw) % 4:
        return ""
    words = [int.from_bytes(raw[start : start + 4]) for start in range(0, len(raw), 4)]
    return "".join(_Z85[word // 85**power % 85] for word in words for power in (4, 3, 2, 1, 0))
