"""Numbers and choices of a command line, read and refused in zloom's own words."""

import enum
import math
from collections.abc import Callable
from typing import TypeVar

import typer

C = TypeVar("C", bound=enum.StrEnum)

MAX_STEP = 2**53
"""The largest step, or revision, that a message carries."""


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""Seconds of each."""


class Unreadable(typer.BadParameter):
    """A word that its option does not take; the message is a whole sentence, which typer need not begin."""

    def format_message(self) -> str:
        """Return what is printed."""
        return self.message


def integer(name: str, least: int, most: int = MAX_STEP) -> Callable[[object], int]:
    """Return what reads the option or argument of that name; `most` is named only to who exceeds it."""
    expected = f"an integer >= {least}"

    def read(word: object) -> int:
        try:
            value = int(str(word))
        except ValueError:
            raise _unreadable(name, word, expected) from None
        if value < least:
            raise _unreadable(name, word, expected)
        if value > most:
            raise _unreadable(name, word, f"{expected}, <= {most}")
        return value

    return read


def seconds(name: str, *, least: float = -math.inf, above: float = -math.inf) -> Callable[[object], float]:
    """Return what reads the option of that name: seconds, finite, at least `least` or above `above`."""
    bound = f">= {least:g}" if math.isfinite(least) else f"> {above:g}"
    expected = f"a number of seconds {bound}"

    def read(word: object) -> float:
        try:
            value = float(str(word))
        except ValueError:
            raise _unreadable(name, word, expected, _in_seconds(str(word))) from None
        if not (math.isfinite(value) and value >= least and value > above):
            raise _unreadable(name, word, expected)
        return value

    return read


def given(context: typer.Context, parameter: typer.CallbackParam, word: str | None) -> str | None:
    """Refuse a word that was given and is empty, as a variable of a shell is that nobody has set."""
    source = context.get_parameter_source(parameter.name or "")
    if word == "" and source is not None and source.name == "COMMANDLINE":
        name = parameter.get_error_hint(context).strip("'")
        raise Unreadable(f"{name} is empty; is a variable in it not set?")
    return word


def _in_seconds(word: str) -> str:
    """Return what a time with a unit would be; empty where it is none."""
    number, unit = word[:-1], word[-1:]
    return f"that would be {int(number) * UNITS[unit]}; " if unit in UNITS and number.isdecimal() else ""


def choice(name: str, choices: type[C]) -> Callable[[object], C]:
    """Return what reads the option of that name, one of several words."""
    words = [each.value for each in choices]

    def read(word: object) -> C:
        if word not in words:
            from zloom.words import did_you_mean

            raise _unreadable(name, repr(word), f"one of {', '.join(words)}", did_you_mean(str(word), words))
        return choices(word)

    return read


def run_before_changes(word: object) -> str:
    """Return the name of the run that `set` changes; no name has a `=`, so a word with one is a change."""
    name = str(word)
    if "=" in name:
        import shlex

        from zloom.words import shorten

        raise Unreadable(f"the run's name comes first: zloom set RUN {shlex.quote(shorten(name))}")
    return name


def _unreadable(name: str, word: object, expected: str, hint: str = "") -> Unreadable:
    from zloom.words import shorten

    return Unreadable(f"{name} is {shorten(str(word))}; {hint}expected {expected}")
