"""All commands of `zloom`."""

from typing import Annotated

import typer

from zloom.cli import (
    authorizing,
    changing,
    commanding,
    doctor,
    helping,
    looking,
    recording,
    serving,
    stacks,
    telling,
)
from zloom.version import __version__

PANELS = {
    "Looking": (looking, stacks, doctor),
    "Changes": (changing, commanding),
    "Recording": (recording,),
    "Telling the broker": (telling,),
    "The broker's side": (serving, authorizing),
}
"""Headings of `--help`, with where the commands under each are: those of `docs/cli.md`."""

app = typer.Typer(
    name="zloom",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"zloom {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Steer PyTorch training that is already running."""


for heading, parts in PANELS.items():
    with helping.under(app, heading):
        for part in parts:
            part.register(app)
helping.whole(app)
