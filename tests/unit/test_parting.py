"""Ranks that stand at one safe point, and one of them is told to end."""

import pytest

from tests.unit.round_support import MemoryRegister
from zloom.parting import PATIENCE, Parting

ROUND = "e1/7/1"


@pytest.fixture
def ranks() -> tuple[Parting, Parting]:
    one, other = Parting(), Parting()
    one.register, other.register = MemoryRegister.shared_by(2)
    return one, other


def test_ranks_that_go_on_are_told_nothing(ranks: tuple[Parting, Parting]) -> None:
    for rank in ranks:
        rank.paused(5, ROUND)
        assert not rank.is_over()
        rank.go_on(0.0)
    assert [rank.reason for rank in ranks] == ["", ""]


def test_a_pause_ends_on_all_ranks_for_the_reason_of_one(ranks: tuple[Parting, Parting]) -> None:
    one, other = ranks
    one.paused(5, ROUND)
    other.paused(5, ROUND)
    other.depart("SIGTERM")
    other.go_on(0.0)
    assert one.is_over()
    one.go_on(0.0)
    assert [rank.reason for rank in ranks] == ["SIGTERM", "SIGTERM"]


def test_a_rank_that_holds_says_it_before_another_goes_on(ranks: tuple[Parting, Parting]) -> None:
    one, other = ranks
    one.decided(ROUND)
    one.depart("SIGTERM")
    one.tell()
    other.decided(ROUND)
    other.go_on(0.0)
    one.go_on(0.0)
    assert [rank.reason for rank in ranks] == ["SIGTERM", "SIGTERM"]


def test_ranks_part_for_one_reason_though_the_register_is_silent_for_a_while(
    ranks: tuple[Parting, Parting],
) -> None:
    one, other = ranks
    assert isinstance(one.register, MemoryRegister)
    for rank in ranks:
        rank.decided(ROUND)
    one.register.reachable = False
    one.go_on(10.0)
    stays = [one.meets]
    other.depart("SIGTERM")
    other.go_on(10.0)
    one.go_on(14.9)
    stays.append(one.meets and not one.reason)
    one.register.reachable = True
    one.go_on(14.95)
    assert [*stays, one.meets] == [True, True, False]
    assert [rank.reason for rank in ranks] == ["SIGTERM", "SIGTERM"]


def test_one_that_is_to_end_does_so_though_the_register_does_not_tell(ranks: tuple[Parting, Parting]) -> None:
    """What it asked for may be found by the others."""
    one, _ = ranks
    assert isinstance(one.register, MemoryRegister)
    one.register.reachable = False
    one.paused(5, ROUND)
    one.depart("SIGTERM")
    for now in (10.0, 10.0 + PATIENCE):
        one.go_on(now)
    assert (one.meets, one.reason) == (False, "SIGTERM")


def test_a_silence_before_a_pause_is_none_after_it(ranks: tuple[Parting, Parting]) -> None:
    one, _ = ranks
    assert isinstance(one.register, MemoryRegister)
    one.register.reachable = False
    one.decided(ROUND)
    one.go_on(10.0)
    one.paused(5, ROUND)
    one.go_on(1000.0)
    assert one.meets


def test_a_register_that_is_gone_keeps_nobody(ranks: tuple[Parting, Parting]) -> None:
    one, _ = ranks
    assert isinstance(one.register, MemoryRegister)
    one.register.reachable = False
    for begin in (10.0, 50.0):
        one.decided(ROUND)
        stays = []
        for now in (begin, begin + PATIENCE - 0.1, begin + PATIENCE):
            one.go_on(now)
            stays.append(one.meets)
        assert stays == [True, True, False]


def test_one_that_is_told_too_late_ends_alone(ranks: tuple[Parting, Parting]) -> None:
    one, other = ranks
    for rank in ranks:
        rank.decided(ROUND)
    one.go_on(0.0)
    other.depart("SIGTERM")
    other.go_on(0.0)
    assert [rank.reason for rank in ranks] == ["", ""]
    # It can still take the others along where they meet next, if that is in the same round.
    for rank in reversed(ranks):
        rank.concluded(ROUND)
        rank.go_on(0.0)
    assert [rank.reason for rank in ranks] == ["SIGTERM", "SIGTERM"]


def test_a_pause_is_another_each_time_and_counts_for_what_it_serves(ranks: tuple[Parting, Parting]) -> None:
    one, other = ranks
    for rank in ranks:
        rank.paused(5, ROUND)
        rank.go_on(0.0)
        rank.paused(8)  # again, after a bounded resume
    other.depart("SIGTERM")
    other.decided("e1/8/1")  # which the first has not heard of yet
    other.tell()
    assert one.is_over()
    one.go_on(0.0)
    assert one.reason == "SIGTERM"


def test_without_a_store_or_a_meeting_each_is_on_its_own(ranks: tuple[Parting, Parting]) -> None:
    one, alone = ranks[0], Parting()
    alone.paused(5, ROUND)
    for rank in (one, alone):
        rank.depart("SIGTERM")
        assert not rank.is_over()
        rank.tell()
        rank.go_on(0.0)
        assert rank.reason == ""


def test_the_reason_holds_until_the_next_safe_point(ranks: tuple[Parting, Parting]) -> None:
    one, other = ranks
    for rank in ranks:
        rank.decided(ROUND)
        rank.depart("SIGTERM")
        rank.go_on(0.0)
    one.go_on(0.0)
    assert (one.reason, other.reason) == ("", "SIGTERM")


def test_who_serves_the_register_is_needed_until_all_have_left(ranks: tuple[Parting, Parting]) -> None:
    one, other = ranks
    needed = [one.is_needed]
    for rank in ranks:
        rank.decided(ROUND)
    for rank in ranks:
        rank.go_on(0.0)
        needed.append(one.is_needed)
    assert needed == [False, True, False]
    other.decided("e1/8/1")
    other.go_on(0.0)
    assert not other.is_needed, "it serves nothing"
