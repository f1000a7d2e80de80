"""Whether a value satisfies a schema, in the words of JSON Schema and nothing beyond.

The `jsonschema` library decides; its defaults are narrowed, because with them NaN passes
`exclusiveMinimum`, 64.0 passes `integer`, a reference fetches over the network and a pattern may take
seconds.
"""

import math
from collections.abc import Callable, Container, Iterable
from functools import lru_cache
from typing import Any

import msgspec

from zloom.errors import Refused
from zloom.model import Key, Replica, Schema
from zloom.schema import describe, is_number

CHECKS_KEPT = 64
"""Checks that are remembered: a thousand ranks declare the same key, and 64 KiB of numbers take a second."""

KEYWORDS = (
    "type",
    "enum",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "items",
    "properties",
    "required",
    "additionalProperties",
)


_TYPES: dict[str, Callable[[object], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: type(value) is int,
    "number": is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}

_ARTICLES = {"null": "null", "integer": "an integer", "array": "a list", "object": "a map"}


def _checker(test: Callable[[object], bool]) -> Any:
    return lambda _, value: test(value)


def prepare() -> None:
    """Load the library, for which a broker that is out of descriptors would have none."""
    _validator_class()


@lru_cache(maxsize=1)
def _validator_class() -> Any:
    # Imported here, and so after a broker's start, of which it would be a seventh.
    from jsonschema import Draft202012Validator, TypeChecker
    from jsonschema.validators import create

    return create(
        meta_schema={},
        validators={word: Draft202012Validator.VALIDATORS[word] for word in KEYWORDS},
        type_checker=TypeChecker({name: _checker(test) for name, test in _TYPES.items()}),
    )


def check(value: object, schema: Schema) -> tuple[str, str] | None:
    """Return why a value does not satisfy a schema, as (code, text), or None when it does.

    Codes are `wrong_type`, `out_of_bounds` and `bad_value`.
    """
    return _checked(msgspec.msgpack.encode(value), msgspec.json.encode(schema))


@lru_cache(maxsize=CHECKS_KEPT)
def _checked(encoded: bytes, schema: bytes) -> tuple[str, str] | None:
    value = msgspec.msgpack.decode(encoded)
    if not _is_finite(value):
        return "bad_value", f"{_show(value)} is not finite"
    error = _first_error(value, schema)
    if error is None:
        return None
    shown = _show(error.instance)
    if error.validator == "type":
        expected = " or ".join(_ARTICLES.get(name, f"a {name}") for name in error.validator_value)
        return "wrong_type", f"{shown} is not {expected}"
    if error.validator in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        return "out_of_bounds", f"{shown} is out of bounds"
    if error.validator == "additionalProperties":
        unknown = sorted(map(repr, error.instance.keys() - error.schema["properties"].keys()))
        return "bad_value", f"there is no {', '.join(unknown)}"[:200]
    if error.validator == "required":
        missing = [repr(name) for name in error.validator_value if name not in error.instance]
        return "bad_value", f"{', '.join(missing)} is missing"[:200]
    if error.validator == "enum":
        return "bad_value", f"{shown} is not one of {', '.join(map(str, error.validator_value))}"
    return "bad_value", error.message[:200]


def declared_by(replicas: Iterable[Replica], names: Container[str]) -> dict[str, list[tuple[Replica, Key]]]:
    """Return who declares each of these keys, and how; nothing of a key that nobody declares."""
    declared: dict[str, list[tuple[Replica, Key]]] = {}
    for replica in replicas:
        for key in replica.keys:
            if key.name in names:
                declared.setdefault(key.name, []).append((replica, key))
    return declared


def check_values(value: object, declared: Iterable[tuple[Replica, Key]], what: str = "") -> None:
    """Refuse a value that does not satisfy a schema with which a replica declares its key.

    Args:
        value: Of the key.
        declared: Who declares it, and how; the ranks of a run do it alike, which is looked at once.
        what: Which value it is, with a comma and a blank behind it.
    """
    satisfied = None
    for replica, key in declared:
        if key.schema != satisfied:
            _check_value(key, value, replica, what)
            satisfied = key.schema


def _check_value(key: Key, value: object, replica: Replica, what: str) -> None:
    problem = check(value, key.schema)
    if problem is not None:
        by = f" (rank {replica.rank})" if replica.world_size > 1 else ""
        text = f"{key.name}: {what}{problem[1]}; expected {describe(key.schema)}{by}"
        raise Refused(problem[0], text)


def _is_finite(value: object) -> bool:
    """Whether a value holds neither NaN nor infinity, whatever its schema leaves open."""
    if isinstance(value, float):
        return math.isfinite(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(_is_finite(part) for part in parts)


def _first_error(value: object, schema: bytes) -> Any:
    errors = _validator(schema).iter_errors(value)
    # A wrong type explains more than the bound that it breaks as well.
    return min(errors, key=lambda error: error.validator != "type", default=None)


@lru_cache(maxsize=4096)
def _validator(schema: bytes) -> Any:
    return _validator_class()(_closed(msgspec.json.decode(schema)))


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Refuse properties that are not declared: a misspelt one must not pass unseen."""
    if "items" in schema:
        schema["items"] = _closed(schema["items"])
    if "properties" in schema:
        schema["properties"] = {name: _closed(part) for name, part in schema["properties"].items()}
        schema["additionalProperties"] = False
    return schema


def _show(value: object) -> str:
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
