"""What a `Session` asks its shell to do, in order, beside `zloom.effects` and `Restore`."""

from msgspec import Struct

from zloom.effects import Connect, Reconnect, Send, Subscribe, Unsubscribe
from zloom.messages import Conclusion, Decision, Failure, Own, Prepare
from zloom.model import Revision
from zloom.restoring import Restore


class Deliver(Struct, frozen=True):
    """The next revision of the attempt is here."""

    revision: Revision


class Prepared(Struct, frozen=True):
    """A round begins; hand the answer to `Session.insist`."""

    prepare: Prepare


class Decided(Struct, frozen=True):
    """It was decided what becomes of a round."""

    decision: Decision


class Concluded(Struct, frozen=True):
    """It was decided whether an update is kept."""

    conclusion: Conclusion


class CollectStatus(Struct, frozen=True):
    """If `Session.may_collect` says so now, collect a status and hand it to `Session.status`.

    What goes out in between may take the last credit, and points that were taken would be lost.

    Attributes:
        look: Look at the training too. One that only takes more points comes when the training has just let
            go of the interpreter, always at the same place of a step.
    """

    look: bool = True


class InspectThreads(Struct, frozen=True):
    """Take the stacks of the trainer's threads and hand them to `Session.stacks` under this id."""

    id: int


class Failed(Struct, frozen=True):
    """Something that this replica must know failed; told once."""

    failure: Failure


class Hand(Struct, frozen=True):
    """A payload came on one of the user's own topics."""

    own: Own


class Warn(Struct, frozen=True):
    """Tell the user, once for each kind of trouble."""

    kind: str
    text: str


class Say(Struct, frozen=True):
    """Tell the user, each time."""

    text: str


class Closed(Struct, frozen=True):
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
    | Prepared
    | Decided
    | Concluded
    | CollectStatus
    | InspectThreads
    | Failed
    | Hand
    | Warn
    | Say
    | Closed
)
