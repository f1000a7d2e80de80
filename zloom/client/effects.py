"""What an `OperatorSession` asks its shell to do, in order, beside `zloom.effects`."""

from dataclasses import dataclass

from zloom.client.requests import Answered
from zloom.effects import Connect, Reconnect, Send, Subscribe, Unsubscribe
from zloom.messages import Published


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


@dataclass(frozen=True, slots=True)
class SubscriptionRefused:
    """The broker publishes nothing of a topic to this peer."""

    topic: bytes
    code: str
    text: str


Effect = (
    Send
    | Reconnect
    | Connect
    | Subscribe
    | Unsubscribe
    | Connected
    | Confirmed
    | Deliver
    | Answered
    | Rejected
    | SubscriptionRefused
)
