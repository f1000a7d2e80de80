"""The safe points of one rank or several, for consistent revisions: rounds in, outcomes out."""

from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.unit.round_support import MemoryRegister
from zloom.agreement import CONCLUSION_TIMEOUT, DECISION_TIMEOUT
from zloom.errors import HoldLimitExceeded, UndoError
from zloom.handlers import Registry
from zloom.mailbox import Mailbox
from zloom.model import Outcome, Revision, Value
from zloom.restoring import Restore
from zloom.rounds import End, Round


@dataclass
class Rank:
    """A registry with the keys a and b and the command go, its mailbox, and what became of it."""

    register: MemoryRegister | None = None
    ready: bool = True
    effective: dict[str, Value] = field(default_factory=lambda: {"a": 0, "b": 0})
    outcomes: list[str] = field(default_factory=list)
    confirmed: list[int] = field(default_factory=list)
    chains: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry = Registry()
        self.mailbox = Mailbox(self.registry, self._answer, lambda round, step: self.confirmed.append(step))
        self.mailbox.decide_in(self.register, None)
        for name in self.effective:
            self.declare(name)
        self.registry.add_command("go", lambda: self.effective.update(gone=True))

    def declare(self, name: str) -> None:
        def take(value: int) -> None:
            if value < 0:
                raise ValueError("below zero")
            self.effective[name] = value

        self.registry.add_key(name, take, initial=0, ready=lambda _: self.ready)

    def _answer(self, number: int, outcome: Outcome) -> None:
        at = "" if outcome.step is None else f"@{outcome.step}"
        self.outcomes.append(f"{number} {outcome.outcome}{at} {outcome.error}".rstrip())
        self.chains.append(outcome.chain)

    def run(self, step: int, now: float = 0.0) -> list[str]:
        """Reach a safe point, and return the outcomes that this brought."""
        self.outcomes.clear()
        self.mailbox.run(step, now)
        return list(self.outcomes)

    def promise(self, round: Round, commit: bool | None = None) -> Round:
        """Promise a round, of which the broker has said this."""
        round.commit = commit
        self.mailbox.promise(round)
        return round


def pair() -> tuple[Rank, Rank]:
    one, other = MemoryRegister.shared_by(2)
    return Rank(one), Rank(other)


def config(
    number: int, *, step: int = 5, round: int = 1, supersedes: tuple[int, ...] = (), **changes: Value
) -> Round:
    revision = Revision(
        number, "config", changes, supersedes=list(supersedes), mode="consistent", chain=b"c%d" % number
    )
    return Round("e1", round, revision, step)


def command(number: int, name: str, *, step: int = 5) -> Round:
    return Round("e1", 1, Revision(number, "command", command=name, mode="consistent"), step)


def cancel(number: int, cancels: int, *, step: int = 5) -> Round:
    return Round("e1", 1, Revision(number, "cancel", cancels=cancels, mode="consistent"), step)


# --- the ranks' store is silent for a while ------------------------------------------------------

moments = st.sampled_from([0.0, 0.5, 3.0, 6.0, 20.0, 500.0])


@dataclass
class Fate:
    """When a rank comes to the step, hears the broker, and has no answer of the store."""

    comes: float
    hears: float
    silent: float
    silence: float
    raised: bool = False


fates = st.builds(Fate, moments.filter(lambda moment: moment < 60), moments, moments, moments)


