import itertools
import sys
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.interrupts import interrupted
from zloom.errors import UndoError
from zloom.handlers import Registry
from zloom.mailbox import Mailbox
from zloom.model import Outcome, Ramp, Revision, Value
from zloom.pause import PAUSE_LIMIT
from zloom.restoring import Restore


@dataclass
class Trainer:
    """A registry with the keys a and b and the command go, its mailbox, and what became of it."""

    names: tuple[str, ...] = ("a", "b")
    ready: dict[str, bool] = field(default_factory=dict)
    ran: list[tuple[str, Value]] = field(default_factory=list)
    outcomes: list[tuple[int, Outcome]] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry = Registry(lambda what, _: self.raised.append(what))
        self.mailbox = Mailbox(self.registry, lambda number, outcome: self.outcomes.append((number, outcome)))
        for name in self.names:
            self.declare(name)

        def go(speed: int = 0) -> None:
            self.ran.append(("go", speed))

        self.registry.add_command("go", go, ready=lambda: self.ready.get("go", True))

    def declare(self, name: str, initial: int = 0) -> None:
        def take(value: int) -> None:
            if value < 0:
                raise ValueError("below zero")
            self.ran.append((name, value))

        self.registry.add_key(name, take, initial=initial, ready=lambda _: self.ready.get(name, True))

    def run(
        self, step: int, *items: Revision | Restore, now: float = 0.0, trained: bool = False
    ) -> list[str]:
        """Put the items, reach a safe point, and return the outcomes that this brought, in short."""
        for item in items:
            self.mailbox.put(item)
        self.outcomes.clear()
        self.mailbox.run(step, now, trained=trained)
        return [_short(number, outcome) for number, outcome in self.outcomes]


def _short(number: int, outcome: Outcome) -> str:
    at = "" if outcome.step is None else f"@{outcome.step}"
    return f"{number} {outcome.outcome}{at} {outcome.error}{outcome.detail}".rstrip()


def config(number: int, at_step: int | None = None, **changes: Value) -> Revision:
    return Revision(number, "config", changes, mode="next" if at_step is None else "at_step", at_step=at_step)


def command(number: int, name: str, **arguments: Value) -> Revision:
    return Revision(number, "command", command=name, arguments=arguments)


def cancel(number: int, cancels: int) -> Revision:
    return Revision(number, "cancel", cancels=cancels)


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


# --- order ---------------------------------------------------------------------------------------


def test_revisions_are_carried_out_at_the_next_safe_point(trainer: Trainer) -> None:
    assert trainer.run(7, config(1, a=1), command(2, "go", speed=3), config(3, a=2)) == [
        "1 applied@7",
        "2 applied@7",
        "3 applied@7",
    ]
    assert trainer.ran == [("a", 1), ("go", 3), ("a", 2)]
    assert trainer.run(8) == []


def test_what_is_changed_behind_a_step_is_answered_with_the_next_one(trainer: Trainer) -> None:
    assert trainer.run(7, config(1, a=1), command(2, "go"), trained=True) == ["1 applied@8", "2 applied@7"]


def test_what_waits_for_a_step_may_be_changed_behind_the_one_before_it(trainer: Trainer) -> None:
    last = replace(command(3, "go"), mode="at_step", at_step=9)
    assert trainer.run(7, config(1, at_step=9, a=1), config(2, at_step=8, b=1), last, trained=True) == [
        "2 applied@8"
    ]
    assert trainer.run(8) == []
    assert trainer.run(8, trained=True) == ["1 applied@9"]
    assert trainer.run(9) == ["3 applied@9"], "a command belongs to its step, not before it"


def test_a_ramp_that_begins_behind_a_step_has_its_first_value_in_the_next(trainer: Trainer) -> None:
    trainer.run(7, replace(config(1, a=10), ramps={"a": Ramp(10)}), trained=True)
    assert trainer.ran == [("a", 0)]
    trainer.run(8)
    assert trainer.ran == [("a", 0)]
    trainer.run(9)
    assert trainer.ran == [("a", 0), ("a", 1)]


