"""The command line of zloom; `main` is the console script.

What a command needs beyond typer is imported when the command runs, so that `zloom --help` and the shell's
completion come at once.
"""

import os
import sys

REPORT_AT = "the issue tracker of zloom"


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
        from zloom.cli.output import complain

        complain(
            f"{type(error).__name__}: {error}; this is a bug in zloom: please report it at {REPORT_AT}, with "
            "what ZLOOM_TRACEBACK=1 shows"
        )
        sys.exit(1)
