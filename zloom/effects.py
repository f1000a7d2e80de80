"""What a peer's pure session asks its shell to do, in order: the part that weavelets and operators share."""

from msgspec import Struct

from zloom.messages import ToBroker


class Send(Struct, frozen=True):
    """Send a message on control."""

    message: ToBroker


class Reconnect(Struct, frozen=True):
    """Close both sockets, unsent mail included, and open control again."""


class Connect(Struct, frozen=True):
    """Close the socket of updates if there is one, and open one to this endpoint."""

    endpoint: str


class Subscribe(Struct, frozen=True):
    """Subscribe the socket of updates to a topic."""

    topic: bytes


class Unsubscribe(Struct, frozen=True):
    """Undo one `Subscribe`."""

    topic: bytes
