"""The text of a failed socket call: which endpoint, what was wrong, what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import zmq

from .errors import TransportError

_ADVICE: dict[int, str] = {
    errno.EADDRINUSE: "another process already listens there; stop it, or use another endpoint",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address; use one that it has, or 127.0.0.1",
    errno.ENODEV: "no such interface or address on this machine; use one that it has, or 127.0.0.1",
    errno.EINVAL: "malformed, or a value that libzmq refuses; write an endpoint as tcp://host:port, "
    "ipc:///path or inproc://name",
    errno.EPROTONOSUPPORT: "unknown transport; use tcp://, ipc:// or inproc://",
    errno.ENAMETOOLONG: "the path is too long for a socket; use a shorter one",
    errno.ENOENT: "there is nothing of that name",
    errno.EACCES: "not permitted; ports below 1024 belong to root, so use a higher one",
    errno.EMFILE: "too many open sockets; give new_context more, or raise the limit (ulimit -n)",
    errno.ENOTSUP: "this kind of socket cannot do that",
    zmq.ETERM: "the context was terminated; close its sockets before",
    errno.ENOTSOCK: "the socket is closed; open a new one",
    zmq.ENOCOMPATPROTO: "that transport does not suit this kind of socket; use tcp://, ipc:// or inproc://",
}


def transport_error(error: zmq.ZMQError, doing: str, endpoint: str) -> TransportError:
    """The TransportError to raise for `error`, met while `doing` something to `endpoint`."""
    number = error.errno or 0
    return TransportError(f"cannot {doing} {endpoint}: {_ADVICE.get(number) or os.strerror(number)}")


@contextlib.contextmanager
def translated(doing: str, endpoint: str) -> Iterator[None]:
    """Turn a ZMQError of the body into a TransportError.

    Raises:
        TransportError: The body raised a ZMQError, which is its cause.
    """
    try:
        yield
    except zmq.ZMQError as error:
        raise transport_error(error, doing, endpoint) from error