@settings(max_examples=settings().max_examples * 3)
@given(st.tuples(fates, fates))
def test_g9_ranks_keep_an_update_or_none_does_whenever_their_store_is_silent(both: tuple[Fate, Fate]) -> None:
    ranks = pair()
    rounds = [rank.promise(config(1, a=1)) for rank in ranks]
    for quarter in range(4 * 120):
        now = quarter / 4
        for rank, fate, round in zip(ranks, both, rounds, strict=True):
            assert rank.register is not None
            rank.register.reachable = not fate.silent <= now < fate.silent + fate.silence
            round.commit = True if now >= fate.hears else None
            if now >= fate.comes and (now == fate.comes or rank.mailbox.must_wait) and not fate.raised:
                try:
                    rank.run(5, now)
                except HoldLimitExceeded:
                    fate.raised = True
                    assert rank.effective["a"] == 1, "it might have left it"
    kept = [rank.effective["a"] for rank, fate in zip(ranks, both, strict=True) if not fate.raised]
    assert len(set(kept)) <= 1, f"{both} ended with {kept}"
    assert not any(rank.mailbox.must_wait and not fate.raised for rank, fate in zip(ranks, both, strict=True))


# --- hold ----------------------------------------------------------------------------------------


def test_the_step_of_a_promise_is_held_until_the_decision() -> None:
    rank = Rank()
    round = rank.promise(config(1, a=1))
    waits: list[bool] = []

    def run(step: int) -> list[str]:
        outcomes = rank.run(step)
        waits.append(rank.mailbox.must_wait)
        return outcomes

    assert run(4) == []
    assert run(5) == []
    round.commit = True
    run(5)
    assert rank.effective["a"] == 1
    round.end = End(True)  # until then it is not concluded
    assert run(5) == ["1 applied@5"]
    assert waits == [False, True, True, False]
    assert not rank.mailbox.waiting
    assert rank.confirmed == [5]


def test_a_round_that_was_moved_to_a_later_step_lets_go_of_the_earlier_one() -> None:
    rank = Rank()
    first = rank.promise(config(1, a=1))
    rank.run(5)
    first.commit = False
    rank.promise(config(1, step=9, round=2, a=1))
    assert rank.run(5) == []
    assert not rank.mailbox.must_wait


def test_a_promise_that_came_too_late_after_all_lets_go() -> None:
    rank = Rank()
    round = rank.promise(config(1, a=1))
    rank.run(5)
    assert rank.mailbox.must_wait
    round.void = True
    assert rank.run(5) == []
    assert not rank.mailbox.must_wait


def test_nothing_else_is_carried_out_while_a_rank_holds() -> None:
    rank = Rank()
    round = rank.promise(config(1, a=1))
    rank.mailbox.put(Revision(2, "config", {"b": 2}))
    assert rank.run(5) == []
    round.commit = False
    assert rank.run(5) == ["2 applied@5"], "nobody asked this rank to answer for a round that came to nothing"


def test_a_step_that_is_skipped_counts_as_reached() -> None:
    rank = Rank()
    round = rank.promise(config(1, a=1), commit=True)
    rank.run(8)
    round.end = End(True)
    assert rank.run(8) == ["1 applied@8"]


def test_an_end_that_comes_before_the_decision_is_one_against_it() -> None:
    rank = Rank()
    round = rank.promise(config(1, a=1))
    assert rank.run(5) == []
    round.end = End(False, "rank 1 was lost")
    assert rank.run(5) == ["1 aborted rank 1 was lost"]
    assert not rank.mailbox.must_wait


def test_a_pause_serves_what_is_decided_and_does_not_end_before() -> None:
    rank = Rank()
    rank.promise(command(1, "pause"), commit=True)
    assert rank.run(5) == ["1 applied@5"]
    round = rank.promise(config(2, a=1))
    rank.run(5, 1.0)
    rank.mailbox.pause.end()
    rank.run(5, 2.0)
    assert rank.mailbox.must_wait
    round.commit, round.end = True, End(True)
    assert rank.run(5, 3.0) == ["2 applied@5"]
    assert not rank.mailbox.must_wait


def test_a_rank_that_is_to_end_takes_the_others_out_of_the_pause() -> None:
    ranks = pair()
    for rank in ranks:
        rank.promise(command(1, "pause"), commit=True)
        rank.run(5)
    one, other = (rank.mailbox for rank in ranks)
    other.parting.depart("SIGTERM")
    other.pause.end()
    other.run(5, 1.0)
    waited = one.must_wait
    one.run(5, 1.0)
    assert (waited, one.must_wait) == (True, False)
    assert (one.parting.reason, other.parting.reason) == ("SIGTERM", "SIGTERM")


