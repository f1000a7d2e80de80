"""The signs of life of one replica."""

import math
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import given

from zloom import codec
from zloom.messages import Status
from zloom.model import MAX_COUNT, MAX_METRIC_NAME, MAX_METRICS, DeviceStatus, Phase
from zloom.series import Series
from zloom_broker.liveness import ABSENT_LIMIT, SILENT_LIMIT, UNROUTABLE_GRACE, Vitals


def connected(now: float = 0.0) -> Vitals:
    vitals = Vitals()
    vitals.connect(now)
    vitals.subscribe()
    return vitals


def status(step: int, seq: int = 1, phase: Phase = "training", *, paused: bool = False) -> Status:
    return Status(seq=seq, step=step, phase=phase, paused=paused, step_time=0.1)


def test_one_ping_is_outstanding_at_a_time() -> None:
    vitals = connected()
    assert vitals.ping_due(2.0, 1.0)
    number = vitals.ping(2.0)
    assert not vitals.ping_due(1000.0, 1.0, news=True), "its subscription would show that it is gone"
    assert not vitals.pong(number - 1)
    assert not vitals.ping_due(3.0, 1.0)
    assert vitals.pong(number)
    assert vitals.ping_due(3.0, 1.0)


def test_one_that_speaks_is_pinged_only_for_news() -> None:
    vitals = connected()
    vitals.hear(10.0)
    assert not vitals.ping_due(11.4, 1.0)
    assert vitals.ping_due(11.4, 1.0, news=True)
    assert vitals.ping_due(11.5, 1.0)
    assert not vitals.ping_due(12.9, 2.0), "it may be silent for one and a half of whatever a beat is"


def test_without_a_subscription_pings_must_tell() -> None:
    vitals = Vitals()
    vitals.connect(0.0)
    vitals.ping(0.0)
    vitals.hear(ABSENT_LIMIT - 0.1)
    assert not vitals.ping_due(ABSENT_LIMIT - 0.1, 1.0)
    assert vitals.ping_due(ABSENT_LIMIT, 1.0)
    vitals.pong(vitals.ping(ABSENT_LIMIT))
    assert vitals.ping_due(ABSENT_LIMIT, 1.0), "whatever it says"


def test_an_absent_one_is_pinged_often_and_lost_in_the_end() -> None:
    vitals = connected()
    vitals.miss(10.0)
    assert vitals.state(10.0, 1.0) == "unresponsive"
    vitals.ping(10.0)
    assert (vitals.ping_due(10.4, 1.0), vitals.ping_due(10.5, 1.0)) == (False, True)
    assert vitals.lost_at() == 10.0 + SILENT_LIMIT
    vitals.miss(10.2, unroutable=True)
    assert vitals.lost_at() == 10.2 + UNROUTABLE_GRACE
    assert not vitals.ping_due(12.0, 1.0, news=True)


def test_one_that_never_subscribed_has_longer() -> None:
    vitals = Vitals()
    vitals.miss(10.0)
    assert vitals.lost_at() == 10.0 + ABSENT_LIMIT


def test_a_pong_brings_an_absent_one_back() -> None:
    vitals = connected()
    vitals.miss(10.0)
    assert vitals.pong(vitals.ping(10.0))
    assert vitals.lost_at() is None
    assert vitals.state(10.1, 1.0) == "live"


def test_a_pong_from_before_it_vanished_brings_nobody_back() -> None:
    vitals = connected()
    old = vitals.ping(9.0)
    vitals.miss(10.0)
    assert not vitals.pong(old)
    assert vitals.lost_at() is not None


def test_g10_one_that_holds_the_gil_is_unresponsive_and_never_lost() -> None:
    vitals = connected()
    vitals.hear(1.0)
    assert vitals.state(4.1, 1.0) == "live", "nobody has asked it"
    number = vitals.ping(2.6)
    assert vitals.state(4.0, 1.0) == "live"
    assert vitals.state(4.1, 1.0) == "unresponsive"
    assert vitals.lost_at() is None
    vitals.pong(number)
    assert vitals.state(60.0, 1.0) == "live"


def test_g10_one_whose_control_alone_is_gone_is_unresponsive_and_never_lost() -> None:
    vitals = connected()
    vitals.report(status(1, paused=True), 9.0)
    vitals.miss(10.0, unroutable=True)
    assert vitals.lost_at() is None
    assert vitals.state(1000.0, 1.0) == "unresponsive"
    assert not vitals.ping_due(1000.0, 1.0, news=True), "its new connection has another routing id"
    vitals.connect(1000.0)
    vitals.subscribe()
    assert vitals.state(1000.1, 1.0) == "paused"


@pytest.mark.parametrize("again", [False, True])
def test_g10_one_whose_control_was_gone_first_is_lost_a_second_after_its_subscription(again: bool) -> None:
    """A second from then: who lives closes his sockets when he makes them anew, however late that is."""
    vitals = connected()
    vitals.miss(10.0, unroutable=True)
    if again:
        vitals.miss(50.0)
        vitals.subscribe()
        assert (vitals.lost_at(), vitals.state(50.1, 1.0)) == (None, "unresponsive")
    vitals.miss(100.0)
    assert vitals.lost_at() == 100.0 + UNROUTABLE_GRACE


def test_g10_one_that_is_cut_off_has_time_to_subscribe_though_its_control_is_gone() -> None:
    vitals = connected()
    vitals.miss(10.0, unroutable=True)
    vitals.cut_off(20.0)
    assert vitals.lost_at() == 20.0 + ABSENT_LIMIT
    vitals.subscribe()
    assert vitals.lost_at() is None


