"""Credit keeps what is under way below what the other side said it can take."""

import pytest

from zloom.credit import STREAMED, CreditMeter


@pytest.fixture
def meter() -> CreditMeter:
    meter = CreditMeter()
    meter.said_hello()
    meter.welcomed(8)
    return meter


def test_before_the_welcome_nothing_may_be_sent() -> None:
    meter = CreditMeter()
    meter.said_hello()
    assert not meter.may_send()
    assert not meter.is_due()


def test_as_many_as_the_credit_may_be_unanswered(meter: CreditMeter) -> None:
    for _ in range(8):
        assert meter.may_send()
        meter.sent()
    assert not meter.may_send()
    meter.acknowledged(3)  # the hello and two of ours
    assert meter.may_send()


def test_a_stream_waits_for_its_own_messages_and_for_no_others() -> None:
    meter = CreditMeter()
    meter.said_hello()
    meter.welcomed(100)
    for _ in range(10):
        meter.sent()
    for _ in range(STREAMED):
        assert meter.may_stream()
        meter.sent(streamed=True)
    assert not meter.may_stream()
    meter.acknowledged(11)  # the hello and the ten
    assert not meter.may_stream()
    meter.acknowledged(12)
    assert meter.may_stream()


def test_one_of_a_stream_that_never_left_leaves_its_place_to_another(meter: CreditMeter) -> None:
    for _ in range(STREAMED):
        meter.sent(streamed=True)
    meter.not_sent()
    assert meter.may_stream()
    meter.sent()
    meter.not_sent()
    assert meter.may_stream()
    meter.sent(streamed=True)
    assert not meter.may_stream()


def test_a_new_hello_begins_a_stream_anew(meter: CreditMeter) -> None:
    for _ in range(STREAMED):
        meter.sent(streamed=True)
    meter.said_hello()
    meter.welcomed(8)
    assert meter.may_stream()


def test_an_old_acknowledgement_takes_nothing_back(meter: CreditMeter) -> None:
    for _ in range(8):
        meter.sent()
    meter.acknowledged(9)
    meter.acknowledged(2)
    assert meter.may_send()


def test_the_other_side_is_told_after_each_quarter(meter: CreditMeter) -> None:
    meter.received()
    assert not meter.is_due()
    meter.received()
    assert meter.is_due()
    assert meter.tell() == 3  # the welcome and two more
    assert not meter.is_due()


def test_a_small_credit_is_told_after_each_message() -> None:
    meter = CreditMeter()
    meter.welcomed(1)
    meter.received()
    assert meter.is_due()


def test_a_new_hello_begins_anew(meter: CreditMeter) -> None:
    for _ in range(8):
        meter.sent()
    meter.said_hello()
    assert not meter.may_send()
    meter.welcomed(2)
    assert meter.may_send()
