"""Messages to frames and back, and the names of topics.

On control a message is `[MAGIC, payload]`; on updates it is `[topic, payload]`. The payload is one
MessagePack map. Decoding is typed, so a bomb of arrays or maps is refused before it is allocated.
"""

from typing import Any, Final, Generic, TypeVar, get_args

import msgspec

from zloom.errors import LocalProtocolError, RemoteProtocolError, UnknownMessageType
from zloom.messages import FromBroker, Message, Published, ToBroker

T = TypeVar("T")

MAGIC: Final = b"zloom"
"""First frame of each control message, so that a stray peer of another protocol is told apart."""

MAX_MESSAGE_SIZE: Final = 1024 * 1024
"""Bytes of payload. libzmq closes a connection that exceeds MAXMSGSIZE, so senders check first."""

MAX_EXPLANATION: Final = 300
"""Characters of what a bad message is told: the decoder quotes the sender, at any length."""

BEAT_TOPIC: Final = b"beat/"

_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """Return the payload of a message.

    Raises:
        LocalProtocolError: It is longer than `MAX_MESSAGE_SIZE`, or holds what MessagePack cannot: an
            integer beyond 64 bits, text that is no Unicode, an object of another type.
    """
    try:
        payload = _encoder.encode(message)
    except OverflowError as exc:
        raise LocalProtocolError(f"{type(message).__name__} holds an integer beyond 64 bits") from exc
    except (TypeError, UnicodeEncodeError) as exc:
        raise LocalProtocolError(f"{type(message).__name__} cannot be sent: {exc}") from exc
    if len(payload) > MAX_MESSAGE_SIZE:
        raise LocalProtocolError(
            f"{type(message).__name__} has {len(payload)} bytes; a message has at most {MAX_MESSAGE_SIZE}"
        )
    return payload


class _Tag(msgspec.Struct):
    type: str


class Decoder(Generic[T]):
    """Decodes the messages of one direction, given as a union of their types.

    Thread-safe: it keeps no state between calls.
    """

    def __init__(self, union: Any) -> None:
        self._decoder = msgspec.msgpack.Decoder(union)
        self._types = frozenset(part.__struct_config__.tag for part in get_args(union))

    def decode(self, payload: bytes) -> T:
        """Return the message of a payload.

        Raises:
            UnknownMessageType: The type is not one of this direction.
            RemoteProtocolError: The payload is no message: too long, not MessagePack, a field is
                missing or of the wrong type.
        """
        if len(payload) > MAX_MESSAGE_SIZE:
            raise RemoteProtocolError(f"{len(payload)} bytes; a message has at most {MAX_MESSAGE_SIZE}")
        try:
            message: T = self._decoder.decode(payload)
        # msgspec raises RecursionError on deep nesting and UnicodeDecodeError on text that is no UTF-8.
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
            raise self._explain(payload, exc) from exc
        return message

    def _explain(self, payload: bytes, cause: Exception) -> RemoteProtocolError:
        text = str(cause)[:MAX_EXPLANATION]
        try:
            tag = _tag_decoder.decode(payload).type
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return RemoteProtocolError(f"not a message: {text}")
        if tag not in self._types:
            return UnknownMessageType(f"unknown message type {tag[:64]!r}")
        return RemoteProtocolError(f"bad {tag}: {text}")


_tag_decoder = msgspec.msgpack.Decoder(_Tag)

to_broker: Final[Decoder[ToBroker]] = Decoder(ToBroker)
from_broker: Final[Decoder[FromBroker]] = Decoder(FromBroker)
published: Final[Decoder[Published]] = Decoder(Published)


def is_sendable(text: str) -> bool:
    """Tell whether a message can hold a text; one that Python made of other bytes may be no Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def control_frames(message: Message) -> list[bytes]:
    """Return the frames of a message on control."""
    return [MAGIC, encode(message)]


def control_payload(frames: list[bytes]) -> bytes:
    """Return the payload of a message on control.

    Raises:
        RemoteProtocolError: The frames are not those of a message.
    """
    if len(frames) != 2 or frames[0] != MAGIC:
        raise RemoteProtocolError(f"{len(frames)} frames; expected two, the first being {MAGIC!r}")
    return frames[1]


# Each topic ends in a separator, because a subscription matches by prefix: run `a` is not run `ab`.


def echo_topic(nonce: str) -> bytes:
    """Topic of the echo of one nonce, subscribed as long as its owner lives."""
    return f"echo/{nonce}/".encode()


def steer_topic(run: str, attempt: str) -> bytes:
    """Topic of the revisions of an attempt, for its weavelets."""
    return f"steer/{run}/{attempt}/".encode()


def watch_topic(run: str) -> bytes:
    """Topic of all that happens in a run, for those who watch; an empty run means all runs."""
    return f"watch/{run}/".encode() if run else b"watch/"


def own_topic(topic: str) -> bytes:
    """Topic of a user's own payloads."""
    return b"own/" + topic.encode()
