"""What a `Session` asks its shell to do, in order. beside `zloom.effects` and `Restore`."""

from dataclasses import dataclass

from zloom.effects import Connect, Reconnect, Send, Subscribe, Unsubscribe
from zloom.messages import Conclusion, Decision, Failure, Own, Prepare
from zloom.model import Revision
from zloom.restoring import Restore


@dataclass(frozen=True, slots=True)
class Deliver:
    """The next revision of the attempt is here."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class Prepared:
    """A round begins; hand the answer to `Session.insist`."""

    prepare: Prepare


@dataclass(frozen=True, slots=True)
class Decided:
    """It was decided what becomes of a round."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class Concluded:
    """It was decided whether an update is kept."""

    conclusion: Conclusion


@dataclass(frozen=True, slots=True)
class CollectStatus:
    """Collect a status and hand it to `Session.status`.

    Attributes:
        look: Look at the training too. One that only takes more points comes when the training has just let
            go of the interpreter, always at the same place of a step.
    """

    look: bool = True


@dataclass(frozen=True, slots=True)
class InspectThreads:
    """Take the stacks of the trainer's threads and hand them to `Session.stacks` under this id."""

    id: int


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
class Say:
    """Tell the user, each time."""

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
