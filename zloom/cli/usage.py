"""Options of a command that do not go together, refused before anything is sent. Pure."""

from pathlib import Path

from zloom.errors import SettingsError


def exclusive(**given: bool) -> None:
    """Refuse that more than one of some options is given; `at_step=True` stands for --at-step.

    Raises:
        SettingsError: Two are; it names them.
    """
    names = [_option(name) for name, there in given.items() if there]
    if len(names) > 1:
        raise SettingsError(f"{names[0]} and {names[1]} exclude each other")


def check_step(mode: object, at_step: int | None, after: int | None, *, queue: bool, supersede: bool) -> None:
    """Refuse options of `set` about when a change is applied that contradict each other.

    Raises:
        SettingsError: They do; it names them.
    """
    exclusive(after=after is not None, at_step=at_step is not None)
    exclusive(mode=mode is not None, at_step=at_step is not None, after=after is not None)
    exclusive(queue=queue, supersede=supersede)
    if queue and at_step is None and after is None:
        raise SettingsError("--queue needs --at-step or --after")


def check_attempt(run: str, attempt: str) -> None:
    """Refuse an attempt of no run, where the run may be left out.

    Raises:
        SettingsError: It is one.
    """
    if attempt and not run:
        raise SettingsError("--attempt needs a RUN")


def check_file(file: Path) -> None:
    """Refuse the name that stands for stdout elsewhere: nobody who gives it means a file.

    Raises:
        SettingsError: It is that.
    """
    if str(file) == "-":
        raise SettingsError("FILE is -; expected the path of a file: a recording cannot go to stdout")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
