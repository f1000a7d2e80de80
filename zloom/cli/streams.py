"""What becomes of stdout and stderr where they cannot be written: a disk is full, nobody reads any more."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Unwritten(Exception):
    """Stdout could not be written; the text says why.

    Attributes:
        closed: Whoever read it has closed the pipe, as `head` does when it has enough.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror)
        self.closed = error.errno == errno.EPIPE


@contextmanager
def writing(*, stderr: bool = False) -> Iterator[None]:
    """Write nothing more on a stream that failed meanwhile, and say that stdout did.

    What a command still does is not to fail for a word on stderr, nor for a terminal that was closed.

    Args:
        stderr: It is written, and not stdout.

    Raises:
        Unwritten: Stdout failed, and it is no terminal.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:  # of that file, and not of a stream
            raise
        # Left as it is, what it holds would be written, and fail, once more at the end of the process.
        nowhere = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process
        if stderr:
            sys.stderr = nowhere
            return
        sys.stdout = nowhere
        if error.errno != errno.EIO:
            raise Unwritten(error) from error