def test_nothing_waits_until_something_is_put_and_after_it_is_done(trainer: Trainer) -> None:
    waiting = [trainer.mailbox.waiting]
    trainer.mailbox.put(config(1, a=1))
    waiting.append(trainer.mailbox.waiting)
    trainer.run(1)
    waiting.append(trainer.mailbox.waiting)
    trainer.run(2, config(2, at_step=9, a=2))
    waiting.append(trainer.mailbox.waiting)
    assert waiting == [False, True, False, True]


def test_a_step_is_waited_for(trainer: Trainer) -> None:
    assert trainer.run(1, config(1, at_step=3, a=1)) == []
    assert trainer.run(2) == []
    assert trainer.run(3) == ["1 applied@3"]


def test_a_step_that_was_skipped_or_is_past_counts_as_reached(trainer: Trainer) -> None:
    assert trainer.run(1, config(1, at_step=3, a=1)) == []
    assert trainer.run(5, config(2, at_step=4, b=1)) == ["1 applied@5", "2 applied@5"]


def test_what_is_due_runs_in_order_of_step_and_revision(trainer: Trainer) -> None:
    trainer.declare("c")
    trainer.run(1, config(1, at_step=8, a=1), config(2, at_step=6, b=2))
    assert trainer.run(8, config(3, c=3)) == ["2 applied@8", "1 applied@8", "3 applied@8"]


def test_a_later_revision_overtakes_only_where_no_key_is_shared(trainer: Trainer) -> None:
    trainer.run(1, config(1, at_step=5, a=1))
    assert trainer.run(2, config(2, b=2), config(3, a=3, b=3), config(4, b=4)) == ["2 applied@2"]
    assert trainer.run(5) == ["1 applied@5", "3 applied@5", "4 applied@5"]
    assert trainer.ran == [("b", 2), ("a", 1), ("a", 3), ("b", 3), ("b", 4)]


def test_a_command_waits_for_its_own_name_and_for_no_key(trainer: Trainer) -> None:
    trainer.declare("go")
    trainer.ready["go"] = False
    assert trainer.run(1, command(1, "go"), command(2, "go"), config(3, a=1)) == ["3 applied@1"]
    trainer.ready["go"] = True
    assert trainer.run(2, config(4, go=9)) == ["1 applied@2", "2 applied@2", "4 applied@2"]


def test_a_revision_waits_until_all_its_keys_are_ready(trainer: Trainer) -> None:
    trainer.ready["a"] = False
    assert trainer.run(1, config(1, a=1, b=1), config(2, b=2)) == []
    trainer.ready["a"] = True
    assert trainer.run(2) == ["1 applied@2", "2 applied@2"]


def test_g8_a_predicate_may_return_what_has_no_truth_value(trainer: Trainer) -> None:
    """As a tensor of several elements."""

    class Unclear:
        def __bool__(self) -> bool:
            raise LookupError("of several elements")

    trainer.registry.add_command("go", lambda: None, ready=Unclear)  # type: ignore[arg-type]
    assert trainer.run(1, command(1, "go")) == ["1 rejected@1 ready: LookupError: of several elements"]


def test_a_predicate_that_raises_rejects(trainer: Trainer) -> None:
    def broken(value: int) -> bool:
        raise LookupError("gone")

    trainer.registry.add_key("a", lambda value: None, initial=0, ready=broken)
    assert trainer.run(1, config(1, a=1), config(2, b=1)) == [
        "1 rejected@1 ready: LookupError: gone",
        "2 applied@1",
    ]
    assert trainer.raised == ["a `ready` of this trainer"]


# --- outcomes ------------------------------------------------------------------------------------


def test_what_is_not_declared_is_rejected(trainer: Trainer) -> None:
    assert trainer.run(1, config(1, x=1), command(2, "fly")) == [
        "1 rejected@1 undeclared",
        "2 rejected@1 undeclared",
    ]


