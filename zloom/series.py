"""Points of one metric, packed so that nobody on their way has to take them apart. Pure."""

from array import array
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, Self

from msgspec import Struct

NUMBER: Final = 8
"""Bytes of a step, and of a value."""

MAX_STATUS_POINTS: Final = 20_000
"""Points of all metrics in one status: guards look at each, and meanwhile a broker answers nobody."""

_SWAPPED: Final = array("q", [1]).tobytes()[0] != 1
"""This machine has the highest byte of a number first."""


class Series(Struct, frozen=True, rename={"packed_steps": "steps", "packed_values": "values"}):
    """Points of one metric, oldest first: two columns of one length, little-endian.

    A MessagePack array of them would make an object of each number wherever it is decoded.

    Raises:
        ValueError: The columns are no numbers of 8 bytes, or are of two lengths. In a message that is a bad
            field.
    """

    packed_steps: bytes
    """Signed integers of 64 bits."""
    packed_values: bytes
    """IEEE 754 doubles; NaN and infinities are points too."""

    def __post_init__(self) -> None:
        """Check what a peer sent."""
        if len(self.packed_steps) != len(self.packed_values) or len(self.packed_steps) % NUMBER:
            raise ValueError(
                f"{len(self.packed_steps)} bytes of steps and {len(self.packed_values)} of values; "
                f"expected {NUMBER} for each step, and as many of values"
            )

    @classmethod
    def of(cls, steps: Iterable[int], values: Iterable[float]) -> Self:
        """Pack points.

        Raises:
            OverflowError: A step is beyond 64 bits, or an integer beyond what a double holds.
            TypeError: A step is no integer, or a value no number.
            ValueError: There are not as many steps as values.
        """
        return cls(_packed(array("q", steps)), _packed(array("d", values)))

    def __len__(self) -> int:
        """Return how many points there are."""
        return len(self.packed_steps) // NUMBER

    @property
    def steps(self) -> "array[int]":
        """The step of each point; a new array each time, which numpy reads without a copy."""
        return _unpacked("q", self.packed_steps)

    @property
    def values(self) -> "array[float]":
        """The value of each point; a new array each time, which numpy reads without a copy."""
        return _unpacked("d", self.packed_values)


def points_in(metrics: Mapping[str, Series]) -> int:
    """Return how many points all metrics have together."""
    return sum(map(len, metrics.values()))


def _packed(column: "array[Any]") -> bytes:
    if _SWAPPED:
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _unpacked(typecode: Literal["q", "d"], packed: bytes) -> "array[Any]":
    column: array[Any] = array(typecode, packed)
    if _SWAPPED:
        column.byteswap()
    return column
