"""Who sent a message, by what libzmq knows of the connection that it came on: no peer can forge that."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

import zmq


@dataclass(frozen=True, slots=True)
class Sender:
    """Of one message.

    Attributes:
        key: What the ZAP handler answered for the connection: the public key in Z85, empty without one.
        is_remote: It came on TCP.
    """

    key: str = ""
    is_remote: bool = False


NOBODY = Sender()
"""A message of this process, or of libzmq itself: an unsubscription because a connection broke."""


def sender_of(frame: zmq.Frame) -> Sender:
    """Return who sent a message, by its last frame."""
    return Sender(_property(frame, "User-Id"), _is_remote(_property(frame, "Peer-Address")))


@lru_cache
def _is_remote(address: str) -> bool:
    """Whether a connection is not one of ipc or inproc: those have the ids of a process, or no address."""
    if not address:
        return False
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return not _OF_PROCESS.fullmatch(address)
    return True


_OF_PROCESS = re.compile(r"[^:]*:\d+:\d+:\d+")
"""Host, which is `localhost`, and the ids of user, group and process."""


def _property(frame: zmq.Frame, name: str) -> str:
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""
