"""What libzmq tells of a handshake, in words that say what to do."""

import pytest
import zmq

from zloom.handshakes import explain

MISMATCH = 0x11000002


@pytest.mark.parametrize(
    ("event", "value", "has_key", "text", "final"),
    [
        (zmq.EVENT_HANDSHAKE_FAILED_AUTH, 400, True, "does not know the key in ZLOOM_KEY", True),
        (zmq.EVENT_HANDSHAKE_FAILED_AUTH, 500, True, "does not know the key in ZLOOM_KEY", False),
        (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, MISMATCH, True, "the broker takes no keys", True),
        (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, MISMATCH, False, "the broker wants a key", True),
        (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, 32, True, "is it the broker that the file", False),
    ],
)
def test_a_failure_says_what_is_wrong(event: int, value: int, has_key: bool, text: str, final: bool) -> None:
    failure = explain(event, value, has_key=has_key)
    assert failure is not None
    assert text in failure.text
    assert failure.final is final


def test_a_broker_that_goes_while_it_is_greeted_is_no_matter_of_keys() -> None:
    assert explain(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, 32, has_key=False) is None
