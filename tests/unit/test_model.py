import inspect
import math
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from zloom import model
from zloom.codec import steer_topic
from zloom.model import MAX_SCHEMA_DEPTH, NAME, Schema
from zloom.schema import MAX_CONTAINERS

STRUCTS = [
    kind for _, kind in inspect.getmembers(model, inspect.isclass) if kind.__module__ == model.__name__
]


@pytest.mark.parametrize("kind", STRUCTS, ids=[kind.__name__ for kind in STRUCTS])
def test_all_can_be_shared_between_threads(kind: type[Struct]) -> None:
    assert kind.__struct_config__.frozen


@pytest.mark.parametrize("name", ["a", "tiny-lm", "2024_11.v2+a@b:c", "x" * 128])
def test_a_name(name: str) -> None:
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "ä", "a\n", "a\0", "x" * 129])
def test_what_is_no_name(name: str) -> None:
    assert not NAME.fullmatch(name)


def test_a_name_is_one_level_of_a_topic() -> None:
    assert not NAME.fullmatch(steer_topic("run", "attempt").decode())


@pytest.mark.parametrize(
    "value",
    [None, True, 1, 1.5, "x", [1, "a", None], {"a": 1}, [[1], {"a": 2}], {"a": [1], "b": {"c": None}}],
    ids=str,
)
def test_a_value_nests_two_containers(value: Any) -> None:
    assert msgspec.convert(value, model.Value) == value


@pytest.mark.parametrize(
    "value", [[[[1]]], {"a": {"b": {"c": 1}}}, {"a": [[1]]}, [{"a": [1]}], {1: 2}], ids=str
)
def test_a_value_nests_no_deeper(value: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(value, model.Value)


def nested(levels: int, container: str) -> Schema:
    schema = Schema(["integer"])
    for _ in range(levels - 1):
        if container == "array":
            schema = Schema(["array"], items=schema)
        else:
            schema = Schema(["object"], properties={"a": schema})
    return schema


@pytest.mark.parametrize("container", ["array", "object"])
def test_a_schema_nests_as_deep_as_the_arguments_of_a_command(container: str) -> None:
    nested(MAX_SCHEMA_DEPTH, container)
    with pytest.raises(ValueError, match="nest deeper than 4"):
        nested(MAX_SCHEMA_DEPTH + 1, container)


def test_the_arguments_of_a_command_are_an_object_of_values_with_scalars_in_them() -> None:
    assert MAX_SCHEMA_DEPTH == 1 + MAX_CONTAINERS + 1


@pytest.mark.parametrize("field", ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_the_numbers_in_a_schema_are_finite(field: str, number: float) -> None:
    with pytest.raises(ValueError, match="expected a finite number"):
        msgspec.convert({"type": ["number"], field: [number] if field == "enum" else number}, Schema)


def test_a_schema_has_the_names_of_json_schema() -> None:
    schema = Schema(["array"], min_items=1, items=Schema(["number"], exclusive_minimum=0))
    assert msgspec.to_builtins(schema) == {
        "type": ["array"],
        "minItems": 1,
        "items": {"type": ["number"], "exclusiveMinimum": 0},
    }
