"""Messages of any shape that nevertheless name what exists, so that they reach the depths of a core.

Hypothesis makes a few hundred of them a second, this thousands; what fails is found again by its seed.
"""

from functools import cache
from random import Random
from typing import Any, get_args

import msgspec.inspect as mi
from msgspec import NODEFAULT, Struct

from tests.unit.broker_support import BATCH_SIZE, GPU, LEARNING_RATE, PAUSE
from zloom import messages as m
from zloom.model import MAX_SCHEMA_DEPTH, JsonType, Replica, Schema
from zloom.series import Series

EXTREMES = [0, 1, -1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]
FLOATS = [0.0, -0.0, 0.5, -1.0, 1e308, 5e-324, float("inf"), float("-inf"), float("nan")]
TEXTS = ["", "a", "/", "run/one", "x" * 300, "\0", "\n", "é", "\U0001f600", "%s", "{0}", "loss", "*"]
KINDS: list[JsonType] = ["null", "boolean", "integer", "number", "string", "array", "object"]
CONDITIONS = ["", "loss > 2 * baseline within 200 steps", "loss >", "loss is nan within 5 steps", "(" * 50]

EXISTING: dict[tuple[str, type], list[Any]] = {
    ("run", str): ["run", "run", "run", "other", ""],
    ("attempt", str): ["one", "one", "", "two"],
    ("epoch", str): ["epoch", "epoch", "epoch", "other"],
    ("command", str): ["pause", "pause", "stop", ""],
    ("replica", str): ["a", "b", "c", "z", ""],
    ("device", str): ["GPU-1", "GPU-2", ""],
    ("user", str): ["alice", "bob"],
    ("nonce", str): ["n-a", "n-b", "n"],
    ("topic", str): ["net/", "watch/", ""],
    ("updates", str): ["tcp://*:5556", "ipc:///tmp/updates", "none"],
    ("revert_if", str): CONDITIONS,
    ("protocols", list): [[1], [1], [1, 2], [2], []],
    ("preview", bool): [False, False, False, True],
}
"""What a field holds most of the time, by its name and its type."""

STEPS = ["step", "at_step", "after"]
NEAR = ["id", "seq", "round", "revision", "to_revision", "expected_revision", "before", *STEPS]
"""Whole numbers that are near what there is, most of the time."""


_info = cache(mi.type_info)


