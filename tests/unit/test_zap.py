"""The question of ZAP: whoever is not known is refused, and so is what is not understood."""

import pytest
import zmq
from zmq.utils import z85 as reference

from zloom_broker.zap import answer, z85

PUBLIC, _ = zmq.curve_keypair()
RAW = reference.decode(PUBLIC)
REQUEST = [b"id", b"", b"1.0", b"7", b"zloom", b"127.0.0.1", b"", b"CURVE", RAW]


def test_a_key_is_written_as_libzmq_writes_it() -> None:
    assert z85(RAW) == PUBLIC.decode()
    assert z85(b"abc") == ""


def test_a_known_key_is_the_user_id_of_its_peer() -> None:
    reply, admitted = answer(REQUEST, {PUBLIC.decode()}.__contains__)
    assert admitted
    assert reply == [b"id", b"", b"1.0", b"7", b"200", b"OK", PUBLIC, b""]


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST[:8],
        [*REQUEST, b"more"],
        [*REQUEST[:7], b"PLAIN", RAW],
        [*REQUEST[:7], b"NULL"],
        [*REQUEST[:2], b"2.0", *REQUEST[3:]],
        [*REQUEST[:8], b"short"],
        [b"id"],
        [],
    ],
)
def test_what_is_not_understood_is_refused(request_: list[bytes]) -> None:
    reply, admitted = answer(request_, lambda key: True)
    assert not admitted
    assert b"200" not in reply


def test_an_unknown_key_is_refused() -> None:
    reply, admitted = answer(REQUEST, lambda key: False)
    assert not admitted
    assert reply[4:] == [b"400", b"unknown key", b"", b""]
