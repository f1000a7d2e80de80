"""Seconds a step, from looks at the counter."""

from zloom.pace import Pace


def test_nothing_is_known_before_a_step_was_seen_to_pass() -> None:
    pace = Pace()
    pace.look(5, 0.0, waits=False)
    pace.look(5, 1.0, waits=False)
    assert pace.step_time is None


def test_the_median_of_what_was_seen() -> None:
    pace = Pace()
    for now, step in [(0.0, 0), (1.0, 10), (2.0, 20), (3.0, 21)]:
        pace.look(step, now, waits=False)
    assert pace.step_time == 0.1


def test_a_step_longer_than_a_look_counts_whole() -> None:
    pace = Pace()
    for now, step in [(0.0, 1), (1.0, 1), (2.0, 1), (3.0, 2)]:
        pace.look(step, now, waits=False)
    assert pace.step_time == 3.0


def test_time_in_which_it_waits_does_not_count() -> None:
    pace = Pace()
    pace.look(0, 0.0, waits=False)
    pace.look(10, 1.0, waits=False)
    pace.look(10, 500.0, waits=True)
    pace.look(10, 1000.0, waits=False)
    pace.look(20, 1001.0, waits=False)
    assert pace.step_time == 0.1
