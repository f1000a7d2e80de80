"""All samples of a contender in a few hundred bytes, as an HdrHistogram."""

import contextlib
from collections.abc import Iterable

with contextlib.suppress(ImportError):  # an extra
    from hdrh.histogram import HdrHistogram

LONGEST_NS = 60_000_000_000
"""What takes longer is counted as this: a minute."""

DIGITS = 3
"""Significant ones that are kept of each sample."""


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
