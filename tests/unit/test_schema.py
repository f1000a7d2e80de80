import enum
import math
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zloom.errors import DeclarationError, SettingsError
from zloom.model import Schema, Value
from zloom.schema import Meta, convert, plain, schema_of

Rate = Annotated[float, Meta(gt=0, le=1)]


class Optimizer(enum.Enum):
    ADAM = "adam"
    SGD = "sgd"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Window(TypedDict):
    start: int
    end: NotRequired[int]


class Loose(TypedDict):
    value: Any


class Schedule(msgspec.Struct):
    warmup: Annotated[int, Meta(ge=0)]
    decay: float = 0.5


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    size: int


class Tree(msgspec.Struct):
    child: Optional["Tree"] = None


SCHEMAS = [
    (float, Schema(type=["number"])),
    (int, Schema(type=["integer"])),
    (str, Schema(type=["string"])),
    (bool, Schema(type=["boolean"])),
    (Rate, Schema(type=["number"], exclusive_minimum=0, maximum=1)),
    (Rate | None, Schema(type=["number", "null"], exclusive_minimum=0, maximum=1)),
    (Annotated[int, Meta(ge=1, lt=9)], Schema(type=["integer"], minimum=1, exclusive_maximum=9)),
    (Annotated[str, Meta(min_length=1, max_length=3)], Schema(type=["string"], min_length=1, max_length=3)),
    (Annotated[float, Meta(description="base rate", examples=[0.1])], Schema(type=["number"])),
    (int | float, Schema(type=["number"])),
    (int | float | None, Schema(type=["number", "null"])),
    (Literal["b", "a"], Schema(type=["string"], enum=["a", "b"])),
    (Literal["a", 1], Schema(type=["integer", "string"], enum=[1, "a"])),
    (Literal["a"] | None, Schema(type=["string", "null"], enum=["a", None])),
    (Literal["a", None], Schema(type=["null", "string"], enum=[None, "a"])),
    (Literal[True], Schema(type=["boolean"], enum=[True])),
    (Optimizer, Schema(type=["string"], enum=["adam", "sgd"])),
    (Optimizer | None, Schema(type=["string", "null"], enum=["adam", "sgd", None])),
    (Level, Schema(type=["integer"], enum=[1, 2])),
    (list, Schema(type=["array"])),
    (list[Any], Schema(type=["array"])),
    (tuple[int, ...], Schema(type=["array"], items=Schema(type=["integer"]))),
    (
        Annotated[list[Rate], Meta(min_length=1, max_length=4)],
        Schema(
            type=["array"],
            items=Schema(type=["number"], exclusive_minimum=0, maximum=1),
            min_items=1,
            max_items=4,
        ),
    ),
    (
        Window,
        Schema(
            type=["object"],
            properties={"start": Schema(type=["integer"]), "end": Schema(type=["integer"])},
            required=["start"],
        ),
    ),
    (
        Schedule | None,
        Schema(
            type=["object", "null"],
            properties={"warmup": Schema(type=["integer"], minimum=0), "decay": Schema(type=["number"])},
            required=["warmup"],
        ),
    ),
    (Strict, Schema(type=["object"], properties={"size": Schema(type=["integer"])}, required=["size"])),
]


@pytest.mark.parametrize(("annotation", "schema"), SCHEMAS, ids=lambda each: str(each)[:40])
def test_a_type_becomes_its_schema(annotation: Any, schema: Schema) -> None:
    assert schema_of(annotation) == schema


