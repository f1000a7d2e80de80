"""bench.percentiles."""

import random

import pytest

from bench.percentiles import Spread, percentile, ratio, summarize


def test_a_percentile_is_the_sample_of_the_nearest_rank() -> None:
    ordered = [float(number) for number in range(1, 11)]

    found = [percentile(ordered, percent) for percent in (1, 10, 50, 51, 90, 99, 100)]

    assert found == [1, 1, 5, 6, 9, 10, 10]


@pytest.mark.parametrize(("percent", "expected"), [(50, 500), (90, 900), (99, 990), (99.9, 999)])
def test_a_percentile_of_a_thousand_is_not_a_rank_too_far(percent: float, expected: float) -> None:
    assert percentile([float(number) for number in range(1, 1001)], percent) == expected


def test_one_sample_is_every_percentile() -> None:
    assert {percentile([7.0], percent) for percent in (0.1, 50, 100)} == {7.0}


@pytest.mark.parametrize(("ordered", "percent"), [([], 50), ([1.0], 0), ([1.0], 100.1)])
def test_no_samples_or_no_percent_is_an_error(ordered: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(ordered, percent)


def test_a_summary_is_in_microseconds_and_the_order_does_not_matter() -> None:
    nanoseconds = [number * 1000 for number in range(1, 1001)]
    random.Random(0).shuffle(nanoseconds)

    found = summarize(nanoseconds)

    assert (found.n, found.p50, found.p90, found.p99, found.p999) == (1000, 500.0, 900.0, 990.0, 999.0)


def test_fewer_than_a_thousand_samples_have_no_p999() -> None:
    assert summarize([1000] * 999).p999 is None


def test_a_ratio_compares_within_rounds_only() -> None:
    # The second round ran on a machine ten times slower; the medians of all rounds would compare 20 with 1.
    assert ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.0]) == Spread(2.0, 2.0, 2.2)


def test_rounds_that_are_not_equally_many_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0, 2.0], [1.0])


def test_no_rounds_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="no rounds"):
        ratio([], [])
