"""Schemas and values in words: what an error or a table shows, and what a command line says."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from difflib import get_close_matches
from itertools import islice

import msgspec

from zloom.errors import SettingsError
from zloom.model import Flat, JsonType, Scalar, Schema, Value

INTEGERS = range(-(2**63), 2**64)
"""What MessagePack can carry."""


MAX_SHOWN = 80
"""Characters of a refused value that an error repeats."""


MAX_LIKENED, MAX_LIKENED_LENGTH = 100, 128
"""Names, and characters of one, that are compared for a hint: a pair of long ones takes a millisecond."""


MAX_NAMED = 8
"""Replicas that a refusal names."""


MANY_VALUES, FIRST_VALUES = 5, 3
"""From more values than this, a table shows only the first few."""

DAY = 86_400
"""Seconds."""


NO_KEYS = "none yet: a trainer declares its keys as it starts, or with its first step"
"""What is said of the keys of a run of which none is known."""


MORE_MAY_COME = "more may come: a trainer declares its {} as it starts, or with its first step"
"""What is said beside the keys or commands of a run that has not told a step yet."""


OF_TRAINERS = ("checkpoint", "stop", "validate")
"""Commands that the CLI names, and that a run has only where its trainer declares them."""


JUST_STARTED = "a trainer that was started just now may take some seconds to say hello"
"""What is said where none is there, or not the one that was meant."""


def counted(count: int, noun: str) -> str:
    """Return the number with its noun: `1 replica`, `2 replicas`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def named(ranks: Collection[int]) -> str:
    """Return ranks in words, the first few of them: `rank 3`, `ranks 0, 2 and 5 more`."""
    numbers = ", ".join(map(str, sorted(ranks)[:MAX_NAMED]))
    more = f" and {len(ranks) - MAX_NAMED} more" if len(ranks) > MAX_NAMED else ""
    return f"rank{'' if len(ranks) == 1 else 's'} {numbers}{more}"


