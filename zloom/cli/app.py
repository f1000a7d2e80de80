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


for part in (serving, authorizing, looking, stacks, doctor, changing, commanding, recording, telling):
    part.register(app)
helping.whole(app)
