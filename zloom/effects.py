"""What a peer's pure session asks its shell to do, in order: the part that weavelets and operators share."""

from dataclasses import dataclass

from zloom.messages import ToBroker


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message on control."""

    message: ToBroker


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Close both sockets, unsent mail included, and open control again."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Close the socket of updates if there is one, and open one to this endpoint."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe the socket of updates to a topic."""

    topic: bytes


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Undo one `Subscribe`."""

    topic: bytes
