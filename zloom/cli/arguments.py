"""`key=value` words of a command line, read by the types that the run declares."""

from collections.abc import Callable, Collection, Mapping, Sequence

from zloom.errors import Refused, SettingsError
from zloom.messages import Keys, Preview
from zloom.model import Problem, Schema, Value
from zloom.schema import parse
from zloom.words import unknown, unknown_command, unknown_key


def split(words: Sequence[str], what: str = "change") -> dict[str, str]:
    """Return the texts by key.

    Args:
        words: Of the command line.
        what: A word should be.

    Raises:
        SettingsError: A word has no `=`, or a key comes twice.
    """
    texts: dict[str, str] = {}
    for place, word in enumerate(words):
        key, separator, text = word.partition("=")
        if not separator or not key:
            is_ramp = what == "change" and word in ("over", "steps", "step")
            hint = "; quote a ramp: 'key=..value over 300 steps'" if is_ramp else _hint(words, place)
            raise SettingsError(f"{word!r} is no {what}; expected key=value{hint}")
        if key in texts:
            raise SettingsError(f"{key} is given twice")
        texts[key] = text
    return texts


def _hint(words: Sequence[str], place: int) -> str:
    """Return how a change is written that blanks part at this word; empty where they do not."""
    before, word, *after = (words[place - 1] if place else "", *words[place : place + 3])
    next_is_value = not (after and after[0].startswith("="))  # else this word is the next key
    if before.endswith("=") and before != "=" and "=" not in word and next_is_value:
        joined = before + word
    elif after and after[0].startswith("="):
        joined = word + "".join(after if after[0] == "=" else after[:1])
    elif after and "=" not in word + after[0] and not "".join(after[1:]).startswith("="):
        joined = f"{word}={after[0]}"
    else:
        return ""
    key, _, text = joined.partition("=")
    return f", without blanks: {joined}" if key and text else ""


def changes(texts: Mapping[str, str], keys: Keys) -> dict[str, Value]:
    """Return the values of a config update.

    Raises:
        Refused: The run has no such key, or a text is not of the key's type.
    """
    schemas = {state.key.name: state.key.schema for state in keys.keys}
    return _read(texts, schemas, lambda name: _no_key(name, schemas, keys), "wrong_type")


def values(keys: Keys, only: str = "") -> dict[str, Value]:
    """Return the values that a run has now, or that of one key.

    Raises:
        Refused: The run has no such key.
    """
    found = {state.key.name: state.value for state in keys.keys}
    if only and only not in found:
        raise _no_key(only, found, keys)
    return {only: found[only]} if only else found


def command_arguments(name: str, texts: Mapping[str, str], keys: Keys) -> dict[str, Value]:
    """Return the arguments of a command.

    Raises:
        Refused: The run has no such command, or the command no such argument, or a text is not of its type.
    """
    schemas = {command.name: command.schema for command in keys.commands}
    if name not in schemas:
        raise Refused("unknown_command", unknown_command(keys.run, name, schemas, early=keys.early))
    arguments = schemas[name].properties or {}

    def lacking(argument: str) -> Refused:
        return Refused("bad_arguments", unknown(f"{name} has no argument", argument, arguments))

    return _read(texts, arguments, lacking, "bad_arguments")


def refused(error: Refused, keys: Keys) -> Preview:
    """Return what a dry run shows of words that are refused here already."""
    problems = [Problem(error.code, error.text)]
    return Preview(id="", run=keys.run, attempt=keys.attempt, problems=problems)


def _no_key(name: str, known: Collection[str], keys: Keys) -> Refused:
    return Refused("unknown_key", unknown_key(keys.run, name, known, early=keys.early))


def _read(
    texts: Mapping[str, str], schemas: Mapping[str, Schema], lacking: Callable[[str], Refused], wrong: str
) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for key, text in texts.items():
        if key not in schemas:
            raise lacking(key)
        try:
            values[key] = parse(text, schemas[key])
        except SettingsError as error:
            raise Refused(wrong, f"{key}: {error}") from error
    return values