def test_a_handler_that_raises_rejects(trainer: Trainer) -> None:
    assert trainer.run(1, config(1, a=-1)) == ["1 rejected@1 a: ValueError: below zero"]


def test_an_outcome_is_told_before_the_next_handler_runs(trainer: Trainer) -> None:
    seen: list[int] = []

    def look(value: int) -> None:
        seen.extend(number for number, _ in trainer.outcomes)

    trainer.registry.add_key("look", look, initial=0)
    trainer.run(1, config(1, a=1), config(2, look=1))
    assert seen == [1]


def test_an_interrupted_revision_is_answered_and_the_rest_goes_on_later(trainer: Trainer) -> None:
    def interrupt(value: int) -> None:
        raise KeyboardInterrupt

    trainer.registry.add_key("c", interrupt, initial=0)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(1, config(1, c=1), config(2, a=1))
    assert [_short(*each) for each in trainer.outcomes] == ["1 rejected@1 KeyboardInterrupt:"]
    assert trainer.mailbox.waiting
    assert trainer.run(2) == ["2 applied@2"]


def test_an_undo_that_raises_is_answered_and_surfaces(trainer: Trainer) -> None:
    def undo() -> None:
        raise OSError("disk")

    trainer.registry.add_key("a", lambda value: undo, initial=0)
    with pytest.raises(UndoError):
        trainer.run(1, config(1, a=1, b=-1))
    [(number, outcome)] = trainer.outcomes
    assert (number, outcome.outcome) == (1, "rejected")
    assert "a: OSError: disk" in outcome.error


def test_a_handler_that_reaches_a_safe_point_is_refused(trainer: Trainer) -> None:
    def tick(value: int) -> None:
        trainer.mailbox.run(2, 0.0)

    trainer.registry.add_key("c", tick, initial=0)
    [outcome] = trainer.run(1, config(1, c=1))
    assert outcome.startswith("1 rejected@1 c: DeclarationError: a handler reached a safe point")
    assert trainer.run(2, config(2, a=1)) == ["2 applied@2"]


@pytest.mark.skipif(sys.gettrace() is not None, reason="another tracer is at work")
def test_a_signal_wherever_it_comes_loses_no_revision_and_runs_no_command_twice() -> None:
    """The trainer catches what its handler of signals raises, and trains on."""
    for place in itertools.count(1):
        trainer = Trainer()
        for item in config(1, a=1), command(2, "go"), config(3, at_step=9, b=1), cancel(4, 3):
            trainer.mailbox.put(item)
        if not interrupted(place, partial(trainer.mailbox.run, 1, 0.0)):
            break
        for step in range(2, 12):
            if trainer.mailbox.waiting:
                trainer.mailbox.run(step, float(step))
        answers = defaultdict[int, set[str]](set)
        for number, outcome in trainer.outcomes:
            answers[number].add(str(outcome.outcome))
        assert {number: len(kinds) for number, kinds in answers.items()} == {1: 1, 2: 1, 3: 1, 4: 1}, place
        assert len(trainer.ran) == len(set(trainer.ran)), place
        assert (("go", 0) in trainer.ran) or answers[2] == {"rejected"}, place
        assert ("b", 1) not in trainer.ran, place
    assert place > 100


def test_a_signal_while_other_ranks_are_told_leaves_a_mailbox_that_runs(trainer: Trainer) -> None:
    def ask(now: float) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.mailbox.parting, "go_on", ask)
        with pytest.raises(KeyboardInterrupt):
            trainer.run(1, config(1, a=1))
    assert trainer.run(2, config(2, a=2)) == ["2 applied@2"]


def test_one_that_is_to_end_and_has_no_other_ranks_is_held_by_no_pause(trainer: Trainer) -> None:
    trainer.mailbox.parting.depart("SIGTERM")
    assert trainer.run(1, command(1, "pause")) == ["1 applied@1"]
    assert not trainer.mailbox.must_wait


