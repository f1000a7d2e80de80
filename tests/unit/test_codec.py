"""What is no message is refused, quickly and by name; what is one is not."""

import sys
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.message_strategies import ALL, SIDES, messages
from zloom import codec
from zloom.codec import MAGIC, MAX_MESSAGE_SIZE, control_frames, control_payload, to_broker
from zloom.errors import LocalProtocolError, RemoteProtocolError, UnknownMessageType
from zloom.messages import Goodbye, Pong, Publish, SetConfig
from zloom.model import Schema
from zloom_broker.validation import check

CHANGE = {"type": "set_config", "id": "1", "run": "a"}
HUGE = 2**32 - 1


def pack(content: object) -> bytes:
    """Return MessagePack as another codec writes it."""
    payload: bytes = msgpack.packb(content)
    return payload


def change_of(value: bytes) -> bytes:
    """Return a `set_config` whose key `k` has a value that no encoder would write."""
    return b"\x84" + pack(CHANGE)[1:] + b"\xa7changes\x81\xa1k" + value


def declaration_of(schema: bytes) -> bytes:
    """Return a `declare` of one key whose schema no encoder would write."""
    start = pack({"type": "declare", "seq": 1, "commands": []})
    return b"\x84" + start[1:] + b"\xa4keys\x91\x82\xa4name\xa1k\xa6schema" + schema


BOMBS = {
    "arrays": b"\x91" * 100_000,
    "maps": b"\x81\xa1a" * 100_000,
    "an array of 2^32-1": b"\xdd" + HUGE.to_bytes(4, "big"),
    "a map of 2^32-1": b"\xdf" + HUGE.to_bytes(4, "big"),
    "text of 2^32-1 bytes": b"\xdb" + HUGE.to_bytes(4, "big"),
    "changes of 2^32-1 keys": b"\x84" + pack(CHANGE)[1:] + b"\xa7changes\xdf" + HUGE.to_bytes(4, "big"),
    "a value of arrays": change_of(b"\x91" * 100_000),
    "a value of maps": change_of(b"\x81\xa1a" * 100_000),
    "a value of 2^32-1 items": change_of(b"\xdd" + HUGE.to_bytes(4, "big")),
    "an unknown field of arrays": b"\x82\xa4type\xa7goodbye\xa1x" + b"\x91" * 100_000,
    "an unknown field of maps": b"\x82\xa4type\xa7goodbye\xa1x" + b"\x81\xa1a" * 100_000,
    "a schema of 20,000 items": declaration_of(b"\x82\xa4type\x91\xa5array\xa5items" * 20_000),
    "a schema of 20,000 properties": declaration_of(
        b"\x82\xa4type\x91\xa6object\xaaproperties\x81\xa1a" * 20_000
    ),
    "a schema of 100 items": declaration_of(
        b"\x82\xa4type\x91\xa5array\xa5items" * 100 + b"\x81\xa4type\x91\xa5array"
    ),
}


