"""Hypothesis strategies for messages, made from their types: whatever a type allows is generated."""

from typing import Any, get_args

import msgspec.inspect as mi
from hypothesis import strategies as st
from msgspec import NODEFAULT, Struct

from zloom.messages import FromBroker, Published, ToBroker
from zloom.model import MAX_SCHEMA_DEPTH, Schema
from zloom.series import Series

SIDES: dict[str, Any] = {"to_broker": ToBroker, "from_broker": FromBroker, "published": Published}
"""The unions of messages, by the name of their decoder in `zloom.codec`."""

ALL = [(side, kind) for side, union in SIDES.items() for kind in get_args(union)]
"""Each type of message, with the side that it belongs to."""

_TEXT = st.text(max_size=12)
_INTEGERS = st.integers(-(2**63), 2**64 - 1)
_FLOATS = st.floats(allow_nan=False)
_SCALARS: dict[type[mi.Type], st.SearchStrategy[Any]] = {
    mi.NoneType: st.none(),
    mi.BoolType: st.booleans(),
    mi.IntType: _INTEGERS,
    mi.FloatType: _FLOATS,
    mi.StrType: _TEXT,
    mi.BytesType: st.binary(max_size=12),
}


def messages(kind: type[Struct]) -> st.SearchStrategy[Any]:
    """Return a strategy for one type of message."""
    return _any(mi.type_info(kind))


def _any(info: mi.Type) -> st.SearchStrategy[Any]:
    match info:
        case mi.IntType() if info.ge is not None or info.le is not None:
            return st.integers(info.ge, info.le)
        case mi.FloatType() if info.ge is not None or info.le is not None:
            return st.floats(info.ge, info.le)
        case mi.LiteralType():
            return st.sampled_from(info.values)
        case mi.UnionType():
            return st.one_of([_any(each) for each in info.types])
        case mi.ListType():
            return st.lists(_any(info.item_type), max_size=3)
        case mi.DictType():
            return st.dictionaries(_any(info.key_type), _any(info.value_type), max_size=3)
        case mi.StructType() if info.cls is Schema:
            return schemas()
        case mi.StructType() if info.cls is Series:
            return series()
        case mi.StructType():
            return _struct(info)
    return _SCALARS[type(info)]


def _struct(info: mi.StructType) -> st.SearchStrategy[Any]:
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for field in info.fields:
        has_default = field.default is not NODEFAULT or field.default_factory is not NODEFAULT
        (optional if has_default else required)[field.name] = _any(field.type)
    fields = st.fixed_dictionaries(required, optional=optional)
    return fields.map(lambda values: info.cls(**values))


def schemas(depth: int = MAX_SCHEMA_DEPTH) -> st.SearchStrategy[Schema]:
    """Return a strategy for schemas of at most so many levels."""
    number = st.none() | _INTEGERS | st.floats(allow_nan=False, allow_infinity=False)
    length = st.none() | st.integers(0, 2**32)
    inner = st.none() if depth == 1 else st.none() | schemas(depth - 1)
    properties = (
        st.none() if depth == 1 else st.none() | st.dictionaries(_TEXT, schemas(depth - 1), max_size=2)
    )
    return st.builds(
        Schema,
        type=st.lists(st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])),
        enum=st.none() | st.lists(st.none() | st.booleans() | _INTEGERS | _TEXT, max_size=3),
        minimum=number,
        maximum=number,
        exclusive_minimum=number,
        exclusive_maximum=number,
        min_length=length,
        max_length=length,
        min_items=length,
        max_items=length,
        items=inner,
        properties=properties,
        required=st.none() | st.lists(_TEXT, max_size=2),
    )


def series() -> st.SearchStrategy[Series]:
    """Return a strategy for points of a metric."""
    steps = st.integers(-(2**63), 2**63 - 1)
    return st.lists(st.tuples(steps, _FLOATS), max_size=3).map(
        lambda points: Series.of([step for step, _ in points], [value for _, value in points])
    )