def test_what_a_handler_puts_waits_for_the_next_safe_point(trainer: Trainer) -> None:
    trainer.registry.add_key("c", lambda value: trainer.mailbox.put(config(2, a=1)), initial=0)
    assert trainer.run(1, config(1, c=1)) == ["1 applied@1"]
    assert trainer.mailbox.waiting
    assert trainer.run(2) == ["2 applied@2"]


def test_a_revision_that_comes_twice_has_one_outcome(trainer: Trainer) -> None:
    assert trainer.run(1, config(1, a=1), config(1, a=1)) == ["1 applied@1"]
    assert trainer.run(2, config(1, a=1)) == []


# --- cancels -------------------------------------------------------------------------------------


def test_a_cancel_takes_effect_before_anything_runs(trainer: Trainer) -> None:
    assert trainer.run(1, config(1, a=1), config(2, b=1), cancel(3, 1)) == [
        "1 cancelled",
        "3 applied@1",
        "2 applied@1",
    ]
    assert trainer.ran == [("b", 1)]


def test_a_cancel_that_comes_twice_has_one_outcome(trainer: Trainer) -> None:
    trainer.run(1, config(1, at_step=9, a=1))
    assert trainer.run(2, cancel(2, 1), cancel(2, 1)) == ["1 cancelled", "2 applied@2"]
    assert trainer.run(3, cancel(2, 1)) == []


def test_a_cancel_lets_pass_what_waited_behind(trainer: Trainer) -> None:
    trainer.run(1, config(1, at_step=100, a=1), config(2, a=2))
    assert trainer.run(2, cancel(3, 1)) == ["1 cancelled", "3 applied@2", "2 applied@2"]


def test_a_cancel_that_comes_too_late_tells_what_became_of_it(trainer: Trainer) -> None:
    trainer.run(4, config(1, a=1), config(2, a=-1), config(3, at_step=9, a=3), cancel(4, 3))
    assert trainer.run(5, cancel(5, 1), cancel(6, 2), cancel(7, 3), cancel(8, 99)) == [
        "5 rejected@5 revision 1 was applied at step 4",
        "6 rejected@5 revision 2 was rejected",
        "7 rejected@5 revision 3 was cancelled",
        "8 rejected@5 revision 99 is not waiting here",
    ]


# --- snapshots -----------------------------------------------------------------------------------


def test_a_snapshot_changes_what_differs(trainer: Trainer) -> None:
    assert trainer.run(1, Restore(4, {"a": 0, "b": 2})) == ["4 applied@1 snapshot"]
    assert trainer.ran == [("b", 2)]


def test_a_snapshot_whose_values_hold_already_is_answered(trainer: Trainer) -> None:
    assert trainer.run(1, Restore(4, {"a": 0})) == ["4 applied@1 snapshot"]
    assert trainer.ran == []


def test_a_snapshot_without_values_is_not_answered(trainer: Trainer) -> None:
    assert trainer.run(1, Restore(0)) == []
    assert trainer.run(2, Restore(3)) == []
    assert not trainer.mailbox.waiting


def test_a_snapshots_values_come_before_the_revisions_after_it(trainer: Trainer) -> None:
    assert trainer.run(1, Restore(4, {"a": 4}), config(5, a=5)) == ["4 applied@1 snapshot", "5 applied@1"]
    assert trainer.registry.values["a"] == 5


def test_a_snapshot_is_refused_whole(trainer: Trainer) -> None:
    assert trainer.run(1, Restore(4, {"a": 1, "b": -1})) == ["4 rejected@1 b: ValueError: below zero"]
    assert trainer.registry.values == {"a": 0, "b": 0}
    assert trainer.run(2) == []


