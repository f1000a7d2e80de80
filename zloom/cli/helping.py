"""What `--help` shows of commands, and what is said of words that are none of theirs.

Plain text, not the boxes of rich: it can be searched, cuts no choice in two, and is there in half the time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from zloom.cli import streams

_WHOLE = 1000
"""Characters of a first sentence at most."""

_UsageError: Any = typer.BadParameter.__base__  # which typer does not export


class Command(TyperCommand):
    """A command."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage; a name in upper case needs no braces to be one."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words behind the command; `--help` among them writes."""
        with streams.writing():
            return super().parse_args(ctx, args)


class Group(TyperGroup):
    """A group of commands."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the first sentence of each command, over as many lines as it takes, below its heading."""
        commands: list[tuple[str, Any]] = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        column = max(len(name) for name, _ in commands)  # one for all, whatever stands below each heading
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, each in sorted(commands, key=lambda command: isinstance(command[1], TyperGroup)):
            rows = panels.setdefault(each.rich_help_panel or "Commands", [])
            rows.append((name.ljust(column), each.get_short_help_str(_WHOLE)))
        for heading, rows in panels.items():
            with formatter.section(heading):
                formatter.write_dl(rows)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words before the command; `--help` and `--version` among them write."""
        with streams.writing():
            return super().parse_args(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the words before the command; those that are wrong end the process."""
        with _misuse_told(), _unwritten_told():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Read the other words and carry the command out; words that are wrong end the process."""
        with _misuse_told(), _unwritten_told():
            return super().invoke(ctx)


@contextmanager
def under(app: typer.Typer, heading: str) -> Iterator[None]:
    """Have the commands that an app is given meanwhile stand under a heading."""
    commands, groups = len(app.registered_commands), len(app.registered_groups)
    yield
    for command in app.registered_commands[commands:]:
        command.rich_help_panel = heading
    for group in app.registered_groups[groups:]:
        group.rich_help_panel = heading


def whole(app: typer.Typer) -> None:
    """Have an app, and the apps in it, tell of their commands so; call it when all are there."""
    app.info.cls = Group
    for command in app.registered_commands:
        command.cls = Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            whole(group.typer_instance)


AFTER_COMMANDS = ("--broker", "--timeout", "--json")
"""Options of most commands, which are none of `zloom` itself."""


@contextmanager
def _misuse_told() -> Iterator[None]:
    """Say of wrong usage what any error is said like, and where there is more, instead of typer's way."""
    try:
        yield
    except _UsageError as error:
        if error.ctx is not None and error.message == error.ctx.get_help():
            raise  # no words at all: what it shows is that help
        from zloom.cli import output
        from zloom.cli.exits import ExitCode

        output.complain(_in_a_sentence(error.format_message()))
        command = "zloom" if error.ctx is None else error.ctx.command_path
        option = getattr(error, "option_name", "")
        if command == "zloom" and option in AFTER_COMMANDS:
            output.remark(f"{option} stands behind a command: `zloom ps {option} …`")
        else:
            output.remark(f"`{command} --help` says what it takes")
        raise typer.Exit(ExitCode.USAGE) from error


@contextmanager
def _unwritten_told() -> Iterator[None]:
    """Say why nothing more comes on stdout; of a pipe that its reader has closed nobody wants to know."""
    try:
        yield
    except streams.Unwritten as error:
        from zloom.cli import output
        from zloom.cli.exits import ExitCode

        if error.closed:
            raise typer.Exit(ExitCode.CLOSED) from error
        output.complain(f"cannot write to stdout: {error}")
        raise typer.Exit(ExitCode.UNWRITTEN) from error


def _in_a_sentence(text: str) -> str:
    text = text.removesuffix(".")
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