REFUSED = [
    (Annotated[str, Meta(pattern="a+")], "pattern cannot be said; use Literal"),
    (Annotated[int, Meta(multiple_of=8)], "multipleOf cannot be said; count in that unit"),
    (int | str, "it is one of several types (integer | string)"),
    (Rate | Annotated[str, Meta(max_length=3)], "number > 0, <= 1 | string of at most 3 characters"),
    (dict[str, float], "any property names are allowed; use a TypedDict"),
    (Annotated[dict[str, Any], Meta(min_length=1)], "minProperties cannot be said; use a TypedDict"),
    (Any, "it allows anything"),
    (Loose, "it allows anything"),
    (tuple[int, int], "prefixItems cannot be said; use list"),
    (set[int], "uniqueItems cannot be said; use list"),
    (bytes, "contentEncoding cannot be said; use str"),
    (Tree, "Tree contains itself"),
    (list[list[list[int]]], "nest deeper than 2; use several keys"),
    (object, "cannot be used"),
    (Literal[0.5], "cannot be used"),
    (complex, "cannot be used"),
]


@pytest.mark.parametrize(("annotation", "text"), REFUSED, ids=lambda each: str(each)[:40])
def test_what_a_schema_cannot_say_is_refused_with_what_to_use_instead(annotation: Any, text: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        schema_of(annotation)
    assert text in str(caught.value)
    assert repr(annotation) in str(caught.value)


CONVERTED = [
    (1, float, 1.0),
    (0.5, Rate | None, 0.5),
    (None, Rate | None, None),
    ("sgd", Optimizer, Optimizer.SGD),
    (2, Level, Level.HIGH),
    ([1, 2.5], list[float], [1.0, 2.5]),
    ({"warmup": 3}, Schedule, Schedule(3, 0.5)),
    ({"start": 1, "end": 2}, Window, {"start": 1, "end": 2}),
]


@pytest.mark.parametrize(("value", "annotation", "expected"), CONVERTED)
def test_a_value_becomes_what_the_handler_expects(value: Value, annotation: Any, expected: object) -> None:
    result = convert(value, annotation)
    assert result == expected
    assert type(result) is type(expected)


MISFITS: list[tuple[Any, Any, str]] = [
    (1.0, int, "expected integer, got 1.0"),
    (True, int, "expected integer, got True"),
    (True, float, "expected number, got True"),
    ("1", int, "expected integer, got '1'"),
    (5, Rate, "expected number > 0, <= 1, got 5"),
    (None, Rate, "expected number > 0, <= 1, got None"),
    ("lion", Optimizer, "expected one of adam, sgd, got 'lion'"),
    (math.nan, float, "got nan (a number must be finite)"),
    (-math.inf, Rate | None, "got -inf (a number must be finite)"),
    ([1.0, math.nan], list[float], "a number must be finite"),
    ({"a": [math.inf]}, dict, "a number must be finite"),
    ([1, "a"], list[int], "$[1]"),
    ({"warmup": 1, "deacy": 2.0}, Schedule, "there is no property 'deacy'"),
    ([{"start": 1, "stop": 2}], list[Window], "there is no property 'stop'"),
    ({"end": 1}, Window, "missing required field `start`"),
    ("x" * 1000, int, "x…"),
]


@pytest.mark.parametrize(("value", "annotation", "text"), MISFITS, ids=lambda each: str(each)[:40])
def test_a_value_of_another_type_is_refused(value: Any, annotation: Any, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        convert(value, annotation)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.floats() | st.integers() | st.booleans() | st.text() | st.none())
def test_a_bounded_number_takes_exactly_the_finite_numbers_within(value: Any) -> None:
    fits = type(value) in (int, float) and 0 < value <= 1
    if fits:
        assert convert(value, Rate) == float(value)
    else:
        with pytest.raises(SettingsError):
            convert(value, Rate)


def test_plain_is_the_value_on_the_wire() -> None:
    assert plain(Optimizer.ADAM) == "adam"
    assert plain(Schedule(2)) == {"warmup": 2, "decay": 0.5}
    assert plain((1, 2)) == [1, 2]


def test_plain_copies() -> None:
    value = [1, 2]
    copy = plain(value)
    value.append(3)
    assert copy == [1, 2]


@pytest.mark.parametrize("value", [object(), 2**64, b"bytes", [[[1]]], {1: "a"}], ids=type)
def test_plain_refuses_what_the_wire_cannot_carry(value: object) -> None:
    with pytest.raises(SettingsError, match="cannot be sent"):
        plain(value)