def test_a_snapshots_pending_revisions_are_waited_for(trainer: Trainer) -> None:
    restore = Restore(4, {"b": 2}, [config(3, at_step=9, a=3), config(4, at_step=8, b=4)])
    assert trainer.run(1, restore) == ["2 applied@1 snapshot"]
    assert trainer.run(9) == ["4 applied@9", "3 applied@9"]


def test_a_snapshot_waits_until_its_keys_are_ready_and_so_do_later_revisions(trainer: Trainer) -> None:
    trainer.ready["a"] = False
    assert trainer.run(1, Restore(4, {"a": 1, "b": 1}), config(5, b=2), command(6, "go")) == ["6 applied@1"]
    assert trainer.mailbox.waiting
    trainer.ready["a"] = True
    assert trainer.run(2) == ["4 applied@2 snapshot", "5 applied@2"]


def test_g4_a_cancel_in_a_snapshot_takes_back_what_is_pending_there(trainer: Trainer) -> None:
    pending = [config(1, at_step=9, a=1), cancel(3, 1)]
    assert trainer.run(1, Restore(3, {"b": 2}, pending)) == [
        "1 cancelled",
        "3 applied@1",
        "2 applied@1 snapshot",
    ]
    assert trainer.run(9) == []


def test_a_snapshots_value_waits_for_its_key_to_be_declared(trainer: Trainer) -> None:
    assert trainer.run(1, Restore(4, {"a": 1, "late": 7})) == ["4 applied@1 snapshot"]
    assert trainer.run(2) == []
    assert trainer.mailbox.waiting
    trainer.declare("late")
    assert trainer.run(3) == ["4 applied@3 snapshot"]
    assert trainer.registry.values["late"] == 7
    assert not trainer.mailbox.waiting


def test_a_key_declared_late_gets_the_newest_value(trainer: Trainer) -> None:
    trainer.run(1, Restore(4, {"late": 7}))
    assert trainer.run(2, config(5, late=8)) == ["5 rejected@2 undeclared"]
    trainer.declare("late")
    trainer.run(3)
    assert trainer.registry.values["late"] == 8


def test_a_rolled_back_snapshot_returns_other_keys_to_their_baseline(trainer: Trainer) -> None:
    trainer.run(1, config(1, a=1), config(2, b=2))
    assert trainer.run(2, Restore(1, {"a": 1}, rolled_back=True)) == ["1 applied@2 snapshot"]
    assert trainer.registry.values == {"a": 1, "b": 0}


def test_a_rollback_to_the_baseline_has_no_revision_to_answer_for(trainer: Trainer) -> None:
    trainer.run(1, config(1, a=1))
    assert trainer.run(2, Restore(0, rolled_back=True)) == []
    assert trainer.registry.values == {"a": 0, "b": 0}
    assert not trainer.mailbox.waiting


def test_a_rollback_forgets_the_other_history(trainer: Trainer) -> None:
    trainer.run(1, config(1, a=1), config(2, a=2), config(3, at_step=9, b=3))
    rolled_back = Restore(1, {"a": 1}, rolled_back=True)
    assert trainer.run(2, cancel(4, 3), rolled_back, config(2, b=7)) == [
        "1 applied@2 snapshot",
        "2 applied@2",
    ]
    assert trainer.registry.values == {"a": 1, "b": 7}
    assert trainer.run(9) == []


def test_g4_after_a_rollback_a_command_is_answered_again_and_not_carried_out_again(trainer: Trainer) -> None:
    done, waiting = replace(command(1, "go"), chain=b"1"), replace(command(2, "go"), chain=b"2")
    trainer.run(1, done)
    trainer.ready["go"] = False
    trainer.run(2, waiting, config(3, a=1))
    trainer.ready["go"] = True
    other = replace(command(3, "go"), chain=b"another 3")
    rolled_back = Restore(3, {}, [done, waiting, other], rolled_back=True)
    assert trainer.run(3, rolled_back) == ["1 applied@1", "2 applied@3", "3 applied@3"]
    assert trainer.ran == [("go", 0), ("a", 1), ("a", 0), ("go", 0), ("go", 0)]
    assert [outcome.chain for _, outcome in trainer.outcomes] == [b"1", b"2", b"another 3"]


