"""What `--help` shows of flags."""

from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

P = TypeVar("P")


def _without_type(parameters: list[P]) -> list[P]:
    """Have flags, which take no value, show no type of one."""
    for each in parameters:
        if isinstance(each, TyperOption) and each.is_flag:
            each.metavar = ""
    return parameters


class Command(TyperCommand):
    """A command."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return what it takes."""
        return _without_type(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return what it takes."""
        return _without_type(super().get_params(ctx))


def plain(app: typer.Typer) -> None:
    """Have all commands of an app, and of the apps in it, show their flags so; call it when all are there."""
    app.info.cls = Group
    for command in app.registered_commands:
        command.cls = Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            plain(group.typer_instance)
