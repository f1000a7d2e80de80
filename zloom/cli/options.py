"""The options that commands share."""

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from zloom.cli.bounds import choice, given, integer, seconds


class ModeChoice(enum.StrEnum):
    """When a change is applied."""

    NEXT = "next"
    CONSISTENT = "consistent"
    IMMEDIATE = "immediate"


Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Name of the run.", show_default=False, callback=given)
]

CommandWords = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Arguments of the command.", show_default=False),
]

Broker = Annotated[
    str | None,
    typer.Option(
        "--broker",
        envvar="ZLOOM_BROKER",
        metavar="ENDPOINT",
        help="The broker's control endpoint, such as tcp://gpu-1:5555; by default your own on this host. "
        "On TCP, ZLOOM_KEY names the file of your key.",
        show_default=False,
    ),
]

Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        parser=seconds("--timeout", above=0),
        help="How long to wait for answers; above 0.",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

Attempt = Annotated[
    str,
    typer.Option(
        "--attempt",
        metavar="ID",
        callback=given,
        help="Which attempt of the run; by default the newest, those with replicas first.",
    ),
]

NoWait = Annotated[bool, typer.Option("--no-wait", help="Return when the broker has accepted the change.")]

CancelOnTimeout = Annotated[
    bool,
    typer.Option("--cancel-on-timeout", help="After the time-out, take the change back where it is pending."),
]

ExpectRevision = Annotated[
    int | None,
    typer.Option(
        "--expect-revision",
        metavar="N",
        parser=integer("--expect-revision", 0),
        help="Refuse the change if the newest revision is another.",
        show_default=False,
    ),
]

EarlierRevision = Annotated[
    int,
    typer.Argument(
        metavar="REVISION",
        parser=integer("REVISION", 0),
        help="0 is the trainer's own.",
        show_default=False,
    ),
]

OneRevision = Annotated[
    int,
    typer.Argument(metavar="REVISION", parser=integer("REVISION", 1), help="Which one.", show_default=False),
]

RequestId = Annotated[
    str | None,
    typer.Option(
        "--request-id",
        metavar="ID",
        help="A name that only this request has: asked again under it, it has no second effect.",
        show_default=False,
    ),
]

Mode = Annotated[
    ModeChoice | None,
    typer.Option(
        "--mode",
        metavar="|".join(ModeChoice),
        parser=choice("--mode", ModeChoice),
        help="next: each replica by itself, when the step that it is in has ended (its next safe point). "
        "consistent: the same step on all. immediate: at once, for keys that allow it.",
        show_default=False,
    ),
]

AtStep = Annotated[
    int | None,
    typer.Option(
        "--at-step",
        metavar="STEP",
        parser=integer("--at-step", 0),
        help="Apply it at the start of this step.",
        show_default=False,
    ),
]

After = Annotated[
    int | None,
    typer.Option(
        "--after",
        metavar="N",
        parser=integer("--after", 1),
        help="Apply it N steps after it was accepted.",
        show_default=False,
    ),
]

Supersede = Annotated[
    bool, typer.Option("--supersede", help="End changes of these keys that wait for a step or all ranks.")
]

Queue = Annotated[
    bool,
    typer.Option(
        "--queue", help="With --at-step or --after: wait behind changes of these keys for earlier steps."
    ),
]

Note = Annotated[
    str, typer.Option("--note", metavar="TEXT", help="Why, for the history.", show_default=False)
]

RevertIf = Annotated[
    str,
    typer.Option(
        "--revert-if",
        metavar="GUARD",
        callback=given,
        help="The broker takes it back if this happens: 'loss > 2 * baseline within 200 steps'.",
        show_default=False,
    ),
]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would come of it.")]

CheckpointFirst = Annotated[
    bool,
    typer.Option("--checkpoint-first", help="Save a checkpoint before it; if that fails, change nothing."),
]


def expanded(path: Path | None) -> Path | None:
    """Return a path with its ~ expanded, which a shell leaves in --data-dir=~/x, and a unit file anywhere."""
    try:
        return None if path is None else path.expanduser()
    except RuntimeError as error:
        raise typer.BadParameter(f"{path}: {error}") from error


AuthDir = Annotated[
    Path | None,
    typer.Option(
        "--auth-dir",
        metavar="FOLDER",
        envvar="ZLOOM_AUTH_DIR",
        help="Folder of the broker's keys; by default zloom/auth in your config folder.",
        show_default=False,
        file_okay=False,
        callback=expanded,
    ),
]

DEFAULT_TIMEOUT = 30.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a command goes, and how it answers.

    Attributes:
        broker: Endpoint of control, or None for the default.
        timeout: Seconds that it waits for answers.
        as_json: Whether it prints JSON.
    """

    broker: str | None
    timeout: float
    as_json: bool


@dataclass(frozen=True, slots=True)
class Change:
    """How a change is made and waited for.

    Attributes:
        target: Where it goes.
        run: Which run it changes.
        attempt: Which attempt; when empty the newest, those with replicas first.
        wait: Whether outcomes are waited for.
        cancel_on_timeout: Whether what is pending after the time-out is taken back.
        expected_revision: The newest revision that the change was made for, or None.
        request_id: The name under which asking again has no second effect; None for a fresh one.
    """

    target: Target
    run: str
    attempt: str
    wait: bool
    cancel_on_timeout: bool
    expected_revision: int | None
    request_id: str | None
