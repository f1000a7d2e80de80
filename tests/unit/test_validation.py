"""Whether a value satisfies a schema, for whatever a schema can say."""

from typing import Any

import pytest

from zloom.errors import Refused
from zloom.model import Key, Replica, Schema
from zloom_broker.validation import check, check_values, declared_by

NUMBER = Schema(["number"])
INTEGER = Schema(["integer"])
PAIR = Schema(
    ["object"],
    properties={"lr": Schema(["number"], exclusive_minimum=0), "name": Schema(["string"])},
    required=["lr"],
)


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (1, NUMBER),
        (1.5, NUMBER),
        (2**63, INTEGER),
        (None, Schema(["number", "null"])),
        (True, Schema(["boolean"])),
        ("adam", Schema(["string"], enum=["adam", "sgd"])),
        ([1, 2], Schema(["array"], items=INTEGER, min_items=1, max_items=2)),
        ({"lr": 0.5}, PAIR),
        ([], Schema(["array"])),
        ("é" * 3, Schema(["string"], max_length=3)),
    ],
)
def test_g6_what_satisfies(value: Any, schema: Schema) -> None:
    assert check(value, schema) is None


@pytest.mark.parametrize(
    ("value", "schema", "code", "words"),
    [
        (64.0, INTEGER, "wrong_type", "64.0 is not an integer"),
        (True, INTEGER, "wrong_type", "true is not an integer"),
        (True, NUMBER, "wrong_type", "true is not a number"),
        ("1", NUMBER, "wrong_type", "'1' is not a number"),
        (None, NUMBER, "wrong_type", "null is not a number"),
        ("x", Schema(["number", "null"]), "wrong_type", "'x' is not a number or null"),
        (float("nan"), NUMBER, "bad_value", "nan is not finite"),
        (float("inf"), Schema(["number"], exclusive_minimum=0), "bad_value", "inf is not finite"),
        ([float("nan")], Schema(["array"]), "bad_value", "[nan] is not finite"),
        ({"x": [float("-inf")]}, Schema(["object"]), "bad_value", "is not finite"),
        (0, Schema(["number"], exclusive_minimum=0), "out_of_bounds", "0 is out of bounds"),
        (2, Schema(["number"], maximum=1), "out_of_bounds", "2 is out of bounds"),
        (
            "rmsprop",
            Schema(["string"], enum=["adam", "sgd"]),
            "bad_value",
            "'rmsprop' is not one of adam, sgd",
        ),
        (1, Schema(["integer"], enum=[0, 2]), "bad_value", "1 is not one of 0, 2"),
        (1, Schema(["boolean"], enum=[True]), "wrong_type", "1 is not a boolean"),
        ("long", Schema(["string"], max_length=3), "bad_value", "too long"),
        ([], Schema(["array"], min_items=1), "bad_value", ""),
        ([1, 0.5], Schema(["array"], items=INTEGER), "wrong_type", "0.5 is not an integer"),
        ({"lr": 0}, PAIR, "out_of_bounds", "0 is out of bounds"),
        ({}, PAIR, "bad_value", "'lr' is missing"),
        ({"lr": 1, "lrr": 1}, PAIR, "bad_value", "lrr"),
        ("y" * 500, NUMBER, "wrong_type", "… is not a number"),
    ],
)
def test_g6_what_does_not(value: Any, schema: Schema, code: str, words: str) -> None:
    problem = check(value, schema)
    assert problem is not None
    assert problem[0] == code
    assert words in problem[1]
    assert len(problem[1]) < 300


def test_g6_a_value_must_satisfy_each_rank_that_declares_the_key() -> None:
    wide, narrow = Key("lr", NUMBER, 0.1), Key("lr", Schema(["number"], maximum=0.5), 0.1)
    other = Key("momentum", NUMBER, 0.9)
    keys = [[other, wide], [wide], [other], [narrow], [wide]]
    replicas = [Replica(f"r{rank}", "run", "one", rank, 5, keys=each) for rank, each in enumerate(keys)]
    declared = declared_by(replicas, {"lr", "unknown"})
    assert {name: [replica.rank for replica, _ in each] for name, each in declared.items()} == {
        "lr": [0, 1, 3, 4]
    }
    check_values(0.5, declared["lr"])
    with pytest.raises(Refused, match=r"lr: 0\.75 is out of bounds; expected number <= 0\.5 \(rank 3\)"):
        check_values(0.75, declared["lr"])
