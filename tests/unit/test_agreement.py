"""How one rank holds, asks the register and obeys: rounds, time and a register in; decisions out."""

import pytest

from tests.unit.round_support import MemoryRegister
from zloom.agreement import (
    CONCLUSION_TIMEOUT,
    DECISION_TIMEOUT,
    LOST_POLL,
    MAX_POLL,
    MIN_POLL,
    SILENT,
    Agreement,
)
from zloom.errors import HoldLimitExceeded
from zloom.model import Revision
from zloom.rounds import End, Round


def a_round(step: int = 5, number: int = 1, revision: int = 1) -> Round:
    return Round("e1", number, Revision(revision, "config", {"a": 1}, mode="consistent"), step)


def ranks(count: int = 2) -> list[Agreement]:
    """Ranks that share a register."""
    shared = MemoryRegister.shared_by(count)
    made = [Agreement() for _ in range(count)]
    for agreement, register in zip(made, shared, strict=True):
        agreement.register = register
    return made


def reached(agreement: Agreement, step: int) -> list[int]:
    return [round.number for round in agreement.reached(step)]


# --- rounds --------------------------------------------------------------------------------------


def test_a_round_is_reached_at_its_step_and_after_it() -> None:
    agreement = Agreement()
    agreement.take(a_round(step=5))
    assert [reached(agreement, step) for step in (4, 5, 9)] == [[], [1], [1]]


def test_a_later_round_takes_the_place_of_an_earlier_one_of_its_revision() -> None:
    agreement = Agreement()
    agreement.take(a_round(step=5, number=1))
    agreement.take(a_round(step=8, number=2))
    assert [reached(agreement, step) for step in (5, 8)] == [[], [2]]


def test_rounds_of_several_revisions_come_in_their_order() -> None:
    agreement = Agreement()
    agreement.take(a_round(step=4, number=7, revision=2))
    agreement.take(a_round(step=5, number=8, revision=1))
    assert reached(agreement, 5) == [8, 7]


def test_a_void_round_is_forgotten() -> None:
    agreement, round = Agreement(), a_round()
    agreement.take(round)
    round.void = True
    assert reached(agreement, 5) == []
    assert not agreement


# --- the broker decides --------------------------------------------------------------------------


@pytest.mark.parametrize("commit", [True, False])
def test_without_a_register_the_broker_s_word_is_the_decision(commit: bool) -> None:
    agreement, round = Agreement(), a_round()
    agreement.take(round)
    assert agreement.decision(round, 1.0) is None
    held = agreement.holding
    round.commit = commit
    assert agreement.decision(round, 1e6) is commit
    assert (held, agreement.holding) == (True, False)
    assert not agreement


def test_without_a_register_a_rank_never_guesses() -> None:
    agreement, round = Agreement(), a_round()
    assert agreement.decision(round, 0.0) is None
    assert agreement.decision(round, 1e9) is None
    assert agreement.poll(1e9) is None


def test_a_hold_limit_raises_and_decides_nothing() -> None:
    agreement, round = Agreement(), a_round()
    agreement.hold_limit = 3.0
    assert agreement.decision(round, 0.0) is None
    assert agreement.decision(round, 3.0) is None
    with pytest.raises(HoldLimitExceeded, match="step 5 was held for 3 s"):
        agreement.decision(round, 3.1)
    round.commit = True
    assert agreement.decision(round, 3.2) is True


def test_a_rank_that_was_lost_before_the_step_turns_a_commit_into_an_abort() -> None:
    agreement, round = Agreement(), a_round()
    round.commit, round.end = True, End(False, "rank 1: lost")
    assert agreement.decision(round, 0.0) is False
    assert round.reason == "rank 1: lost"


# --- the register decides ------------------------------------------------------------------------


def test_nothing_is_written_before_the_broker_s_word_or_the_time_out() -> None:
    one, other = ranks()
    mine, theirs = a_round(), a_round()
    assert one.decision(mine, 10.0) is None
    assert one.decision(mine, 10.0 + DECISION_TIMEOUT - 0.01) is None
    theirs.commit = True
    assert other.decision(theirs, 14.0) is True
    assert one.decision(mine, 10.0 + DECISION_TIMEOUT) is True, "the first writer wins"


