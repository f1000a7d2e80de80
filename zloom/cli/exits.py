"""Exit codes: what a script can tell from a command without reading its output."""

import enum

from zloom.client.results import Result
from zloom.errors import BrokerUnreachable, SettingsError, TransportError, ZloomError


class ExitCode(enum.IntEnum):
    """Codes of all commands."""

    DONE = 0
    """Applied everywhere; for commands that change nothing: done."""
    REFUSED = 1
    """Refused, or applied nowhere: nothing was changed."""
    USAGE = 2
    """Wrong usage."""
    UNREACHABLE = 3
    """No broker was reached."""
    PARTLY = 4
    """Applied on some replicas, and it will not be on the others."""
    PENDING = 5
    """Some replica has not answered."""
    INTERRUPTED = 130
    """Ctrl-C, as the shell counts it: 128 and the number of SIGINT."""


_OF_ERRORS: tuple[tuple[type[ZloomError], ExitCode], ...] = (
    (BrokerUnreachable, ExitCode.UNREACHABLE),
    (TransportError, ExitCode.UNREACHABLE),
    (SettingsError, ExitCode.USAGE),
    (ZloomError, ExitCode.REFUSED),
)


def of_result(result: Result) -> ExitCode:
    """Return the code of a change that was accepted."""
    if not result.settled:
        return ExitCode.PENDING
    if result.applied_everywhere:
        return ExitCode.DONE
    return ExitCode.PARTLY if result.applied else ExitCode.REFUSED


def of_error(error: ZloomError, *, serving: bool = False) -> ExitCode:
    """Return the code of an error.

    Args:
        serving: On the broker's side a TransportError is an endpoint that cannot be bound, not a broker that
            was not reached.
    """
    if serving and isinstance(error, TransportError):
        return ExitCode.REFUSED
    return next(code for kind, code in _OF_ERRORS if isinstance(error, kind))
