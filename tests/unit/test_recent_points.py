"""The newest points of a replica, from which baselines of guards are made."""

import math

from hypothesis import given
from hypothesis import strategies as st

from zloom.model import Series
from zloom_broker.guard_watch import BASELINE_POINTS, RecentPoints

values = st.sampled_from([0.5, 1.0, 2.0, math.nan, math.inf])
batches = st.lists(
    st.tuples(st.integers(0, 2 * BASELINE_POINTS), st.integers(-1, 1), st.lists(values, max_size=120)),
    max_size=4,
)


@given(batches)
def test_they_are_the_newest_that_are_numbers(told: list[tuple[int, int, list[float]]]) -> None:
    recent, expected = RecentPoints(), list[tuple[int, float]]()
    for first, surplus, column in told:  # a peer may send columns of two lengths
        steps = list(range(first, max(first, first + len(column) + surplus)))
        recent.take({"loss": Series(steps, column)})
        points = zip(steps, column, strict=False)
        expected += [(step, value) for step, value in points if math.isfinite(value)]
    assert recent.of("loss") == expected[-BASELINE_POINTS:]