def test_g9_a_rank_that_is_to_end_while_it_is_pausing_takes_the_others_along() -> None:
    """An operator has heard that both pause, and a signal comes before the last rank has got to waiting."""
    one, other = pair()
    for rank in (one, other):
        rank.promise(command(1, "pause"), commit=True)
    one.run(5)

    class Signalled(list[str]):
        def append(self, outcome: str) -> None:
            super().append(outcome)
            other.mailbox.parting.depart("SIGTERM")
            other.mailbox.pause.end()

    other.outcomes = Signalled()
    assert other.run(5) == ["1 applied@5"]
    assert not other.mailbox.must_wait
    one.run(5, 1.0)
    assert not one.mailbox.must_wait
    assert [rank.mailbox.parting.reason for rank in (one, other)] == ["SIGTERM", "SIGTERM"]


def test_g9_ranks_that_were_started_paused_end_together_too() -> None:
    ranks = pair()
    for rank in ranks:
        rank.mailbox.pause.begin_with(60.0)
        rank.run(1)
    one, other = (rank.mailbox for rank in ranks)
    other.parting.depart("SIGTERM")
    other.pause.end()
    other.run(1, 1.0)
    one.run(1, 1.0)
    assert [rank.mailbox.must_wait for rank in ranks] == [False, False]
    assert (one.parting.reason, other.parting.reason) == ("SIGTERM", "SIGTERM")


def test_ranks_that_hold_for_one_that_is_to_end_end_with_it() -> None:
    ranks = pair()
    for rank in ranks:
        rank.promise(config(1, a=1), commit=True)
    one, other = ranks
    one.run(5)
    other.mailbox.parting.depart("SIGTERM")
    other.mailbox.parting.go_on = lambda _: one.run(5, 1.0)  # type: ignore[method-assign,assignment]
    assert other.run(5, 1.0) == ["1 applied@5"]
    del other.mailbox.parting.go_on
    other.mailbox.parting.go_on(0.0)
    assert one.outcomes == ["1 applied@5"]
    assert [rank.mailbox.parting.reason for rank in ranks] == ["SIGTERM", "SIGTERM"]


def test_a_rank_that_holds_and_is_to_end_takes_the_last_one_along() -> None:
    ranks = pair()
    for rank in ranks:
        rank.promise(config(1, a=1), commit=True)
    one, other = ranks
    one.run(5)
    one.mailbox.parting.depart("SIGTERM")
    one.run(5, 1.0)
    other.run(5, 2.0)
    one.run(5, 2.0)
    assert [rank.mailbox.parting.reason for rank in ranks] == ["SIGTERM", "SIGTERM"]


def test_g9_one_that_is_to_end_does_not_leave_where_others_pass_by() -> None:
    """Another rank was past the step already and promised nothing, so it does not come to this safe point."""
    one, _ = pair()
    one.promise(config(1, a=1), commit=False)
    one.mailbox.parting.depart("SIGTERM")
    one.run(5)
    assert not one.mailbox.must_wait
    assert one.mailbox.parting.reason == ""


def test_g9_one_that_is_to_end_does_not_leave_where_another_rank_has_failed() -> None:
    """The handler raised there, so that rank does not wait for how the update ends."""
    one, other = pair()
    for rank in (one, other):
        rank.ready = False
        rank.promise(config(1, a=1), commit=True)
        rank.run(5)  # decided here, carried out where it may be
        rank.ready = True
    other.registry.add_key("a", lambda value: 1 / 0, initial=0)
    one.run(7)
    one.mailbox.parting.depart("SIGTERM")
    assert other.run(7) == ["1 rejected@7 a: ZeroDivisionError: division by zero"]
    one.run(7)
    assert [rank.mailbox.must_wait for rank in (one, other)] == [False, False]
    assert (one.mailbox.parting.reason, other.mailbox.parting.reason) == ("", "")