# --- pause ---------------------------------------------------------------------------------------


def is_paused(trainer: Trainer, now: float) -> bool:
    """Run the safe point again, and see whether the training stays there."""
    trainer.run(1, now=now)
    return trainer.mailbox.must_wait


def test_a_pause_lasts_until_its_limit(trainer: Trainer) -> None:
    assert trainer.run(1, command(1, "pause", limit=10), now=100.0) == ["1 applied@1"]
    assert trainer.mailbox.pause.until == 110.0
    assert is_paused(trainer, 109.9)
    assert not is_paused(trainer, 110.0)


def test_a_pause_has_a_default_limit_and_may_have_none(trainer: Trainer) -> None:
    trainer.run(1, command(1, "pause"), now=5.0)
    ends = [trainer.mailbox.pause.until]
    trainer.run(1, command(2, "pause", limit=None), now=6.0)
    ends.append(trainer.mailbox.pause.until)
    assert ends == [5.0 + PAUSE_LIMIT, None]
    assert is_paused(trainer, 1e9)


def test_a_pause_while_paused_begins_the_limit_anew(trainer: Trainer) -> None:
    trainer.run(1, command(1, "pause", limit=10), now=0.0)
    trainer.run(1, command(2, "pause", limit=10), now=8.0)
    assert is_paused(trainer, 17.0)
    assert not is_paused(trainer, 18.0)


def test_resume_ends_a_pause_and_is_harmless_without_one(trainer: Trainer) -> None:
    trainer.run(1, command(1, "pause"))
    assert trainer.run(1, command(2, "resume"), command(3, "resume")) == [
        "2 applied@1",
        "3 applied@1 was not paused",
    ]
    assert not trainer.mailbox.pause.active


def test_a_bounded_resume_pauses_again_with_nothing_in_the_mailbox(trainer: Trainer) -> None:
    trainer.run(4, command(1, "pause"))
    trainer.run(4, command(2, "resume", steps=2))
    held = []
    for step in (4, 5, 6):
        assert trainer.mailbox.waiting  # or the safe point would be passed by
        trainer.run(step)
        held.append(trainer.mailbox.must_wait)
    assert held == [False, False, True]
    assert not trainer.mailbox.waiting


def test_changes_are_applied_while_paused(trainer: Trainer) -> None:
    assert trainer.run(5, command(1, "pause"), config(2, a=1)) == ["1 applied@5", "2 applied@5"]
    assert trainer.run(5, config(3, a=2), config(4, at_step=6, b=1)) == ["3 applied@5"]


@pytest.mark.parametrize("limit", [-1, float("nan"), "long"])
def test_a_limit_that_is_no_duration_is_rejected(trainer: Trainer, limit: Any) -> None:
    [outcome] = trainer.run(1, command(1, "pause", limit=limit))
    assert outcome.startswith("1 rejected@1 pause: limit: expected number >= 0 or null")
    assert not trainer.mailbox.pause.active


def test_a_pause_waits_for_a_place_where_it_is_safe(trainer: Trainer) -> None:
    trainer.mailbox.pause.ready = lambda: False
    assert trainer.run(1, command(1, "pause")) == []
    trainer.mailbox.pause.ready = lambda: True
    assert trainer.run(1) == ["1 applied@1"]


def test_a_resume_does_not_overtake_a_pause_that_waits(trainer: Trainer) -> None:
    trainer.mailbox.pause.ready = lambda: False
    assert trainer.run(1, command(1, "pause"), command(2, "resume")) == []
    trainer.mailbox.pause.ready = lambda: True
    assert trainer.run(2) == ["1 applied@2", "2 applied@2"]
    assert not trainer.mailbox.pause.active


