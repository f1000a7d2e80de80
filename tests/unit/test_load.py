"""How busy a broker is."""

import pytest

from zloom_broker.load import WINDOW, Load


def test_a_timer_that_rings_late_shows_how_late_the_loop_is() -> None:
    load = Load()
    for due, now in [(1.0, 1.0), (2.0, 2.5), (3.0, 3.1)]:
        load.rang(due, now)
    gauges = load.gauges(4.0)
    assert gauges["loop_lag_seconds_max"] == pytest.approx(0.5)
    assert gauges["loop_lag_seconds_median"] == pytest.approx(0.1)


def test_commits_are_timed_from_their_submission() -> None:
    load = Load()
    load.submitted(2, 1.0)
    load.submitted(3, 1.5)
    assert load.gauges(1.6)["journal_queue"] == 2
    load.committed(3, 2.0)  # one fsync for both
    gauges = load.gauges(9.0)
    assert (gauges["commit_seconds_median"], gauges["commit_seconds_max"]) == (0.75, 1.0)
    assert gauges["journal_queue"] == 0


def test_a_disk_that_hangs_shows_while_it_hangs() -> None:
    load = Load()
    load.submitted(1, 1.0)
    assert load.gauges(31.0)["commit_seconds_max"] == 30.0
    load.commit_failed()
    assert load.gauges(31.0)["commit_seconds_max"] == 0.0


def test_rates_are_of_the_newest_seconds() -> None:
    load = Load()
    load.count({"received_status": 0, "dropped": 7}, 0.0)
    assert "rate_received_status" not in load.gauges(0.0)
    for second in range(1, 21):
        load.count({"received_status": 100 * max(0, second - 10), "received_sync": 3}, float(second))
    gauges = load.gauges(20.0)
    assert gauges["rate_received_status"] == pytest.approx(100.0)
    assert gauges["rate_received_sync"] == 0.0
    assert "rate_dropped" not in gauges
    load.count({"received_status": 1000, "received_sync": 3}, 20.0 + WINDOW)
    assert load.gauges(30.0)["rate_received_status"] == 0.0
