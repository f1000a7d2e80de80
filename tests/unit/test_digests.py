"""Digests of values."""

from zloom.digests import digest
from zloom.model import Value


def test_equal_values_have_the_same_digest_and_others_do_not() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    values: list[Value] = [None, True, 1, 1.0, "1", 2, "", [], {}, [1], [2], {"a": 1}, {"b": 1}]
    assert len({digest(value) for value in values}) == len(values)
    assert all(0 <= digest(value) < 2**48 for value in values)
