"""All samples of a contender in a few hundred bytes, as an HdrHistogram."""

import contextlib
import math
from collections.abc import Iterable

with contextlib.suppress(ImportError):  # an extra
    from hdrh.histogram import HdrHistogram

LONGEST_NS = 60_000_000_000
"""What takes longer is counted as this: a minute."""

DIGITS = 3
"""Significant ones that are kept of each sample."""

POINTS = 60
"""Pieces of a curve."""

FURTHEST = 1000
"""One sample of so many lies beyond the end of a curve: the 99.9th percentile."""


def available() -> bool:
    """Tell whether the package `hdrhistogram` is installed."""
    return "HdrHistogram" in globals()


def encode(nanoseconds: Iterable[int]) -> str:
    """Return the samples as an encoded histogram (V2, base64); empty without the package."""
    if not available():
        return ""
    histogram = HdrHistogram(1, LONGEST_NS, DIGITS)
    for each in nanoseconds:
        histogram.record_value(min(each, LONGEST_NS))
    return str(histogram.encode().decode())


def curve(encoded: str) -> list[tuple[float, float]]:
    """Return percentiles of an encoded histogram, (percent, milliseconds), for a line.

    They go from the median to the 99.9th, or as far as there are samples: beyond that each percentile would
    be the maximum again.

    Raises:
        ImportError: The package is not installed.
    """
    if not available():
        raise ImportError("no hdrh found: pip install hdrhistogram")
    histogram = HdrHistogram.decode(encoded)
    last = math.log10(min(FURTHEST, max(2, histogram.get_total_count())))
    first = math.log10(2)
    percents = (100 - 100 / 10 ** (first + (last - first) * number / POINTS) for number in range(POINTS + 1))
    return [(percent, histogram.get_value_at_percentile(percent) / 1e6) for percent in percents]
