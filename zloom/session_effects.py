"""What a `Session` asks its shell to do, in order. `zloom.mailbox.Restore` is one of them too."""

from dataclasses import dataclass

from zloom.mailbox import Restore
from zloom.messages import Failure, FromWeavelet, Own
from zloom.model import Revision


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message on control."""

    message: FromWeavelet


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
