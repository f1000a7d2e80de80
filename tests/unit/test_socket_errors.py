from __future__ import annotations

import errno

import pytest
import zmq

from zloom.errors import TransportError
from zloom.socket_errors import translated, transport_error


def test_a_known_cause_comes_with_advice() -> None:
    error = transport_error(zmq.ZMQError(errno.EADDRINUSE), "bind", "tcp://127.0.0.1:5555")
    assert str(error) == (
        "cannot bind tcp://127.0.0.1:5555: "
        "another process already listens there; stop it, or use another endpoint"
    )


def test_an_unknown_cause_is_named_by_the_system() -> None:
    error = transport_error(zmq.ZMQError(errno.ENOMEM), "open", "a new sub socket")
    assert str(error) == "cannot open a new sub socket: Cannot allocate memory"


def test_other_exceptions_pass() -> None:
    with pytest.raises(KeyError), translated("bind", "x"):
        raise KeyError("x")


def test_the_cause_is_kept() -> None:
    cause = zmq.ZMQError(errno.EINVAL)
    with pytest.raises(TransportError, match="malformed") as caught, translated("bind", "x"):
        raise cause
    assert caught.value.__cause__ is cause
