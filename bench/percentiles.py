"""The statistics of a run: percentiles of durations, and ratios of medians round by round."""

import math
from collections.abc import Sequence
from statistics import median

from msgspec import Struct

THOUSANDTH = 1000
"""Samples below which a p99.9 would only be another name for the maximum."""


class Percentiles(Struct, frozen=True):
    """Durations in microseconds.

    Attributes:
        n: Samples.
        p50, p90, p99: Each is a sample, the one of that rank.
        p999: Likewise; None of fewer than 1,000 samples.
    """

    n: int
    p50: float
    p90: float
    p99: float
    p999: float | None


class Spread(Struct, frozen=True):
    """The median of the rounds' ratios, with the least and the greatest of them."""

    median: float
    low: float
    high: float


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the sample that at least `percent` of all samples do not exceed (the nearest rank).

    Args:
        ordered: Samples, ascending, at least one.
        percent: Above 0, up to 100.

    Raises:
        ValueError: There are no samples, or `percent` is out of range.
    """
    if not ordered or not 0 < percent <= 100:
        raise ValueError(f"the {percent}th percentile of {len(ordered)} samples; expected 0 to 100 of some")
    # Rounded first: 99.9 / 100 * 1000 is a hair above 999, and would be taken to the rank after.
    return ordered[math.ceil(round(percent / 100 * len(ordered), 6)) - 1]


def summarize(nanoseconds: Sequence[int]) -> Percentiles:
    """Return the percentiles of durations in nanoseconds, in microseconds with one decimal.

    Raises:
        ValueError: There are none.
    """
    ordered = sorted(nanoseconds)

    def micros(percent: float) -> float:
        return round(percentile(ordered, percent) / 1000, 1)

    rare = micros(99.9) if len(ordered) >= THOUSANDTH else None
    return Percentiles(len(ordered), micros(50), micros(90), micros(99), rare)


def ratio(rounds: Sequence[float], peer_rounds: Sequence[float]) -> Spread:
    """Compare two series of the same rounds; a value of one round is only divided by one of that round.

    What slows the machine for a while slows both of a round, and so leaves their ratio alone.

    Raises:
        ValueError: They are not equally many, or there are none.
    """
    return spread([mine / other for mine, other in zip(rounds, peer_rounds, strict=True)])


def difference(rounds: Sequence[float], peer_rounds: Sequence[float]) -> Spread:
    """Compare two series in the same way by what the peer's values leave of the first.

    Raises:
        ValueError: They are not equally many, or there are none.
    """
    return spread([mine - other for mine, other in zip(rounds, peer_rounds, strict=True)])


def spread(values: Sequence[float]) -> Spread:
    """Return the median of the rounds' values, with the least and the greatest.

    Raises:
        ValueError: There are none.
    """
    if not values:
        raise ValueError("no rounds to compare")
    return Spread(round(median(values), 3), round(min(values), 3), round(max(values), 3))