def test_g9_a_pause_that_ends_at_its_limit_is_left_by_all_in_the_same_way() -> None:
    one, other = pair()
    for rank in (one, other):
        rank.promise(command(1, "pause"), commit=True)
        rank.run(5)
    limit = one.mailbox.pause.until
    assert limit is not None
    one.run(5, limit)
    assert not one.mailbox.must_wait
    other.mailbox.parting.depart("SIGTERM")
    other.mailbox.pause.end()
    other.run(5, limit)
    assert (one.mailbox.parting.reason, other.mailbox.parting.reason) == ("", "")


def test_g9_a_rank_whose_pause_was_ended_asks_once_more_before_it_goes_on() -> None:
    one, other = pair()
    for rank in (one, other):
        rank.promise(command(1, "pause"), commit=True)
        rank.run(5)
    one.mailbox.pause.end()
    assert one.mailbox.must_wait, "what was agreed in the pause is not known yet"
    other.mailbox.parting.depart("SIGTERM")
    other.mailbox.pause.end()
    other.run(5, 1.0)
    one.run(5, 1.0)
    assert [rank.mailbox.parting.reason for rank in (one, other)] == ["SIGTERM", "SIGTERM"]
    assert not one.mailbox.must_wait


# --- all or none ---------------------------------------------------------------------------------


def test_g9_two_ranks_keep_it_at_one_step() -> None:
    one, other = pair()
    mine, theirs = one.promise(config(1, a=1), commit=True), other.promise(config(1, a=1))
    assert one.run(5) == []
    assert other.run(5, 1.0) == []
    assert (one.effective["a"], other.effective["a"]) == (1, 0)
    theirs.commit = True
    assert other.run(5, 1.1) == ["1 applied@5"]
    assert one.run(5, 1.1) == ["1 applied@5"]
    assert mine.end is None, "the broker was not needed"


