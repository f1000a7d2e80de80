"""bench.steps and bench.steps_trainer."""

from pathlib import Path

import pytest

from bench import steps
from bench.steps_trainer import CONTENDERS, LOSS, step_of, train


def test_steps_are_counted_and_each_is_told_of_once() -> None:
    told: list[tuple[int, float]] = []

    rate = train(0.05, step_of("100"), lambda *each: told.append(each))

    assert told == [(number, LOSS) for number in range(1, len(told) + 1)]
    assert rate <= len(told) / 0.05


def test_the_bare_loop_is_the_measure_whatever_the_broker_does() -> None:
    limited = {(goal.case, goal.contender): goal for goal in steps.GOALS if goal.limit is not None}
    cases = [f"{millis} ms a step" for millis in steps.MILLIS]

    for case in cases:
        for ours in (steps.ALIVE, steps.DEAD, steps.ABSENT):
            assert limited.pop((case, ours)).peer == steps.BARE
    assert limited.pop((cases[0], steps.STEERED)).peer == steps.LIGHTNING
    assert not limited
    assert not any(goal.at_most for goal in steps.GOALS if goal.limit is not None)


def test_tensorboard_gets_a_scalar_a_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")

    with CONTENDERS["tensorboard"](str(tmp_path)) as between:
        train(0.05, step_of("100"), between)
        (events,) = tmp_path.rglob("events.out.tfevents.*")
    assert events
