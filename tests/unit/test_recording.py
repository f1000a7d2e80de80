"""Each record comes back as it was written, and any MessagePack codec reads the same."""

from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.message_strategies import messages
from zloom import recording
from zloom.errors import RecordingError

KINDS = pytest.mark.parametrize("kind", get_args(recording.AnyRecord), ids=lambda kind: str(kind.__name__))

HEADER = recording.Header(magic=recording.MAGIC, version=recording.VERSION, run="lm", attempt="one")


@KINDS
@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_record_comes_back_and_any_codec_reads_it(kind: Any, data: st.DataObject) -> None:
    record = data.draw(messages(kind))
    content = msgpack.unpackb(recording.encode(record), strict_map_key=False)
    assert content == msgspec.to_builtins(record, builtin_types=(bytes,))
    assert recording.read(content) == record
    assert recording.read(content | {"of_a_newer_version": [{"a": 1}]}) == record


def test_a_record_of_an_unknown_type_is_passed_over() -> None:
    assert recording.read({"type": "of_a_newer_version", "at": 1.0}) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"type": "revised"}, "holds a bad record 'revised': .*missing required field `revision`"),
        (
            {"type": "end", "reason": 5},
            r"holds a bad record 'end': Expected `str`, got `int` - at `\$.reason`",
        ),
        ({"at": 1.0}, "holds an object that is no record"),
        ({"type": 5}, "holds an object that is no record"),
        ([1, 2], "holds an object that is no record"),
    ],
)
def test_what_is_no_record_is_refused(content: object, expected: str) -> None:
    with pytest.raises(RecordingError, match=expected):
        recording.read(content)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"magic": "tar"}, "is no recording of zloom"),
        (
            {"version": 1, "software": "zloom 9"},
            "is a recording of version 1, and .* version 2; zloom 9 wrote",
        ),
        ({"type": "end", "reason": ""}, "does not begin with a header"),
        ({"run": None}, "holds a bad record 'header'"),
    ],
)
def test_what_is_no_header_is_refused(change: dict[str, Any], expected: str) -> None:
    content = msgpack.unpackb(recording.encode(HEADER)) | change
    with pytest.raises(RecordingError, match=expected):
        recording.read_header(content)


@pytest.mark.parametrize("content", [None, [], 5, "zloom recording", {}])
def test_another_object_is_no_header(content: object) -> None:
    with pytest.raises(RecordingError, match="is no recording of zloom"):
        recording.read_header(content)


def test_a_header_is_one() -> None:
    assert recording.read_header(msgpack.unpackb(recording.encode(HEADER))) == HEADER
