"""The schema of a Python type, and values that are checked against it.

A trainer writes types; peers in other languages and the broker see `zloom.model.Schema`, which says
less than Python can. What it cannot say is refused here, where the declaration is written.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Meta

from zloom.errors import DeclarationError, SettingsError
from zloom.model import Schema, Value
from zloom.words import describe, parse, shorten, type_of

__all__ = ["Meta", "convert", "describe", "is_number", "parse", "plain", "schema_of"]

MAX_CONTAINERS = 2
"""How deep arrays and objects nest: as deep as `zloom.model.Value` can carry."""

_decoder: msgspec.msgpack.Decoder[Value] = msgspec.msgpack.Decoder(Value)
_CONTAINERS = (list, dict)
_BOUNDS = {
    "exclusiveMinimum": "exclusive_minimum",
    "minimum": "minimum",
    "exclusiveMaximum": "exclusive_maximum",
    "maximum": "maximum",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_items",
    "maxItems": "max_items",
}
_STRUCTURE = {"type", "enum", "anyOf", "items", "properties", "required", "additionalProperties"}
_REMARKS = {"title", "description", "examples", "default", "deprecated"}
_INSTEAD = {
    "pattern": "use Literal[...] or an Enum of the strings that are allowed",
    "multipleOf": "count in that unit, with an int",
    "prefixItems": "use list[...] or a TypedDict",
    "uniqueItems": "use list[...]",
    "contentEncoding": "use str",
    "format": "use str or a number",
    "minProperties": "use a TypedDict, which names its properties",
    "maxProperties": "use a TypedDict, which names its properties",
    "propertyNames": "use a TypedDict, which names its properties",
}


def schema_of(annotation: Any) -> Schema:
    """Return the schema of a type: scalar, Literal, Enum, list, TypedDict, Struct, or one of them or None.

    Bounds and lengths come from `Annotated[..., zloom.Meta(gt=0, le=1)]`.

    Raises:
        DeclarationError: The type says something that a schema cannot; the text says what to use instead.
    """
    try:
        node = msgspec.json.schema(annotation)
    except (TypeError, ValueError) as error:
        raise DeclarationError(f"type {annotation!r} cannot be used: {error}") from error
    definitions = node.pop("$defs", {})
    try:
        return _reduce(node, definitions, (), 0)
    except DeclarationError as error:
        raise DeclarationError(f"type {annotation!r} cannot be used: {error}") from None


def _reduce(node: Any, definitions: Mapping[str, Any], inside: tuple[str, ...], depth: int) -> Schema:
    reference = node.get("$ref")
    if reference is not None:
        name = reference.rpartition("/")[2]
        if name in inside:
            raise DeclarationError(f"{name} contains itself; use a type of fixed depth")
        return _reduce(definitions[name], definitions, (*inside, name), depth)
    _refuse_the_unsayable(node)
    if "anyOf" in node:
        return _union([_reduce(each, definitions, inside, depth) for each in node["anyOf"]])
    if "enum" in node:
        return _enumeration(node["enum"])
    if "type" not in node:
        raise DeclarationError("it allows anything; use a type that says which values are meant")
    depth += node["type"] in ("array", "object")
    if depth > MAX_CONTAINERS:
        raise DeclarationError(f"lists and objects nest deeper than {MAX_CONTAINERS}; use several keys")
    return _single(node, lambda inner: _reduce(inner, definitions, inside, depth))


def _refuse_the_unsayable(node: Mapping[str, Any]) -> None:
    for word in node.keys() - _STRUCTURE - _REMARKS - _BOUNDS.keys():
        raise DeclarationError(f"{word} cannot be said; {_INSTEAD.get(word, 'leave it out')}")
    if node.get("additionalProperties", False) is not False:
        raise DeclarationError(
            "any property names are allowed; use a TypedDict or msgspec.Struct, which names its properties"
        )


def _single(node: Mapping[str, Any], inner: Callable[[Any], Schema]) -> Schema:
    properties = node.get("properties")
    return Schema(
        type=[node["type"]],
        items=inner(node["items"]) if "items" in node else None,
        properties=None if properties is None else {name: inner(each) for name, each in properties.items()},
        required=node.get("required") or None,
        **{field: node[word] for word, field in _BOUNDS.items() if word in node},
    )


def _enumeration(values: list[Any]) -> Schema:
    types = dict.fromkeys(type_of(value) for value in values)
    return Schema(type=list(types), enum=values)


def _union(schemas: list[Schema]) -> Schema:
    null = Schema(type=["null"])
    others = [each for each in schemas if each != null]
    if others in ([Schema(type=["integer"]), Schema(type=["number"])], [Schema(type=["number"])]):
        others = [Schema(type=["number"])]
    if len(others) != 1:
        kinds = " | ".join(describe(each) for each in schemas)
        raise DeclarationError(f"it is one of several types ({kinds}); use one type, or one type or None")
    return _or_null(others[0]) if null in schemas else others[0]


def _or_null(schema: Schema) -> Schema:
    if "null" in schema.type:
        return schema
    enum = None if schema.enum is None else [*schema.enum, None]
    return msgspec.structs.replace(schema, type=[*schema.type, "null"], enum=enum)


def convert(value: Value, annotation: Any, schema: Schema | None = None) -> Any:
    """Return the value as the annotated type: an Enum's member, a Struct, a float for a whole number.

    Nothing else is coerced: a float is no integer, a bool is no number, NaN and infinity are nothing.

    Args:
        value: As it came over the wire.
        annotation: A type that `schema_of` accepts.
        schema: The annotation's schema, when the caller has it already.

    Raises:
        SettingsError: The value is not of that type or out of its bounds.
    """
    schema = schema or schema_of(annotation)
    complaint = _not_finite(value)
    if complaint is None and isinstance(value, _CONTAINERS):
        complaint = _unknown_property(value, schema)
    if complaint is None:
        try:
            return msgspec.convert(value, annotation, strict=True)
        except msgspec.ValidationError as error:
            complaint = str(error) if isinstance(value, _CONTAINERS) else ""
    because = f" ({complaint})" if complaint else ""
    raise SettingsError(f"expected {describe(schema)}, got {shorten(repr(value))}{because}")


def _not_finite(value: Any) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "a number must be finite"
    if not isinstance(value, _CONTAINERS):
        return None
    members = value.values() if isinstance(value, dict) else value
    return next((complaint for each in members if (complaint := _not_finite(each))), None)


def _unknown_property(value: Any, schema: Schema) -> str | None:
    # A type that ignores a misspelt property would report as applied what it never saw.
    return next(_unknown_properties(value, schema), None)


def _unknown_properties(value: Any, schema: Schema) -> Iterator[str]:
    if isinstance(value, dict) and schema.properties is not None:
        for name, member in value.items():
            if name not in schema.properties:
                yield f"there is no property {name!r}"
            else:
                yield from _unknown_properties(member, schema.properties[name])
    elif isinstance(value, list) and schema.items is not None:
        for member in value:
            yield from _unknown_properties(member, schema.items)


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number; a boolean is none."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def plain(value: object) -> Value:
    """Return a value of any declared type as it goes over the wire, copied.

    Raises:
        SettingsError: It cannot go over the wire.
    """
    if type(value) is float or type(value) is bool:  # all of these can, and nobody can change them
        return value
    try:
        return _decoder.decode(msgspec.msgpack.encode(value))
    except (TypeError, OverflowError, ValueError) as error:
        raise SettingsError(f"{shorten(repr(value))} cannot be sent: {error}") from error
