"""Exit codes, which a script can tell a command's end by, and errors as one line beside them.

The broker's side ends like this too, and needs no client: none is imported here.
"""

import contextlib
import enum
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from zloom.cli import output, shapes
from zloom.errors import BrokerUnreachable, SettingsError, TransportError, ZloomError

if TYPE_CHECKING:
    from zloom.client import Result


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
    """Applied on some replicas, and refused by the others or not known of them, as they are lost."""
    PENDING = 5
    """Some replica has not answered, or was lost: it answers if it comes back."""
    UNWRITTEN = 6
    """Stdout could not be written, so that what came of it is not said."""
    INTERRUPTED = 130
    """Ctrl-C, as the shell counts it: 128 and the number of SIGINT."""
    CLOSED = 141
    """Whoever read stdout has closed it, as the shell counts it: 128 and the number of SIGPIPE."""


_OF_ERRORS: tuple[tuple[type[ZloomError], ExitCode], ...] = (
    (BrokerUnreachable, ExitCode.UNREACHABLE),
    (TransportError, ExitCode.UNREACHABLE),
    (SettingsError, ExitCode.USAGE),
    (ZloomError, ExitCode.REFUSED),
)


def of_result(result: "Result") -> ExitCode:
    """Return the code of a change that was accepted."""
    if not result.settled:
        return ExitCode.PENDING
    if result.applied_everywhere:
        return ExitCode.DONE
    if result.applied:
        return ExitCode.PARTLY
    lost = any(outcome.outcome == "lost" for outcome in result.outcomes)
    return ExitCode.PENDING if lost else ExitCode.REFUSED


def of_error(error: ZloomError, *, serving: bool = False) -> ExitCode:
    """Return the code of an error.

    Args:
        serving: On the broker's side a TransportError is an endpoint that cannot be bound, not a broker that
            was not reached.
    """
    if serving and isinstance(error, TransportError):
        return ExitCode.REFUSED
    return next(code for kind, code in _OF_ERRORS if isinstance(error, kind))


@contextlib.contextmanager
def reported(*, as_json: bool, serving: bool = False) -> Iterator[None]:
    """Turn a ZloomError into a line on stderr and an exit code.

    Args:
        as_json: Print it as JSON on stdout too.
        serving: The command is the broker's side, so that no error means that none was reached.
    """
    try:
        yield
    except ZloomError as error:
        output.complain(str(error))
        for line in getattr(error, "__notes__", ()):
            output.remark(line)
        if as_json:
            output.say_json(shapes.of_error(error))
        raise typer.Exit(of_error(error, serving=serving)) from error