@pytest.mark.parametrize("gone_at", [20.0, 20.5, 24.0, 25.9])
def test_g10_one_that_is_cut_off_has_a_second_at_most_once_its_old_connection_is_closed(
    gone_at: float,
) -> None:
    """It heard no beat either, and makes both sockets anew."""
    vitals = connected()
    vitals.cut_off(20.0)
    vitals.miss(gone_at, unroutable=True)
    assert vitals.lost_at() == min(gone_at + UNROUTABLE_GRACE, 20.0 + ABSENT_LIMIT)


@pytest.mark.parametrize("before", [True, False])
def test_g10_what_is_sent_to_a_closed_connection_later_does_not_change_when_it_is_lost(before: bool) -> None:
    vitals = connected()
    if before:
        vitals.miss(10.0, unroutable=True)
    vitals.cut_off(20.0)
    vitals.miss(21.0, unroutable=True)
    lost_at = vitals.lost_at()
    vitals.miss(21.9, unroutable=True)
    assert vitals.lost_at() == lost_at == (20.0 + ABSENT_LIMIT if before else 21.0 + UNROUTABLE_GRACE)


def test_g10_one_that_is_silent_is_not_lost_later_because_its_connection_is_closed() -> None:
    vitals = connected()
    vitals.miss(10.0)
    vitals.miss(11.4, unroutable=True)
    assert vitals.lost_at() == 10.0 + SILENT_LIMIT


SIGNS: dict[str, Callable[[Vitals, float], None]] = {
    "miss": lambda vitals, now: vitals.miss(now),
    "unroutable": lambda vitals, now: vitals.miss(now, unroutable=True),
    "cut off": lambda vitals, now: vitals.cut_off(now),
    "subscribe": lambda vitals, now: vitals.subscribe(),
    "greet": lambda vitals, now: vitals.greet(now),
}


@given(st.lists(st.tuples(st.sampled_from([*SIGNS]), st.sampled_from([0.0, 0.125, 0.5, 1.25, 4.0]))))
def test_g10_whatever_is_found_out_nobody_is_lost_at_once_or_never(signs: list[tuple[str, float]]) -> None:
    vitals, now = connected(), 10.0
    for sign, later in signs:
        now += later
        before = vitals.lost_at() or math.inf
        if now >= before:
            return
        SIGNS[sign](vitals, now)
        lost_at = vitals.lost_at()
        assert sign not in ("miss", "cut off") or lost_at is not None
        assert lost_at is None or min(before, now + UNROUTABLE_GRACE) <= lost_at <= now + ABSENT_LIMIT


def test_g10_stalled_is_no_step_for_much_longer_than_its_own_median() -> None:
    vitals = connected()
    vitals.report(status(1), 0.0)
    vitals.report(status(2), 1.0)
    assert vitals.state(6.0, 1.0) == "live"
    assert vitals.state(6.1, 1.0) == "stalled"
    vitals.report(status(3), 7.0)
    assert vitals.state(7.1, 1.0) == "live"


@pytest.mark.parametrize("phase", ["validating", "saving", "compiling"])
def test_a_phase_suspends_the_watch_for_stalls(phase: Phase) -> None:
    vitals = connected()
    vitals.report(status(1), 0.0)
    vitals.report(status(1, 2, phase), 1.0)
    assert vitals.state(1000.0, 1.0) == "live"
    vitals.report(status(1, 3), 1000.0)
    assert vitals.state(1004.0, 1.0) == "live"
    assert vitals.state(1006.0, 1.0) == "stalled"


def test_paused_is_not_stalled() -> None:
    vitals = connected()
    vitals.report(status(1, paused=True), 0.0)
    assert vitals.state(1000.0, 1.0) == "paused"


def test_what_a_replica_makes_up_does_not_fill_the_memory() -> None:
    vitals = connected()
    dropped = 0
    for number in range(2 * MAX_METRICS):
        metrics = {f"m{number}": Series.of([1], [0.5])}
        devices = [DeviceStatus(f"d{number}")]
        dropped += vitals.report(Status(seq=number, step=number, metrics=metrics, devices=devices), 0.0)
    assert len(vitals.metrics) == MAX_METRICS
    assert f"m{2 * MAX_METRICS - 1}" in vitals.metrics
    assert dropped == MAX_METRICS
    assert len(vitals.devices) == 64


def test_a_metric_with_an_endless_name_is_dropped_and_counted() -> None:
    vitals = connected()
    metrics = {
        "m" * (MAX_METRIC_NAME + 1): Series.of([1], [0.5]),
        "m" * MAX_METRIC_NAME: Series.of([1], [0.25]),
    }
    assert vitals.report(Status(seq=1, step=1, metrics=metrics), 0.0) == 1
    assert vitals.metrics == {"m" * MAX_METRIC_NAME: 0.25}
    assert vitals.recent.of("m" * (MAX_METRIC_NAME + 1)) == []


@pytest.mark.parametrize("pace", [1e-9, 1e9])
@pytest.mark.parametrize("step", [0, MAX_COUNT])
def test_a_step_is_one_to_count_with_whatever_a_peer_tells(step: int, pace: float) -> None:
    status = codec.to_broker.decode(codec.encode(Status(seq=1, step=step, step_time=pace)))
    assert isinstance(status, Status)
    vitals = connected()
    vitals.report(status, 0.0)
    assert step <= vitals.step_at(1e9) <= step + 1e15
