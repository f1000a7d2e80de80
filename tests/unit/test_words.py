import math
from typing import Annotated, Any, Literal, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zloom.errors import SettingsError
from zloom.model import Schema, Value
from zloom.schema import Meta, schema_of
from zloom.words import MAX_LIKENED, describe, did_you_mean, parse


class Window(TypedDict, total=False):
    start: int


DESCRIBED: list[tuple[Any, str]] = [
    (float, "number"),
    (Annotated[float, Meta(gt=0, le=1)], "number > 0, <= 1"),
    (Annotated[int, Meta(ge=1)] | None, "integer >= 1 or null"),
    (Annotated[float, Meta(lt=0.5)], "number < 0.5"),
    (Literal["adam", "adamw", "sgd"], "one of adam, adamw, sgd"),
    (Literal["a", True, 2] | None, "one of true, 2, a or null"),
    (bool, "boolean"),
    (None, "null"),
    (Annotated[str, Meta(min_length=1, max_length=9)], "string of 1 to 9 characters"),
    (Annotated[str, Meta(max_length=1)], "string of at most 1 character"),
    (Annotated[str, Meta(min_length=2)], "string of at least 2 characters"),
    (Annotated[list[int], Meta(min_length=3, max_length=3)], "array of 3 items of integer"),
    (list[Annotated[int, Meta(ge=0)]] | None, "array of integer >= 0 or null"),
    (Window, "object with start (integer, optional)"),
    (dict, "object"),
]


@pytest.mark.parametrize(("annotation", "words"), DESCRIBED, ids=lambda each: str(each)[:40])
def test_a_schema_is_described_in_a_few_words(annotation: Any, words: str) -> None:
    assert describe(schema_of(annotation)) == words


def test_many_values_are_described_shortly_where_there_is_little_room() -> None:
    five, six = (Schema(type=["string"], enum=list("abcdef"[:count])) for count in (5, 6))
    assert describe(five, shortly=True) == "one of a, b, c, d, e"
    assert describe(six, shortly=True) == "one of a, b, c, … (6)"
    assert describe(six) == "one of a, b, c, d, e, f"
    nullable = Schema(type=["string", "null"], enum=[*"abcdef", None])
    assert describe(nullable, shortly=True) == "one of a, b, c, … (6) or null"
    assert describe(Schema(type=["array"], items=six), shortly=True) == "array of one of a, b, c, … (6)"


def test_several_types_of_another_peer_are_described() -> None:
    assert describe(Schema(type=["integer", "string", "null"], minimum=1)) == "integer >= 1 or string or null"


PARSED: list[tuple[str, Any, Value]] = [
    ("3e-4", float, 3e-4),
    ("16", float, 16.0),
    ("16", int, 16),
    ("-16", int, -16),
    ("true", bool, True),
    ("False", bool, False),
    ("None", float | None, None),
    ("null", float | None, None),
    ("none", str, "none"),
    ("16", str, "16"),
    ("", str, ""),
    ("[1, 2.5]", list[float], [1, 2.5]),
    ('{"start": 1}', Window, {"start": 1}),
    ("adam", Literal["adam", "none"] | None, "adam"),
    ("none", Literal["adam", "none"] | None, "none"),
    ("null", Literal["adam", "none"] | None, None),
    ("none", Literal["adam"] | None, None),
    ("2", Literal["a", 2, True], 2),
    ("true", Literal["a", 2, True], True),
    ("TRUE", Literal["a", 2, True], True),
]


@pytest.mark.parametrize(("text", "annotation", "value"), PARSED)
def test_a_word_is_read_by_the_declared_type(text: str, annotation: Any, value: Value) -> None:
    parsed = parse(text, schema_of(annotation))
    assert parsed == value
    assert type(parsed) is type(value)


def test_an_enum_of_numbers_reads_other_spellings() -> None:
    assert parse("1e-1", Schema(type=["number"], enum=[0.1, 0.5])) == 0.1


def test_a_whole_number_stays_one_where_both_are_allowed() -> None:
    both = Schema(type=["number", "integer", "string"])
    assert type(parse("3", both)) is int
    assert type(parse("3.0", both)) is float
    assert parse("three", both) == "three"


MISREAD: list[tuple[str, Any, str]] = [
    ("fast", float, '"fast" is not a number'),
    ("nan", float, '"nan" is not finite, or too large'),
    ("1e999", float, '"1e999" is not finite, or too large'),
    ("9" * 400, float, "is not finite, or too large"),
    ("12", bool, '"12" is not true or false'),
    ("1.0", int, '"1.0" is not an integer'),
    (str(2**64), int, "is beyond 64 bits"),
    ("9" * 5000, int, "is beyond 64 bits"),
    ("yes", bool, '"yes" is not true or false'),
    ("x", int | None, '"x" is not null or an integer'),
    ("lion", Literal["adam", "sgd"] | None, '"lion" is not one of adam, sgd or null'),
    ("AdamW", Literal["adam", "adamw"], '"AdamW" is not one of adam, adamw; did you mean adamw?'),
    ("Adamm", Literal["adam", "sgd", 3], '"Adamm" is not one of 3, adam, sgd; did you mean adam?'),
    ("1", Literal[True], '"1" is not one of true'),
    ("1.0", Literal[1, 2], '"1.0" is not one of 1, 2'),
    ("1,2", list[int], '"1,2" is not a JSON array'),
    ("[1]", Window, '"[1]" is not a JSON object'),
    ("[[[[1]]]]", list, "is not a JSON array"),
]


@pytest.mark.parametrize(("text", "annotation", "error"), MISREAD, ids=lambda each: str(each)[:30])
def test_a_word_of_another_type_is_refused(text: str, annotation: Any, error: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text, schema_of(annotation))
    assert error in str(caught.value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_each_number_is_read_as_it_is_printed(value: float) -> None:
    assert parse(repr(value), Schema(type=["number"])) == value


@given(st.text())
def test_a_string_is_taken_as_it_stands(text: str) -> None:
    assert parse(text, Schema(type=["string"])) == text


@given(st.text(), st.sampled_from([int, float, bool, list, dict, int | None]))
def test_any_word_is_read_or_refused(text: str, annotation: Any) -> None:
    try:
        value = parse(text, schema_of(annotation))
    except SettingsError:
        return
    assert not isinstance(value, float) or math.isfinite(value)


def test_a_hint_is_the_name_that_is_most_like_it() -> None:
    assert did_you_mean("learning_rat", ["batch_size", "learning_rate"]) == "did you mean learning_rate? "
    assert did_you_mean("x", ["batch_size", "learning_rate"]) == ""
    assert did_you_mean("ADAMw", ["Adam", "AdamW"]) == "did you mean AdamW? "
    many = [*(f"metric{number}" for number in range(MAX_LIKENED)), "learning_rate"]
    assert did_you_mean("learning_rat", many) == "did you mean learning_rate? "
