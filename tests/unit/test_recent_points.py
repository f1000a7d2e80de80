"""The newest points of a replica, from which baselines of guards are made."""

import math

from hypothesis import given
from hypothesis import strategies as st

from zloom.series import Series
from zloom_broker.guard_watch import BASELINE_POINTS, RecentPoints

values = st.sampled_from([0.5, 1.0, 2.0, math.nan, math.inf])
batches = st.lists(
    st.tuples(st.integers(0, 2 * BASELINE_POINTS), st.lists(values, max_size=120)),
    max_size=4,
)


@given(batches)
def test_they_are_the_newest_that_are_numbers(told: list[tuple[int, list[float]]]) -> None:
    recent, expected = RecentPoints(), list[tuple[int, float]]()
    for first, column in told:
        recent.take({"loss": Series.of(range(first, first + len(column)), column)})
        expected += [(step, value) for step, value in enumerate(column, first) if math.isfinite(value)]
    assert recent.of("loss") == expected[-BASELINE_POINTS:]
