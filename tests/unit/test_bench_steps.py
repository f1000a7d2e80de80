"""bench.steps and bench.steps_trainer."""

import threading
from pathlib import Path

import pytest

from bench import steps
from bench.steps_trainer import CONTENDERS, LOSS, step_of, train


def test_steps_are_counted_and_each_is_told_of_once() -> None:
    told: list[tuple[int, float]] = []

    turn = train(0.05, step_of("100"), lambda *each: told.append(each))

    assert told == [(number, LOSS) for number in range(1, len(told) + 1)]
    assert turn.rate <= len(told) / 0.05


def test_what_is_done_beside_a_step_is_taken_from_it_on_whatever_thread() -> None:
    work, little = step_of("2000"), train(0.1, step_of("2000"), lambda *each: None)
    alike = train(0.1, work, lambda *each: work())
    ended = threading.Event()

    def burn() -> None:
        while not ended.is_set():
            work()

    thread = threading.Thread(target=burn)
    thread.start()
    try:
        beside = train(0.1, work, lambda *each: None)
    finally:
        ended.set()
        thread.join()

    assert 0 < little.taken < alike.taken < 100
    assert little.taken < beside.taken


def test_the_bare_loop_is_the_measure_whatever_the_broker_does() -> None:
    limited = {
        (goal.case, goal.contender): goal
        for goal in steps.GOALS
        if goal.limit is not None and goal.what == steps.WHAT
    }
    cases = [f"{millis} ms a step" for millis in steps.MILLIS]

    for case in cases:
        for ours in (steps.ALIVE, steps.DEAD, steps.ABSENT):
            assert limited.pop((case, ours)).peer == steps.BARE
    assert limited.pop((cases[0], steps.STEERED)).peer == steps.LIGHTNING
    assert not limited
    assert not any(goal.at_most for goal in steps.GOALS if goal.what == steps.WHAT and goal.limit is not None)


def test_tensorboard_gets_a_scalar_a_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")

    with CONTENDERS["tensorboard"](str(tmp_path)) as between:
        train(0.05, step_of("100"), between)
        (events,) = tmp_path.rglob("events.out.tfevents.*")
    assert events
