"""What `--help` shows of commands.

Plain text, not the boxes of rich: it can be searched, cuts no choice in two, and is there in half the time.
"""

from typing import Any

import typer
from typer.core import TyperGroup

_WHOLE = 1000
"""Characters of a first sentence at most."""


class Group(TyperGroup):
    """A group of commands."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the first sentence of each command, over as many lines as it takes."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, each.get_short_help_str(_WHOLE)) for name, each in commands if each is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def whole(app: typer.Typer) -> None:
    """Have an app, and the apps in it, tell of their commands so; call it when all are there."""
    app.info.cls = Group
    for group in app.registered_groups:
        if group.typer_instance is not None:
            whole(group.typer_instance)