def test_silence_is_an_abort_for_all() -> None:
    one, other = ranks()
    mine, theirs = a_round(), a_round()
    one.decision(mine, 0.0)
    assert one.decision(mine, DECISION_TIMEOUT) is False
    assert mine.reason == "the broker's decision did not come within 5 s"
    theirs.commit = True
    assert other.decision(theirs, DECISION_TIMEOUT) is False
    assert theirs.reason == "another rank had not heard the broker's decision in time"


def test_an_abort_that_the_broker_told_is_obeyed_only_if_no_rank_has_committed() -> None:
    one, other = ranks()
    mine, theirs = a_round(), a_round()
    theirs.commit, mine.commit = True, False
    assert other.decision(theirs, 0.0) is True
    assert one.decision(mine, 0.0) is True


def test_a_register_that_cannot_be_reached_decides_nothing() -> None:
    (one, _), round = ranks(), a_round()
    assert isinstance(one.register, MemoryRegister)
    one.register.reachable = False
    round.commit = True
    assert one.decision(round, 0.0) is None
    assert one.decision(round, 4.9) is None
    one.register.reachable = True
    assert one.decision(round, 100.1) is True


def test_an_update_is_left_where_the_register_is_gone() -> None:
    """This rank never notes it as done, so none keeps it."""
    (one, other), (mine, theirs) = ranks(), (a_round(), a_round())
    mine.commit = theirs.commit = True
    assert isinstance(one.register, MemoryRegister)
    one.register.reachable = False
    assert one.decision(mine, 1.0) is None
    assert one.poll(1.1) == LOST_POLL
    assert one.decision(mine, 5.9) is None
    assert one.decision(mine, 6.0) is False
    assert mine.reason == SILENT
    carried_out(other)
    end = [other.end(now) for now in (6.0, 6.0 + CONCLUSION_TIMEOUT)]
    assert end[0] is None
    assert end[1] is not None
    assert not end[1].keep


def test_a_register_that_is_gone_ends_the_wait_for_what_nobody_can_undo_in_an_error() -> None:
    one, other = ranks()
    commands = a_round(), a_round()
    for round in commands:
        round.revision = Revision(1, "command", command="stop", mode="consistent")
    carried_out(other)
    assert other.end(0.0) is None
    for rank in one, other:
        assert isinstance(rank.register, MemoryRegister)
        rank.register.reachable = False
    commands[0].commit = True
    assert (one.decision(commands[0], 1.0), other.end(1.0)) == (None, None)
    assert (one.decision(commands[0], 5.9), other.end(5.9)) == (None, None)
    with pytest.raises(HoldLimitExceeded, match=r"has not answered for 5 s.* revision 1"):
        one.decision(commands[0], 6.0)
    with pytest.raises(HoldLimitExceeded, match="revision 1"):
        other.end(6.0)
    commands[1].commit = False
    assert [one.decision(commands[1], now) for now in (7.0, 11.9, 12.0)] == [None, None, False]


@pytest.mark.parametrize("told", [True, None])
def test_a_command_that_another_has_carried_out_waits_for_no_register(told: bool | None) -> None:
    (one, _), round = ranks(), a_round()
    assert isinstance(one.register, MemoryRegister)
    one.register.reachable = False
    round.revision = Revision(1, "command", command="stop", mode="consistent")
    round.commit = told
    assert one.decision(round, 1.0) is None
    round.end = End(True)
    assert one.decision(round, 1.1) is True
    assert not one
    assert not one.holding


def test_what_stands_in_the_register_counts_for_more_than_what_is_said_of_it() -> None:
    one, other = ranks()
    rounds = a_round(), a_round()
    for round in rounds:
        round.revision = Revision(1, "command", command="stop", mode="consistent")
    rounds[1].commit, rounds[0].end = False, End(True)
    assert other.decision(rounds[1], 0.0) is False
    assert one.decision(rounds[0], 0.0) is False


def test_where_broker_and_register_are_silent_an_update_is_left_after_one_time_out() -> None:
    (one, _), round = ranks(), a_round()
    assert isinstance(one.register, MemoryRegister)
    assert one.decision(round, 0.0) is None
    one.register.reachable = False
    assert one.decision(round, DECISION_TIMEOUT - 0.1) is None
    assert one.decision(round, DECISION_TIMEOUT) is False
    assert round.reason == "the broker's decision did not come within 5 s"


