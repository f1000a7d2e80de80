"""Points of a metric, as they are packed."""

import math
import struct

import msgspec
import pytest

from zloom import codec
from zloom.errors import RemoteProtocolError
from zloom.series import Series

POINTS = Series.of([7, 8, -1], [0.5, math.nan, math.inf])


def test_numbers_have_8_bytes_with_the_lowest_first() -> None:
    assert POINTS.packed_steps == struct.pack("<3q", 7, 8, -1)
    assert POINTS.packed_values == struct.pack("<3d", 0.5, math.nan, math.inf)


def test_the_numbers_of_both_columns_are_there_again() -> None:
    assert len(POINTS) == 3
    assert POINTS.steps.tolist() == [7, 8, -1]
    assert str(POINTS.values.tolist()) == "[0.5, nan, inf]"


def test_who_changes_a_column_changes_his_own_copy() -> None:
    POINTS.values[0] = 1.0
    assert POINTS.values[0] == 0.5


def test_a_machine_with_the_highest_byte_first_swaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zloom.series._SWAPPED", True)  # so this machine's order is taken for the other one
    swapped = Series.of([7], [0.5])
    assert swapped.packed_steps == struct.pack("=q", 7)[::-1]
    assert (swapped.steps.tolist(), swapped.values.tolist()) == ([7], [0.5])


@pytest.mark.parametrize(
    ("steps", "values"), [(bytes(8), b""), (bytes(8), bytes(16)), (bytes(7), bytes(7)), (b"", bytes(8))]
)
def test_columns_that_are_no_numbers_or_of_two_lengths_are_a_bad_message(steps: bytes, values: bytes) -> None:
    series = {"steps": steps, "values": values}
    payload = msgspec.msgpack.encode({"type": "status", "seq": 1, "step": 1, "metrics": {"loss": series}})
    with pytest.raises(
        RemoteProtocolError, match=f"bad status: {len(steps)} bytes of steps and {len(values)}"
    ):
        codec.to_broker.decode(payload)


@pytest.mark.parametrize(
    ("steps", "values", "error"),
    [([1], [], ValueError), ([2**63], [0.5], OverflowError), ([1], [10**400], OverflowError)],
)
def test_what_cannot_be_packed_is_refused(
    steps: list[int], values: list[float], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Series.of(steps, values)
