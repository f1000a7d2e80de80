"""What an `OperatorSession` asks its shell to do, in order."""

from dataclasses import dataclass

from zloom.client.requests import Answered
from zloom.messages import Published, ToBroker


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message on control."""

    message: ToBroker


@dataclass(frozen=True, slots=True)
class Reopen:
    """Close both sockets and open control again."""


@dataclass(frozen=True, slots=True)
class OpenUpdates:
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


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker welcomed this peer; `epoch_changed` when it is not the life that welcomed it before."""

    epoch_changed: bool


@dataclass(frozen=True, slots=True)
class Confirmed:
    """From now on nothing that is published under these topics is missed for being too early."""

    topics: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Deliver:
    """A publication came."""

    topic: bytes
    message: Published


@dataclass(frozen=True, slots=True)
class Rejected:
    """The broker does not take this peer, and will not."""

    code: str
    text: str


Effect = (
    Send
    | Reopen
    | OpenUpdates
    | Subscribe
    | Unsubscribe
    | Connected
    | Confirmed
    | Deliver
    | Answered
    | Rejected
)
