"""bench.herd: its goals."""

from bench import herd


def test_the_goals_are_for_a_thousand_and_the_memory_grows_with_them() -> None:
    limits = {(goal.case, goal.what): goal.limit for goal in herd.GOALS if goal.limit is not None}

    assert limits == {("1000 weavelets", herd.TIME): 2.0, ("1000 weavelets", herd.MEMORY): 164.0}
