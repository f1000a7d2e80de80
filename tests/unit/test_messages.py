"""Each type of message goes over the wire and comes back, and any MessagePack codec reads the same."""

from collections import Counter
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.message_strategies import ALL, SIDES, messages
from zloom import codec
from zloom import messages as m
from zloom.model import Outcome
from zloom.series import Series

KINDS = pytest.mark.parametrize(("side", "kind"), ALL, ids=[f"{side}-{kind.__name__}" for side, kind in ALL])


@KINDS
@given(data=st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
def test_a_message_comes_back_and_any_codec_reads_and_writes_it(
    side: str, kind: Any, data: st.DataObject
) -> None:
    message = data.draw(messages(kind))
    decoder, payload = getattr(codec, side), codec.encode(message)
    content = msgspec.to_builtins(message, builtin_types=(bytes,))
    assert decoder.decode(payload) == message
    assert msgpack.unpackb(payload, strict_map_key=False) == content
    assert decoder.decode(msgpack.packb(content)) == message
    assert content["type"] == kind.__struct_config__.tag


@KINDS
@given(data=st.data())
@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
def test_unknown_fields_are_ignored(side: str, kind: Any, data: st.DataObject) -> None:
    message = data.draw(messages(kind))
    newer = msgspec.to_builtins(message, builtin_types=(bytes,)) | {"of_a_newer_version": [{"a": [1, None]}]}
    assert getattr(codec, side).decode(msgpack.packb(newer)) == message


def test_every_type_of_message_belongs_to_a_side() -> None:
    def leaves(kind: type[m.Message]) -> set[type[m.Message]]:
        # The broker has a request of its own, which is on no wire.
        subclasses = [each for each in kind.__subclasses__() if each.__module__ == m.__name__]
        return {leaf for inner in subclasses for leaf in leaves(inner)} or {kind}

    assert leaves(m.Message) == {kind for _, kind in ALL}


def test_a_tag_names_one_type() -> None:
    tags = {kind: kind.__struct_config__.tag for _, kind in ALL}
    assert max(Counter(tags.values()).values()) == 1
    assert tags[m.HelloRequired] == "hello_required"


def test_an_operators_request_is_told_from_what_a_weavelet_says() -> None:
    assert all(issubclass(kind, m.Request) for kind in get_args(m.FromOperator))
    assert not any(issubclass(kind, m.Request) for kind in get_args(m.FromWeavelet))


def test_each_answer_names_its_request() -> None:
    for kind in get_args(m.Answer):
        assert "id" in kind.__struct_fields__


@pytest.mark.parametrize("union", SIDES.values(), ids=list(SIDES))
def test_messages_cannot_be_changed(union: Any) -> None:
    assert all(kind.__struct_config__.frozen for kind in get_args(union))


def test_outcomes_go_by_whole_numbers() -> None:
    message = m.Outcomes(epoch="1-a", outcomes={7: Outcome("r", outcome="applied", step=3)})
    payload = codec.encode(message)
    assert msgpack.unpackb(payload, strict_map_key=False)["outcomes"] == {
        7: {"replica": "r", "outcome": "applied", "step": 3}
    }
    assert codec.to_broker.decode(payload) == message


def test_what_has_its_default_is_left_out() -> None:
    assert msgpack.unpackb(codec.encode(m.Goodbye())) == {"type": "goodbye"}


def test_a_metric_may_be_nan_or_infinite() -> None:
    points = Series.of([1, 2, 3], [float("nan"), float("inf"), -float("inf")])
    decoded = codec.to_broker.decode(codec.encode(m.Status(seq=1, step=3, metrics={"loss": points})))
    assert isinstance(decoded, m.Status)
    assert str(decoded.metrics["loss"].values.tolist()) == "[nan, inf, -inf]"