class Noise:
    """Makes messages, and what else comes from a network.

    Args:
        seed: The same one makes the same messages.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def message(self, union: Any) -> Any:
        """Return a message of one of the types of a union."""
        kind = self.random.choice(get_args(union))
        info = _info(kind)
        assert isinstance(info, mi.StructType)
        return self._struct(info)

    def change(self) -> m.SetConfig:
        """Return a change that a broker would accept, most likely."""
        changes: dict[str, Any] = {"learning_rate": self.random.choice([0.5, 0.25, 1])}
        return m.SetConfig(id=self._id(), run="run", changes=changes, mode=self.random.choice(["next", None]))

    def mutate(self, payload: bytes) -> bytes:
        """Return a payload with some of its bytes changed, cut off, or repeated."""
        data = bytearray(payload)
        for _ in range(self.random.randint(1, 3)):
            place = self.random.randrange(len(data) + 1)
            match self.random.randrange(3):
                case 0:
                    data[place : place + 1] = self.random.randbytes(1)
                case 1:
                    del data[place:]
                case 2:
                    data[place:place] = data[: self.random.randrange(len(data) + 1)]
        return bytes(data)

    def _any(self, info: mi.Type, name: str = "") -> Any:
        random = self.random
        match info:
            case mi.LiteralType():
                return random.choice(info.values)
            case mi.UnionType():
                return self._any(random.choice(info.types), name)
            case mi.ListType():
                known = EXISTING.get((name, list))
                if known:
                    return random.choice(known)
                return [self._any(info.item_type) for _ in range(random.randint(0, 3))]
            case mi.DictType():
                return self._dict(info, name)
            case mi.StructType() if info.cls is Schema:
                return self._schema(MAX_SCHEMA_DEPTH)
            case mi.StructType() if info.cls is Replica and random.random() < 0.9:
                return self._replica()
            case mi.StructType() if info.cls is Series:
                return self._series()
            case mi.StructType():
                return self._struct(info)
        return self._scalar(info, name)

    def _scalar(self, info: mi.Type, name: str) -> Any:
        random = self.random
        match info:
            case mi.NoneType():
                return None
            case mi.BoolType():
                return random.choice(EXISTING.get((name, bool), [False, True]))
            case mi.IntType():
                near = name in NEAR and random.random() < 0.9
                return random.randint(-1, 9) if near else random.choice([*EXTREMES, random.randint(0, 99)])
            case mi.FloatType():
                return random.choice([*FLOATS, random.random()])
            case mi.BytesType():
                return random.randbytes(random.randint(0, 40))
        return self._text(name)

    def _text(self, name: str) -> str:
        if name == "id":
            return self._id()
        known = EXISTING.get((name, str))
        text: str = self.random.choice(known if known and self.random.random() < 0.9 else TEXTS)
        return text

    def _series(self) -> Series:
        """Return points; steps near each other or at the ends of 64 bits, values of any kind."""
        count = self.random.randint(0, 3)
        steps = [self.random.choice([-(2**63), 2**63 - 1, self.random.randint(-1, 99)]) for _ in range(count)]
        return Series.of(steps, [self.random.choice([*FLOATS, self.random.random()]) for _ in range(count)])

    def _id(self) -> str:
        return f"q{self.random.randint(0, 200)}"

    def _dict(self, info: mi.DictType, name: str) -> dict[Any, Any]:
        random = self.random
        if name == "changes" and random.random() < 0.8:
            keys = random.sample([LEARNING_RATE.name, BATCH_SIZE.name, "none"], random.randint(0, 2))
            return {key: random.choice([0.5, 8, 1, -1, "x", None, [1]]) for key in keys}
        key = "revision" if isinstance(info.key_type, mi.IntType) else ""
        count = random.randint(0, 3)
        return {self._any(info.key_type, key): self._any(info.value_type) for _ in range(count)}

    def _struct(self, info: mi.StructType) -> Struct:
        values: dict[str, Any] = {}
        for field in info.fields:
            has_default = field.default is not NODEFAULT or field.default_factory is not NODEFAULT
            if not has_default or self.random.random() < 0.5:
                values[field.name] = self._any(field.type, field.name)
        if info.cls is m.Hello and self.random.random() < 0.9:
            values["role"] = "operator" if values.get("replica") is None else "weavelet"
        made: Struct = info.cls(**values)
        return made

    def _replica(self) -> Replica:
        random = self.random
        size = random.choice([1, 2, 2])
        return Replica(
            random.choice("abc"),
            "run",
            random.choice(["one", "one", "one", "two"]),
            random.randrange(size),
            size,
            keys=[LEARNING_RATE, BATCH_SIZE][: random.randint(0, 2)],
            commands=[PAUSE],
            devices=[GPU],
            resumed=random.random() < 0.3,
        )

    def _schema(self, depth: int) -> Schema:
        random = self.random
        bounds = ["minimum", "maximum", "exclusive_minimum", "exclusive_maximum", "max_length", "min_items"]
        chosen: dict[str, Any] = {bound: random.choice([0, 1, 2**32]) for bound in random.sample(bounds, 2)}
        if depth > 1 and random.random() < 0.4:
            chosen["items"] = self._schema(depth - 1)
        if depth > 1 and random.random() < 0.4:
            chosen["properties"] = {"a": self._schema(depth - 1)}
        return Schema(random.sample(KINDS, random.randint(0, 2)), **chosen)