def test_g9_a_handler_that_raises_on_one_rank_has_all_undo() -> None:
    one, other = pair()
    other.registry.add_key("a", lambda value: 1 // 0, initial=0)
    for rank in (one, other):
        rank.promise(config(1, b=3, a=1), commit=True)
    assert one.run(5) == []
    assert one.effective == {"a": 1, "b": 3}
    assert other.run(5) == ["1 rejected@5 a: ZeroDivisionError: integer division or modulo by zero"]
    assert one.run(5) == ["1 aborted rank 1: a: ZeroDivisionError: integer division or modulo by zero"]
    assert one.effective == other.effective == {"a": 0, "b": 0}


def test_a_rank_that_is_never_ready_has_all_undo_after_the_time_out() -> None:
    one, other = pair()
    other.ready = False
    for rank in (one, other):
        rank.promise(config(1, a=1), commit=True)
    assert (one.run(5), other.run(5)) == ([], [])
    assert not other.mailbox.must_wait, "a revision that waits for its place does not hold the training"
    assert one.run(5, CONCLUSION_TIMEOUT) == ["1 aborted rank 0: not all ranks had applied it after 60 s"]
    other.ready = True
    assert other.run(6, 61.0) == ["1 aborted rank 0: not all ranks had applied it after 60 s"]
    assert one.effective == other.effective == {"a": 0, "b": 0}


def test_both_become_ready_at_the_same_later_step() -> None:
    one, other = pair()
    for rank in (one, other):
        rank.ready = False
        rank.promise(config(1, a=1), commit=True)
        assert (rank.run(5), rank.mailbox.must_wait) == ([], False)
        rank.ready = True
    assert (one.run(6), other.run(6), one.run(6)) == ([], ["1 applied@6"], ["1 applied@6"])


def test_a_silent_broker_ends_a_hold_on_all_ranks() -> None:
    one, other = pair()
    one.promise(config(1, a=1))
    other.promise(config(1, a=1))
    one.run(5)
    late = "1 aborted the broker's decision did not come within 5 s"
    assert one.run(5, DECISION_TIMEOUT) == [late]
    other.run(5, DECISION_TIMEOUT)
    assert other.run(5, 2 * DECISION_TIMEOUT) == [late]
    assert not one.mailbox.must_wait
    assert not other.mailbox.must_wait


def test_an_undo_that_raises_surfaces_and_is_told() -> None:
    rank = Rank()

    def take(value: int) -> None:
        if value == 0:
            raise OSError("gone")

    rank.registry.add_key("a", take, initial=0)
    round = rank.promise(config(1, a=1), commit=True)
    rank.run(5)
    round.end = End(False, "rank 1: lost")
    with pytest.raises(UndoError, match="OSError: gone"):
        rank.mailbox.run(5, 0.0)
    assert [text.partition("; undoing")[0] for text in rank.outcomes] == ["1 aborted rank 1: lost"]
    assert not rank.mailbox.must_wait


def test_a_rank_that_declares_none_of_the_keys_takes_part() -> None:
    one, other = pair()
    other.registry = Registry()
    other.mailbox = Mailbox(other.registry, other._answer)
    other.mailbox.decide_in(other.register, None)
    for rank in (one, other):
        rank.promise(config(1, a=1), commit=True)
    assert (one.run(5), other.run(5), one.run(5)) == ([], ["1 applied@5"], ["1 applied@5"])


def test_a_command_is_decided_and_not_concluded() -> None:
    one, other = pair()
    for rank in (one, other):
        rank.promise(command(1, "go"), commit=True)
        assert rank.run(5) == ["1 applied@5"]
        assert rank.effective["gone"]


@pytest.mark.parametrize("what", ["undeclared", "raises", "applied"])
def test_g9_a_stop_in_a_pause_ends_it_on_all_ranks(what: str) -> None:
    """One that stayed would have the others wait in their next collective."""
    ranks = pair()

    def stop() -> None:
        if what == "raises":
            raise ValueError("not now")

    for rank in ranks:
        if rank is ranks[0] or what != "undeclared":
            rank.registry.add_command("stop", stop if rank is ranks[1] else lambda: None)
        rank.promise(command(1, "pause"), commit=True)
        rank.run(5)
    assert [rank.mailbox.must_wait for rank in ranks] == [True, True]
    for rank in ranks:
        rank.promise(command(2, "stop"), commit=True)
        rank.run(5, 1.0)
    assert [rank.mailbox.must_wait for rank in ranks] == [False, False]


def test_a_revision_that_a_rank_has_answered_is_carried_out_by_none() -> None:
    one, other = pair()
    one.promise(config(1, a=1))
    one.run(5)
    one.run(5, DECISION_TIMEOUT)
    # Its loop has promised another round before it heard of that.
    for rank in (one, other):
        rank.promise(config(1, step=9, round=2, a=1), commit=True)
    assert one.run(9, 6.0) == []
    assert other.run(9, 6.0) == ["1 aborted another rank had not heard the broker's decision in time"]
    assert one.effective == other.effective == {"a": 0, "b": 0}


def test_what_waits_for_its_place_ends_when_a_rank_is_lost() -> None:
    rank = Rank(ready=False)
    round = rank.promise(config(1, a=1), commit=True)
    assert rank.run(5) == []
    round.end = End(False, "rank 1: lost")
    assert rank.run(6) == ["1 aborted rank 1: lost"]
    assert not rank.mailbox.waiting


def test_an_outcome_tells_of_which_history_it_is() -> None:
    rank = Rank()
    round = rank.promise(config(1, a=1), commit=True)
    rank.run(5)
    rank.mailbox.put(Restore(1, {}, epoch="e2", rounds=frozenset([b"c1"]), rolled_back=True))
    round.end = End(True)
    assert rank.run(5)[0] == "1 applied@5"
    assert rank.chains[0] == b"c1"


def test_g4_a_number_of_another_history_does_not_answer_for_its_namesake() -> None:
    rank = Rank()
    rank.promise(config(1, a=1), commit=True)
    rank.run(5)
    rank.mailbox.put(Restore(0, {}, epoch="e2", rolled_back=True))
    assert rank.run(5) == []
    assert rank.effective["a"] == 0
    assert not rank.mailbox.must_wait
    rank.mailbox.put(Revision(1, "config", {"a": 7}))
    assert rank.run(6) == ["1 applied@6"]


def test_a_round_that_the_new_history_asks_for_is_none_of_the_old_one() -> None:
    rank = Rank()
    rank.mailbox.put(Restore(0, {}, epoch="e1", rolled_back=True))
    round = rank.promise(config(1, a=1), commit=True)
    rank.run(5)
    round.end = End(True)
    assert rank.run(5) == ["1 applied@5"]


def test_g9_what_one_rank_s_history_lacks_no_rank_keeps() -> None:
    one, other = pair()
    for rank in (one, other):
        rank.promise(config(1, a=1), commit=True)
    one.mailbox.put(Restore(0, {}, epoch="e2", rolled_back=True))
    other.run(5)
    assert one.run(5) == []
    assert other.run(5) == ["1 aborted rank 0: its history was replaced"]
    assert (one.effective["a"], other.effective["a"]) == (0, 0)


def test_a_value_for_a_key_that_is_declared_later_is_the_kept_one() -> None:
    rank = Rank()
    rank.mailbox.put(Restore(1, {"c": 1}))
    round = rank.promise(config(2, a=1, c=2), commit=True)
    rank.run(5)
    round.end = End(True)
    rank.run(5)
    rank.declare("c")
    rank.run(6)
    assert rank.effective["c"] == 2


# --- what ends another ---------------------------------------------------------------------------


def test_a_cancel_that_all_agreed_on_ends_what_they_agreed_on_before() -> None:
    rank = Rank()
    rank.promise(config(1, step=9, a=1), commit=True)
    rank.promise(cancel(2, 1, step=5), commit=True)
    assert rank.run(5) == ["1 cancelled", "2 applied@5"]
    assert rank.run(9) == []
    assert rank.effective["a"] == 0


def test_a_cancel_at_the_same_step_ends_what_is_not_ready() -> None:
    rank = Rank(ready=False)
    rank.promise(config(1, a=1), commit=True)
    rank.promise(cancel(2, 1), commit=True)
    assert rank.run(5) == ["1 cancelled", "2 applied@5"]


def test_a_cancel_that_comes_too_late_says_so() -> None:
    rank = Rank()
    round = rank.promise(config(1, a=1), commit=True)
    rank.promise(cancel(2, 1, step=6), commit=True)
    rank.run(5)
    round.end = End(True)
    rank.run(5)
    assert rank.run(6) == ["2 rejected@6 revision 1 was applied at step 5"]


def test_what_is_superseded_before_its_step_never_comes() -> None:
    rank = Rank()
    rank.promise(config(1, step=9, a=1), commit=True)
    round = rank.promise(config(2, step=5, supersedes=(1,), a=2), commit=True)
    assert rank.run(5) == ["1 superseded by revision 2"]
    round.end = End(True)
    rank.run(5)
    assert rank.run(9) == []
    assert rank.effective["a"] == 2


def test_a_resume_does_not_overtake_a_pause_that_was_promised() -> None:
    rank = Rank()
    rank.promise(command(1, "pause"), commit=True)
    rank.mailbox.put(Revision(2, "command", command="resume"))
    assert rank.run(4) == []
    assert rank.run(5) == ["1 applied@5", "2 applied@5"]
    assert not rank.mailbox.pause.active


def test_a_resume_does_not_wait_for_a_pause_that_came_to_nothing() -> None:
    rank = Rank()
    rank.promise(command(1, "pause"), commit=False)
    rank.mailbox.put(Revision(2, "command", command="resume"))
    assert rank.run(4) == ["2 applied@4"]
