"""What the core asks its shell to do, in order."""

from msgspec import Struct

from zloom.messages import FromBroker, Published


class Send(Struct, frozen=True):
    """Send a message to one peer on control. An unroutable peer is told back by `Core.unroutable`."""

    peer: bytes
    message: FromBroker


class Publish(Struct, frozen=True):
    """Send a message to all that subscribed to a topic."""

    topic: bytes
    message: Published


class Commit(Struct, frozen=True):
    """Write records, all or none; `Core.committed` or `Core.commit_failed` must follow, in order of `seq`."""

    seq: int
    """Of the first record; the others follow it."""
    payloads: list[bytes]
    durable: bool
    """Fsync before it is confirmed, in every mode of the journal."""


class Admit(Struct, frozen=True):
    """Let the connection that was heard last on updates have a topic, or have it no more.

    To be done before the next subscription is read: XPUB knows no other way to name a connection.
    """

    topic: bytes
    present: bool = True


class Expel(Struct, frozen=True):
    """Take the key of a user from him until the broker is started again, and cut off his subscriptions."""

    user: str
    reason: str


class Tell(Struct, frozen=True):
    """Tell who reads the log of something that nobody watches."""

    run: str
    attempt: str
    kind: str
    text: str


class Bug(Struct, frozen=True):
    """An exception, which is a bug, ended one peer's request, and others are served on: log it."""

    error: Exception


Effect = Send | Publish | Commit | Admit | Expel | Tell | Bug
