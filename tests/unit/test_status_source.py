"""What a status says of the trainer, apart from what is in its messages: whether it can be steered at all."""

import threading

import pytest

from zloom.handlers import Registry
from zloom.mailbox import Mailbox
from zloom.metrics import MetricBuffer
from zloom.status_source import UNTICKED, StatusSource
from zloom.training import Training


@pytest.fixture
def training() -> Training:
    registry = Registry()
    return Training(registry, Mailbox(registry, lambda *_: None), MetricBuffer())


def reported(training: Training, *times: float) -> StatusSource:
    """A source that collected a status at each of these times, with something reported since the last."""
    source = StatusSource(training, 100, together=False)
    for now in times:
        training.metrics.append(training.step, {"loss": 1.0})
        source.collect(now)
    return source


def test_a_trainer_that_reports_for_a_while_and_never_ticks_lacks_safe_points(training: Training) -> None:
    assert not reported(training, 100.0, 100.0 + UNTICKED - 0.1).lacks_safe_points
    assert reported(training, 100.0, 100.0 + UNTICKED).lacks_safe_points


def test_one_that_has_only_begun_or_reports_nothing_may_have_them_yet(training: Training) -> None:
    source = reported(training, 100.0)
    assert not source.lacks_safe_points
    source.collect(200.0)
    assert not source.lacks_safe_points


def test_one_that_validates_before_its_first_step_may_have_them_yet(training: Training) -> None:
    training.enter("validating", 0.0)
    assert not reported(training, 100.0, 200.0).lacks_safe_points


@pytest.mark.parametrize("place", ["tick", "safe_point"])
def test_one_that_was_at_a_safe_point_has_them(training: Training, place: str) -> None:
    training.step = int(place == "tick")
    training.stood = place == "safe_point"
    assert not reported(training, 100.0, 200.0).lacks_safe_points


def test_the_step_time_is_known_where_no_look_finds_it_training_twice(training: Training) -> None:
    now = 0.0
    source = StatusSource(training, 100, together=False, clock=lambda: now)
    told = []
    for _ in range(3):  # epochs of eight steps, after each of which the trainer validates for longer
        training.enter("training", now)
        told.append(source.collect(now).step_time)
        training.step += 8
        now += 4.0
        training.enter("validating", now)
        told.append(source.collect(now).step_time)
        now += 60.0
    assert told == [None, *5 * [0.5]]


@pytest.mark.parametrize("look", [False, True])
def test_a_pause_is_told_with_what_is_left_of_it(training: Training, look: bool) -> None:
    source = StatusSource(training, 100, together=False, clock=lambda: 1010.0)
    training.mailbox.run(1, 1000.0)
    assert source.collect(5.0, look=look).pause_left is None
    training.registry.run("pause", {"limit": 60.0})
    status = source.collect(5.0, look=look)
    assert (status.paused, status.pause_left) == (True, 50.0)


def test_what_only_takes_more_points_does_not_look(training: Training) -> None:
    now = 0.0
    source = StatusSource(training, 100, together=True, clock=lambda: now)
    training.thread = threading.get_ident()
    assert source.collect(now).waits is False
    for _ in range(100):
        training.step, now = training.step + 1, now + 0.002
        assert source.collect(now, look=False).waits is None
    assert source.collect(now).step_time == pytest.approx(0.002)


def test_time_in_other_phases_is_added_up(training: Training) -> None:
    training.enter("validating", 1.0)
    assert training.away(3.0) == 2.0
    training.enter("saving", 4.0)
    assert training.away(4.0) == 3.0
    training.enter("training", 6.0)
    assert training.away(100.0) == 5.0


def test_a_status_tells_of_which_steps_points_may_still_come(training: Training) -> None:
    source = StatusSource(training, 2, together=False)
    awaited = [source.collect(0.0).awaited]
    for _ in range(5):
        training.step += 1
        training.metrics.append(training.step, {"loss": 0.5})
    awaited += [source.collect(now).awaited for now in (1.0, 2.0, 3.0, 4.0)]
    assert awaited == [0, 3, 5, 5, 5]