def span(seconds: float) -> str:
    """Return a time span that somebody chose: `30 minutes`, `90 s`, `about 12 days`."""
    for unit, name in ((DAY, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit and seconds % unit == 0:
            return counted(int(seconds // unit), name)
    if seconds >= 2 * DAY:
        return f"about {round(seconds / DAY)} days"
    return f"{round(seconds, 3):.15g} s"


def text_of(value: object) -> str:
    """Return a value of somebody else's code as text, also where that raises."""
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - whatever it raises, its owner is to be told the rest
        return f"<a {type(value).__name__}, of which no text can be made: {type(error).__name__}>"


def error_text(error: BaseException) -> str:
    """Return the class and text of an error of somebody else's code: `ValueError: too large`."""
    return f"{type(error).__name__}: {text_of(error)}"


def nobody_there(run: str, attempt: str, gone: Iterable[tuple[int, str]]) -> str:
    """Return why nothing can be asked of an attempt, and what to do.

    Args:
        run: Which run.
        attempt: Which attempt of it.
        gone: Its replicas' ranks and the reasons that they left for, by rank.
    """
    reasons = ", ".join(f"rank {rank}: {reason}" for rank, reason in gone) or "none ever was"
    return f"no replica of {run} ({attempt}) is there: {reasons}; start it again; {JUST_STARTED}"


def left_as(state: str, reason: str) -> str:
    """Return how a replica left: `lost: nothing was heard of it`, or `finished`."""
    return state if reason in ("", state) else f"{state}: {reason}"


def shorten(text: str) -> str:
    """Return the text as an error shows it: not all of it when it is long."""
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return a hint at the known name that is most like another, for within a sentence; empty if none is.

    Capital letters count as small ones.
    """
    name = name[:MAX_LIKENED_LENGTH].lower()
    # Of very many only those with its first letter.
    like = known if len(known) <= MAX_LIKENED else [each for each in known if each[:1].lower() == name[:1]]
    names = {each.lower(): each for each in islice(like, MAX_LIKENED)}
    near = get_close_matches(name, names, n=1)
    return f"did you mean {names[near[0]]}? " if near else ""


def unknown(
    lacks: str,
    name: str,
    known: Collection[str],
    listed: str = "",
    *,
    most: int | None = None,
    none: str = "none",
) -> str:
    """Return that a name is not known, with the one that may have been meant.

    Args:
        lacks: Who has nothing of that name, in words that it ends.
        name: That was asked for.
        known: Those that there are.
        listed: These as they are to be shown; by default all of them, in order.
        most: Characters of `name` that are shown; by default all.
        none: What is said where there are none.
    """
    shown = listed or ", ".join(sorted(known)) or none
    return f"{lacks} {name[:most]!r}; {did_you_mean(name, known)}known are: {shown}"


def unknown_key(run: str, name: str, known: Collection[str], *, early: bool, most: int | None = None) -> str:
    """Return that a run has no such key, as `unknown` does.

    Args:
        run: Which run.
        name: That was asked for.
        known: Those that there are.
        early: No replica has told a step above 0 yet, so more may come.
        most: Characters of `name` that are shown; by default all.
    """
    text = unknown(f"{run} has no key", name, known, most=most, none=NO_KEYS)
    return f"{text}; {MORE_MAY_COME.format('keys')}" if early and known else text


def unknown_command(
    run: str, name: str, known: Collection[str], *, early: bool, most: int | None = None
) -> str:
    """Return that a run has no such command, and how a trainer declares it where the CLI names it.

    The arguments are those of `unknown_key`.
    """
    text = unknown(f"{run} has no command", name, known, most=most)
    how = f'with @weavelet.on_command("{name}")' if name in OF_TRAINERS else ""
    if early:
        text = f"{text}; {MORE_MAY_COME.format('commands')}"
        return f"{text}, {how}" if how else text
    return f"{text}; a trainer declares it {how}" if how else text


def type_of(value: Scalar) -> JsonType:
    """Return the name that JSON Schema has for the value's type."""
    names: dict[type, JsonType] = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return "null" if value is None else names[type(value)]


def describe(schema: Schema, *, shortly: bool = False) -> str:
    """Return the schema in a few words, such as `number > 0, <= 1` or `one of adam, sgd or null`.

    Args:
        schema: To be described.
        shortly: Name the first of many values alone, and how many there are.
    """
    null = " or null" if "null" in schema.type and schema.type != ["null"] else ""
    if schema.enum is not None:
        words = [_word(value) for value in schema.enum if value is not None or not null]
        if shortly and len(words) > MANY_VALUES:
            words = [*words[:FIRST_VALUES], f"… ({len(words)})"]
        return f"one of {', '.join(words)}{null}"
    types = [each for each in schema.type if each != "null" or not null]
    return " or ".join(_describe_type(each, schema, shortly) for each in types) + null


def _describe_type(name: JsonType, schema: Schema, shortly: bool) -> str:
    match name:
        case "integer" | "number":
            return name + ",".join(_bounds(schema))
        case "string":
            return name + _count(schema.min_length, schema.max_length, "character")
        case "array":
            items = f" of {describe(schema.items, shortly=shortly)}" if schema.items else ""
            return name + _count(schema.min_items, schema.max_items, "item") + items
        case "object" if schema.properties:
            required = schema.required or []
            members = (
                f"{each} ({describe(inner, shortly=shortly)}{'' if each in required else ', optional'})"
                for each, inner in schema.properties.items()
            )
            return f"object with {', '.join(members)}"
    return name


def _bounds(schema: Schema) -> Iterator[str]:
    bounds = {
        ">": schema.exclusive_minimum,
        ">=": schema.minimum,
        "<": schema.exclusive_maximum,
        "<=": schema.maximum,
    }
    return (f" {sign} {bound}" for sign, bound in bounds.items() if bound is not None)


def _count(least: int | None, most: int | None, unit: str) -> str:
    if least is None and most is None:
        return ""
    if most is None:
        return f" of at least {least} {unit}{'' if least == 1 else 's'}"
    span = f"at most {most}" if not least else f"{most}" if least == most else f"{least} to {most}"
    return f" of {span} {unit}{'' if most == 1 else 's'}"


def _word(value: Scalar) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def parse(text: str, schema: Schema) -> Value:
    """Return the value that a word of a command line means for a key of this schema.

    Numbers, `true` and `false`, `none` or `null` where allowed, JSON for arrays and objects; a string is
    taken as it stands. Bounds are left to the broker, which checks them for all replicas.

    Raises:
        SettingsError: The word is not of any of the schema's types, such as `"fast" is not a number`.
    """
    if schema.enum is not None:
        return _parse_enum(text, schema)
    for name, (read, _) in _READERS.items():
        if name in schema.type:
            try:
                return read(text)
            except (ValueError, msgspec.DecodeError):
                continue
    nouns = " or ".join(noun for name, (_, noun) in _READERS.items() if name in schema.type)
    # The bounds are named too, so that the next try is not refused for them.
    bounds = "" if describe(schema) == " or ".join(schema.type) else f"; expected {describe(schema)}"
    raise SettingsError(f'"{shorten(text)}" is {_beyond(text, schema) or f"not {nouns}"}{bounds}')


def _beyond(text: str, schema: Schema) -> str:
    """Return what is wrong with a number that a schema of numbers cannot take; empty of another word."""
    if not {"integer", "number"} & {*schema.type}:
        return ""
    if "number" not in schema.type and text.lstrip("+-").isdecimal():
        return "beyond 64 bits"
    try:
        return "" if math.isfinite(float(text)) else "not finite, or too large"
    except ValueError:
        return ""


def _parse_enum(text: str, schema: Schema) -> Value:
    values = schema.enum or []
    for value in values:
        if text == _word(value):
            return value
    for name, (read, _) in _READERS.items():
        for value in values:
            # `1e-1` is the 0.1 of the enum; each type reads only its own values.
            if type_of(value) == name and _reads_as(read, text, value):
                return value
    hint = did_you_mean(text, [value for value in values if isinstance(value, str)]).rstrip()
    raise SettingsError(f'"{shorten(text)}" is not {describe(schema)}{f"; {hint}" if hint else ""}')


def _reads_as(read: Callable[[str], Value], text: str, value: Scalar) -> bool:
    try:
        return read(text) == value
    except (ValueError, msgspec.DecodeError):
        return False


def _null(text: str) -> None:
    if text.lower() not in ("none", "null"):
        raise ValueError(text)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _integer(text: str) -> int:
    value = int(text)
    if value not in INTEGERS:
        raise ValueError(text)
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _array(text: str) -> list[Flat]:
    return msgspec.json.decode(text, type=list[Flat])


def _object(text: str) -> dict[str, Flat]:
    return msgspec.json.decode(text, type=dict[str, Flat])


# In the order in which they are tried: a string reads everything, so it comes last.
_READERS: dict[JsonType, tuple[Callable[[str], Value], str]] = {
    "null": (_null, "null"),
    "boolean": (_boolean, "true or false"),
    "integer": (_integer, "an integer"),
    "number": (_number, "a number"),
    "array": (_array, "a JSON array"),
    "object": (_object, "a JSON object"),
    "string": (str, "a string"),
}
