"""What an `OperatorSession` asks its shell to do, in order, beside `zloom.effects`."""

from msgspec import Struct

from zloom.client.requests import Answered
from zloom.effects import Connect, Reconnect, Send, Subscribe, Unsubscribe
from zloom.messages import Published


class Connected(Struct, frozen=True):
    """The broker welcomed this peer; `epoch_changed` when it is not the life that welcomed it before.

    `silence` is for how many seconds it had not answered, where a `Silent` came before.
    """

    epoch_changed: bool
    silence: float | None = None


class Silent(Struct, frozen=True):
    """The broker, which once welcomed this peer, has not answered since then; said once until it does."""

    since: float


class Confirmed(Struct, frozen=True):
    """From now on nothing that is published under these topics is missed for being too early."""

    topics: frozenset[bytes]


class Deliver(Struct, frozen=True):
    """A publication came."""

    topic: bytes
    message: Published


class Rejected(Struct, frozen=True):
    """The broker does not take this peer, and will not."""

    code: str
    text: str


class SubscriptionRefused(Struct, frozen=True):
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
    | Silent
    | Confirmed
    | Deliver
    | Answered
    | Rejected
    | SubscriptionRefused
)
