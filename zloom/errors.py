"""Every error that zloom raises.

The name says whose fault it was::

    ZloomError
    ├── SettingsError              the caller's options: an address, an interval, a rank
    ├── DeclarationError           the caller's code: a key or command declared wrongly
    ├── CannotSteer                the training: its strategy, module or callbacks forbid the change
    ├── UndoError                  a handler's undo raised: the trainer's state is unknown
    ├── HoldLimitExceeded          ranks could not agree within the limit that was set, or their store is gone
    ├── ProtocolError
    │   ├── LocalProtocolError     this side tried to send what the protocol forbids
    │   └── RemoteProtocolError    the peer sent what the protocol forbids
    │       └── UnknownMessageType a message of a type that this version does not know
    ├── TransportError             a socket could not be opened, bound or used
    ├── BrokerUnreachable          no broker answered within the time-out
    ├── Refused                    the broker refused a request; nothing was changed
    ├── CheckpointFailed           the checkpoint before a change was not saved; nothing was changed
    ├── KeyringError               a key is there already, or nobody has it; nothing was changed
    ├── RecordingError             a recording cannot be written, read, or replayed exactly
    └── JournalError               the broker's journal cannot be used as it is
"""


class ZloomError(Exception):
    """Base class of every error that zloom raises."""


class SettingsError(ZloomError, ValueError):
    """An option has a value that cannot be used; the text names it and what was expected."""


class DeclarationError(ZloomError, TypeError):
    """A key, command or handler is declared in a way that cannot work."""


class CannotSteer(ZloomError):
    """This training cannot do what was asked; the text says why, and what to do instead.

    A handler raises it to refuse: operators see its text as it is, and of any other error its type too.
    """


class UndoError(ZloomError):
    """An undo raised while a rejected update was taken back.

    The trainer may be in a mixed state, so `tick()` raises this rather than to train on.
    """


class HoldLimitExceeded(ZloomError, TimeoutError):
    """A rank waited longer than `hold_limit` to learn what the others decided about a consistent revision.

    Or the store in which they decide has not answered for 5 s, and the revision is one that it can no longer
    leave. It does not guess, so `tick()` raises this rather than to train on.
    """


class ProtocolError(ZloomError):
    """Base class of violations of the protocol."""


class LocalProtocolError(ProtocolError):
    """This side tried to do what the protocol does not allow; a bug in the caller or in zloom."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that is no message of the protocol."""


class UnknownMessageType(RemoteProtocolError):
    """A well-formed message of a type that this version does not know."""


class TransportError(ZloomError):
    """A socket could not be opened, bound, connected or used."""


class BrokerUnreachable(ZloomError):
    """No broker answered within the time-out."""


class Refused(ZloomError):
    """The broker refused a request, and nothing was changed.

    Attributes:
        code: A stable word for programs, such as ``out_of_bounds``; `docs/protocol.md` lists them.
        text: What was wrong, what was expected and what to do, for people.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class CheckpointFailed(ZloomError):
    """The checkpoint before a change was not saved by every replica, so the change was not made.

    Attributes:
        revision: Of the checkpoint; its outcomes say more.
    """

    def __init__(self, revision: int, why: str) -> None:
        super().__init__(f"nothing was changed: checkpoint {revision} was not saved everywhere: {why}")
        self.revision = revision


class KeyringError(ZloomError):
    """A name or a file of the broker's keys is taken, or nobody has that name; nothing was changed."""


class RecordingError(ZloomError):
    """A recording cannot be written, read, or replayed exactly; the text says why."""


class JournalError(ZloomError):
    """The journal is broken, locked by another broker, or could not be written."""
