"""What a `Session` asks its shell to do, in order. beside `zloom.effects` and `Restore`."""

from dataclasses import dataclass

from zloom.effects import Connect, Reconnect, Send, Subscribe, Unsubscribe
from zloom.mailbox import Restore
from zloom.messages import Failure, Own
from zloom.model import Revision


@dataclass(frozen=True, slots=True)
class Deliver:
    """The next revision of the attempt is here."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class CollectStatus:
    """Collect a status and hand it to `Session.status`."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Something that this replica must know failed; told once."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Hand:
    """A payload came on one of the user's own topics."""

    own: Own


@dataclass(frozen=True, slots=True)
class Warn:
    """Tell the user, once for each kind of trouble."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Closed:
    """Close both sockets for good; with `farewell` there is a goodbye on its way."""

    farewell: bool


Effect = (
    Send
    | Reconnect
    | Connect
    | Subscribe
    | Unsubscribe
    | Deliver
    | Restore
    | CollectStatus
    | Failed
    | Hand
    | Warn
    | Closed
)
