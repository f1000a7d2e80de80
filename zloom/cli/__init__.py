"""The command line of zloom; `main` is the console script.

What a command needs beyond typer is imported when the command runs, so that `zloom --help` and the shell's
completion come at once.
"""

import contextlib
import errno
import os
import sys

REPORT_AT = "the issue tracker of zloom"

_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
_NO_THREAD = "can't start new thread"


def main() -> None:
    """Run the command line of this process, and exit with the code that `docs/cli.md` lists."""
    try:
        from zloom.cli.app import app

        app(prog_name="zloom")
    except KeyboardInterrupt:  # before a command has begun, as while this imports
        sys.exit(130)
    except Exception as error:  # the edge of the process: no traceback reaches a user
        if os.environ.get("ZLOOM_TRACEBACK"):
            raise
        _complain(error)
        sys.exit(1)


def _complain(error: Exception) -> None:
    text = f"{type(error).__name__}: {error}"
    if _is_short(error):
        # What else were imported to print this might not come; a loop that is half made complains at its end.
        sys.stderr.write(f"zloom: {text}; this process may have too little of that (see ulimit -a)\n")
        sys.stderr.flush()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(1)
    from zloom.cli.output import complain

    complain(
        f"{text}; this is a bug in zloom: please report it at {REPORT_AT}, with what ZLOOM_TRACEBACK=1 shows"
    )


def _is_short(error: BaseException | None) -> bool:
    """Tell whether the system gave no more descriptors, threads or memory, which is no bug."""
    if error is None:
        return False
    code = error.errno if isinstance(error, OSError) else None
    short = isinstance(error, MemoryError) or code in _SHORT or str(error) == _NO_THREAD
    return short or _is_short(error.__cause__)