def test_pause_and_resume_are_declared(trainer: Trainer) -> None:
    pause, resume, _ = trainer.registry.commands()
    assert (pause.name, resume.name) == ("pause", "resume")
    assert pause.description.startswith("Hold the training here")


# --- all of it -----------------------------------------------------------------------------------

NAMES = ("a", "b", "c")
changes = st.dictionaries(st.sampled_from([*NAMES, "undeclared"]), st.integers(-1, 5), min_size=1)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("config"), changes, st.none() | st.integers(0, 40)),
        st.tuples(st.just("command"), st.sampled_from(["go", "fly", "pause", "resume"])),
        st.tuples(st.just("cancel"), st.integers(1, 10)),
        st.tuples(st.just("ready"), st.sampled_from([*NAMES, "go"]), st.booleans()),
        st.tuples(st.just("run"), st.integers(1, 5)),
    ),
    max_size=40,
)


def _revision(number: int, action: tuple[Any, ...]) -> Revision:
    match action:
        case "config", values, at_step:
            return config(number, at_step, **values)
        case "command", name:
            return command(number, name)
        case _:
            return cancel(number, max(1, number - action[1]))


@given(actions)
def test_each_revision_ends_once_in_order_and_never_early(actions: list[tuple[Any, ...]]) -> None:
    trainer = Trainer(NAMES)
    step, put, ended = 0, list[Revision](), list[tuple[int, Outcome]]()

    def safe_point(by: int) -> None:
        nonlocal step
        step += by
        trainer.run(step)
        ended.extend(trainer.outcomes)

    for action in actions:
        match action:
            case "ready", name, ready:
                trainer.ready[name] = ready
            case "run", by:
                safe_point(by)
            case _:
                put.append(_revision(len(put) + 1, action))
                trainer.mailbox.put(put[-1])
    trainer.ready.clear()
    safe_point(100)

    outcomes = dict(ended)
    assert sorted(number for number, _ in ended) == [each.revision for each in put]
    for revision in put:
        outcome = outcomes[revision.revision]
        if outcome.outcome == "applied" and revision.mode == "at_step":
            assert outcome.step is not None
            assert outcome.step >= (revision.at_step or 0)
        if revision.kind == "cancel" and revision.cancels < revision.revision:
            cancelled = outcomes[revision.cancels].outcome == "cancelled"
            assert outcome.outcome == "rejected" or cancelled
    assert not trainer.mailbox.waiting
    _assert_order(put, ended)
    _assert_values(trainer, put, ended)


def _assert_order(put: list[Revision], ended: list[tuple[int, Outcome]]) -> None:
    carried_out = [number for number, outcome in ended if outcome.outcome in ("applied", "rejected")]
    for name in NAMES:
        touching = [n for n in carried_out if put[n - 1].kind == "config" and name in put[n - 1].changes]
        assert touching == sorted(touching)
    for name in ("go", "pause", "resume"):
        running = [n for n in carried_out if put[n - 1].command == name]
        assert running == sorted(running)


def _assert_values(trainer: Trainer, put: list[Revision], ended: list[tuple[int, Outcome]]) -> None:
    values: dict[str, Value] = dict.fromkeys(NAMES, 0)
    for number, outcome in ended:
        if outcome.outcome == "applied":
            values |= {k: v for k, v in put[number - 1].changes.items() if k in NAMES}
    assert trainer.registry.values == values


def test_nothing_is_lost_between_two_threads(trainer: Trainer) -> None:
    count = 5000

    def send() -> None:
        for number in range(1, count + 1):
            trainer.mailbox.put(config(number, a=number))

    sender = threading.Thread(target=send)
    ended: list[int] = []
    sender.start()
    step = 0
    while sender.is_alive() or trainer.mailbox.waiting:
        if trainer.mailbox.waiting:
            step += 1
            trainer.run(step)
            ended.extend(number for number, _ in trainer.outcomes)
    sender.join()
    assert ended == list(range(1, count + 1))
    assert trainer.registry.values["a"] == count