@pytest.mark.parametrize("payload", BOMBS.values(), ids=list(BOMBS))
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.fault("abuse: MessagePack bombs", "told")
def test_a_bomb_is_refused(side: str, payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        getattr(codec, side).decode(payload)
    assert len(str(caught.value)) < 400


@given(depth=st.integers(1, 5000), stack=st.integers(0, 600))
@settings(max_examples=50)
def test_no_depth_is_between_what_can_be_read_and_what_is_refused(depth: int, stack: int) -> None:
    payload = declaration_of(b"\x82\xa4type\x91\xa5array\xa5items" * depth + b"\x81\xa4type\x91\xa5array")

    def deeper(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        else:
            to_broker.decode(payload)

    if depth < 4:
        deeper(min(stack, sys.getrecursionlimit() // 2))
    else:
        with pytest.raises(RemoteProtocolError):
            deeper(min(stack, sys.getrecursionlimit() // 2))


@pytest.mark.parametrize(("side", "kind"), ALL, ids=[f"{side}-{kind.__name__}" for side, kind in ALL])
@given(data=st.data())
@settings(max_examples=5)
def test_a_message_that_was_cut_off_is_refused(side: str, kind: Any, data: st.DataObject) -> None:
    payload = codec.encode(data.draw(messages(kind)))
    with pytest.raises(RemoteProtocolError):
        getattr(codec, side).decode(payload[: data.draw(st.integers(0, len(payload) - 1))])


@given(payload=st.binary(max_size=200), side=st.sampled_from(sorted(SIDES)))
def test_noise_is_a_message_or_refused(payload: bytes, side: str) -> None:
    try:
        getattr(codec, side).decode(payload)
    except RemoteProtocolError as error:
        assert str(error)  # noqa: PT017 - any other error fails the test


NO_MESSAGES = {
    "nothing": b"",
    "nil": b"\xc0",
    "a list": pack([1]),
    "no type": b"\x80",
    "a number for a type": pack({"type": 1}),
    "text that is no UTF-8": b"\x81\xa4type\xa4\xff\xff\xff\xff",
    "two messages": pack({"type": "goodbye"}) * 2,
    "a field that is missing": pack({"type": "pong", "id": 1}),
    "a field of another type": pack({"type": "pong", "id": "1", "received": 1}),
    "a whole number that is none": pack({"type": "pong", "id": 1.0, "received": 1}),
    "bytes for a value": change_of(b"\xc4\x01x"),
    "an extension for a value": change_of(b"\xd4\x05x"),
    "a time for a value": change_of(b"\xd6\xff\0\0\0\0"),
    "text for a revision": pack({"type": "outcomes", "epoch": "", "outcomes": {"1": {"replica": "r"}}}),
}


@pytest.mark.parametrize("payload", NO_MESSAGES.values(), ids=list(NO_MESSAGES))
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        to_broker.decode(payload)
    assert not isinstance(caught.value, UnknownMessageType)


def test_a_bad_message_is_told_what_is_bad() -> None:
    with pytest.raises(RemoteProtocolError, match=r"bad pong: .*`received`"):
        to_broker.decode(pack({"type": "pong", "id": 1}))


def test_a_sender_is_not_quoted_at_length() -> None:
    hello = {"type": "hello", "protocols": [1], "role": "x" * 100_000}
    with pytest.raises(RemoteProtocolError, match="bad hello") as caught:
        to_broker.decode(pack(hello))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["of_a_newer_version", "welcome", "x" * 1000])
def test_a_type_that_is_not_of_this_side_is_told_apart(name: str) -> None:
    with pytest.raises(UnknownMessageType, match=name[:64]):
        to_broker.decode(pack({"type": name, "field": 1}))


def test_the_order_of_fields_does_not_matter() -> None:
    assert to_broker.decode(pack({"received": 2, "id": 1, "type": "pong"})) == Pong(id=1, received=2)


# --- size ------------------------------------------------------------------------------------------


def publication(size: int) -> Publish:
    """Return a message whose payload has `size` bytes."""
    around = len(codec.encode(Publish(topic="t", payload=bytes(100_000), seq=1))) - 100_000
    return Publish(topic="t", payload=bytes(size - around), seq=1)


def test_the_largest_message_comes_back() -> None:
    message = publication(MAX_MESSAGE_SIZE)
    payload = codec.encode(message)
    assert len(payload) == MAX_MESSAGE_SIZE
    assert to_broker.decode(payload) == message


def test_one_byte_more_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError, match=r"Publish has 1048577 bytes; .* at most 1048576"):
        codec.encode(publication(MAX_MESSAGE_SIZE + 1))


def test_one_byte_more_is_not_read() -> None:
    payload = pack({"type": "publish", "topic": "t", "payload": bytes(MAX_MESSAGE_SIZE), "seq": 1})
    with pytest.raises(RemoteProtocolError, match="at most 1048576"):
        to_broker.decode(payload)


# --- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
def test_a_whole_number_of_64_bits_comes_back(number: int) -> None:
    message = SetConfig(id="1", run="a", changes={"k": number})
    assert to_broker.decode(codec.encode(message)) == message


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_a_whole_number_beyond_64_bits_is_not_sent(number: int) -> None:
    with pytest.raises(LocalProtocolError, match="beyond 64 bits"):
        codec.encode(SetConfig(id="1", run="a", changes={"k": number}))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_read_and_then_refused_by_the_broker(number: float) -> None:
    for value, schema in ((number, Schema(["number"])), ([number], Schema(["array"]))):
        message = to_broker.decode(pack(CHANGE | {"changes": {"k": value}}))
        assert isinstance(message, SetConfig)
        refusal = check(message.changes["k"], schema)
        assert refusal is not None
        assert refusal[0] == "bad_value"


STATUS = {"type": "status", "seq": 1, "step": 5}
HARMFUL: list[tuple[str, dict[str, Any]]] = [
    *(("to_broker", STATUS | {"step_time": seconds}) for seconds in (0.0, -1.0, 5e-324, 1e308, float("nan"))),
    *(("to_broker", STATUS | {"step": step}) for step in (-1, 2**53 + 1, 2**64 - 1)),
    ("to_broker", {"type": "pong", "id": 1, "received": -(2**63)}),
    ("to_broker", {"type": "goodbye", "step": 2**63}),
    ("to_broker", {"type": "outcomes", "epoch": "", "outcomes": {1: {"replica": "r", "step": -1}}}),
    *(("from_broker", {"type": "wait", "reason": "", "retry": retry}) for retry in (0.0, -1.0, float("nan"))),
]


@pytest.mark.parametrize(("side", "content"), HARMFUL, ids=range(len(HARMFUL)))
def test_a_number_that_would_harm_whoever_computes_with_it_is_refused(
    side: str, content: dict[str, Any]
) -> None:
    with pytest.raises(RemoteProtocolError, match=r"Expected `(int|float)` [<>]= .* at"):
        getattr(codec, side).decode(pack(content))


# --- frames ----------------------------------------------------------------------------------------


def test_a_message_on_control_has_two_frames() -> None:
    frames = control_frames(Goodbye())
    assert frames == [b"zloom", codec.encode(Goodbye())]
    assert control_payload(frames) == frames[1]


@pytest.mark.parametrize(
    "frames", [[], [MAGIC], [b"", b""], [b"ZLOOM", b""], [MAGIC, b"", b""], [b"", MAGIC, b""]]
)
def test_other_frames_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{len(frames)} frames; expected two"):
        control_payload(frames)


# --- topics ----------------------------------------------------------------------------------------


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+@:-]{0,5}", fullmatch=True)


@given(one=NAMES, other=NAMES, attempt=NAMES)
def test_no_run_hears_what_is_meant_for_another(one: str, other: str, attempt: str) -> None:
    for longer in (other, one + other):
        if longer != one:
            assert not codec.steer_topic(longer, attempt).startswith(codec.steer_topic(one, attempt))
            assert not codec.steer_topic(attempt, longer).startswith(codec.steer_topic(attempt, one))
            assert not codec.watch_topic(longer).startswith(codec.watch_topic(one))
            assert not codec.echo_topic(longer).startswith(codec.echo_topic(one))


def test_topics() -> None:
    assert codec.BEAT_TOPIC == b"beat/"
    assert codec.echo_topic("n") == b"echo/n/"
    assert codec.steer_topic("run", "attempt") == b"steer/run/attempt/"
    assert codec.watch_topic("run") == b"watch/run/"
    assert codec.own_topic("net/bandwidth/") == b"own/net/bandwidth/"


def test_who_watches_all_runs_hears_each() -> None:
    assert codec.watch_topic("any").startswith(codec.watch_topic(""))