@pytest.mark.parametrize("told", ["abort", "lost", "refused"])
def test_what_is_known_to_be_carried_out_by_none_waits_for_no_register(told: str) -> None:
    (one, _), round = ranks(), a_round()
    assert isinstance(one.register, MemoryRegister)
    one.register.reachable = False
    round.commit = told != "abort"
    round.end = End(False, "rank 0: finished") if told == "lost" else None
    assert one.decision(round, 1.0, refused=told == "refused") is False
    assert not one.holding


def test_an_earlier_silence_of_the_register_is_no_part_of_a_later_one() -> None:
    one, _ = ranks()
    assert isinstance(one.register, MemoryRegister)
    for number, now in ((1, 0.0), (2, 1000.0)):
        round = a_round(number=number)
        round.commit = True
        one.register.reachable = False
        assert one.decision(round, now) is None
        assert one.decision(round, now + 4.9) is None
        one.register.reachable = True
        assert one.decision(round, now + 4.95) is True


def test_each_round_has_its_own_time_out() -> None:
    one, _ = ranks()
    first, second = a_round(number=1), a_round(number=2)
    one.take(first)
    one.decision(first, 0.0)
    one.take(second)
    assert one.decision(second, 4.9) is None
    assert one.decision(second, 4.9 + DECISION_TIMEOUT - 0.1) is None
    assert one.decision(second, 4.9 + DECISION_TIMEOUT) is False


# --- conclude ------------------------------------------------------------------------------------


def carried_out(agreement: Agreement, step: int = 5) -> None:
    agreement.carried_out(a_round(), step, lambda: None)


def test_all_keep_it_when_all_have_noted_the_same_step() -> None:
    one, other = ranks()
    carried_out(one)
    assert one.end(0.0) is None
    held = one.holding
    carried_out(other)
    assert other.end(0.1) == End(True)
    assert one.end(0.2) == End(True)
    assert (held, one.holding) == (True, False)
    assert not one


def test_different_steps_are_undone_by_all_after_the_time_out() -> None:
    one, other = ranks()
    carried_out(one, 5)
    carried_out(other, 6)
    assert (one.end(0.0), other.end(1.0)) == (None, None)
    assert one.end(CONCLUSION_TIMEOUT - 0.1) is None
    ended = End(False, "rank 0: not all ranks had applied it after 60 s")
    assert one.end(CONCLUSION_TIMEOUT) == ended
    assert other.end(CONCLUSION_TIMEOUT) == ended


def test_a_rank_that_failed_has_all_undo_it() -> None:
    one, other = ranks()
    carried_out(one)
    assert one.end(0.0) is None
    other.failed(a_round(), 5, "a: ValueError: no")
    assert one.end(0.1) == End(False, "rank 1: a: ValueError: no")


def test_the_broker_s_word_that_a_rank_is_lost_has_all_undo_it() -> None:
    one, other = ranks()
    carried_out(one)
    one.end(0.0)
    assert one.done is not None
    one.done.round.end = End(False, "rank 1: lost")
    assert one.end(0.1) == End(False, "rank 0: rank 1: lost")
    carried_out(other)
    assert other.end(0.2) == End(False, "rank 0: rank 1: lost")


def test_what_all_keep_is_not_undone_by_a_broker_that_heard_of_a_loss() -> None:
    one, other = ranks()
    carried_out(one)
    one.end(0.0)
    carried_out(other)
    assert other.end(0.0) == End(True)
    assert one.done is not None
    one.done.round.end = End(False, "rank 1: lost")
    assert one.end(0.1) == End(True)


def test_without_a_register_the_broker_concludes_and_there_is_no_time_out() -> None:
    agreement = Agreement()
    carried_out(agreement)
    assert agreement.end(0.0) is None
    assert agreement.end(10 * CONCLUSION_TIMEOUT) is None
    assert agreement.done is not None
    agreement.done.round.end = End(True)
    assert agreement.end(10 * CONCLUSION_TIMEOUT) == End(True)


# --- hold ----------------------------------------------------------------------------------------


def test_the_register_is_asked_again_soon_at_first_and_then_rarely() -> None:
    one, _ = ranks()
    assert one.poll(0.0) is None
    one.decision(a_round(), 0.0)
    assert [one.poll(now) for now in (0.0, 0.4, 4.0)] == [MIN_POLL, 0.05, MAX_POLL]
    one.go_on()
    assert one.poll(4.0) is None
