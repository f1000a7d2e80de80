"""The loop's answers to prepares, with a real mailbox and registry: messages in, promises out."""

import threading
from collections.abc import Callable

import pytest

from tests.support import DEADLINE
from zloom.handlers import Registry
from zloom.mailbox import Mailbox
from zloom.messages import Conclusion, Decision, Prepare, Promise
from zloom.model import Outcome, Revision, Value
from zloom.promises import Promises
from zloom.rounds import End, Round


class Loop:
    """A rank's loop, and its training thread at `step`."""

    def __init__(self) -> None:
        self.step = 3
        self.held = False
        self.registry = Registry()
        self.effective: dict[str, Value] = {}
        self.outcomes: list[tuple[int, Outcome]] = []
        self.mailbox = Mailbox(self.registry, lambda number, outcome: self.outcomes.append((number, outcome)))
        self.read: Callable[[], object] = lambda: None
        """Called whenever the loop reads the step."""
        self.promises = Promises(self.mailbox, self._step)

        def rate(value: float) -> None:
            if value > 1:
                raise ValueError("too high")
            self.effective["rate"] = value

        self.registry.add_key("rate", rate, initial=0.5)

    def _step(self) -> int:
        self.read()
        return self.step

    def tick(self, now: float = 0.0) -> list[str]:
        """Begin the next step, as the training thread does, unless it is held; return outcomes."""
        self.outcomes.clear()
        self.step += not self.held
        if self.held or self.mailbox.waiting:
            self.mailbox.run(self.step, now)
        self.held = self.mailbox.must_wait
        return [f"{number} {outcome.outcome}" for number, outcome in self.outcomes]


@pytest.fixture
def loop() -> Loop:
    return Loop()


def prepare(
    step: int = 6, *, round: int = 1, epoch: str = "e1", revision: int = 1, **changes: Value
) -> Prepare:
    changed = Revision(revision, "config", changes or {"rate": 0.25}, mode="consistent")
    return Prepare(epoch=epoch, round=round, step=step, revision=changed)


def pause(step: int = 4) -> Prepare:
    command = Revision(9, "command", command="pause", mode="consistent")
    return Prepare(epoch="e1", round=9, step=step, revision=command)


def promise(step: int = 6, *, round: int = 1, promised: bool = True, refused: str = "") -> Promise:
    return Promise(epoch="e1", revision=1, round=round, step=step, promised=promised, refused=refused)


def decision(commit: bool = True, *, round: int = 1, epoch: str = "e1", revision: int = 1) -> Decision:
    return Decision(epoch=epoch, revision=revision, round=round, commit=commit)


def conclusion(keep: bool = True, *, round: int = 1) -> Conclusion:
    return Conclusion(epoch="e1", revision=1, round=round, keep=keep, reason="" if keep else "rank 1: lost")


# --- promise -------------------------------------------------------------------------------------


def test_a_step_that_has_not_begun_is_promised_and_held(loop: Loop) -> None:
    assert loop.promises.prepare(prepare(6)) == promise(6)
    assert [loop.tick() for _ in range(2)] == [[], []]
    assert not loop.held
    loop.tick()
    assert (loop.step, loop.held) == (6, True)


@pytest.mark.parametrize("step", [2, 3])
def test_a_step_that_has_begun_is_not(loop: Loop, step: int) -> None:
    assert loop.promises.prepare(prepare(step)) == promise(3, promised=False)
    assert [loop.tick() for _ in range(3)] == [[], [], []]
    assert not loop.held


def test_the_step_is_read_after_the_round_was_left_in_the_mailbox(loop: Loop) -> None:
    def look() -> None:
        assert loop.mailbox.waiting, "the step could begin between the look and the promise"

    loop.read = look
    assert loop.promises.prepare(prepare(4)).promised


def test_a_step_that_begins_while_the_loop_promises_is_held_or_not_promised(loop: Loop) -> None:
    def train() -> None:
        loop.read = lambda: None
        loop.tick()

    loop.read = train
    assert loop.promises.prepare(prepare(4)) == promise(4, promised=False)
    loop.tick()
    assert not loop.held


def test_the_same_prepare_again_gets_the_same_answer(loop: Loop) -> None:
    assert loop.promises.prepare(prepare(6)) == promise(6)
    loop.tick()
    assert loop.promises.prepare(prepare(6)) == promise(6)
    late = Loop()
    assert late.promises.prepare(prepare(3)) == promise(3, promised=False)
    assert late.promises.prepare(prepare(3)) == promise(3, promised=False)


def test_a_later_round_ends_the_earlier_one(loop: Loop) -> None:
    loop.promises.prepare(prepare(5))
    assert loop.promises.prepare(prepare(8, round=2)) == promise(8, round=2)
    loop.promises.decided(decision(commit=True, round=1))
    assert [loop.tick() for _ in range(4)] == [[], [], [], []]
    assert not loop.held


def test_an_earlier_round_that_comes_late_does_not_end_the_later_one(loop: Loop) -> None:
    loop.promises.prepare(prepare(8, round=2))
    assert loop.promises.prepare(prepare(6, round=1)) == promise(3, round=1, promised=False)
    loop.promises.decided(decision(round=2))
    loop.step = 7
    loop.tick()
    assert loop.effective == {"rate": 0.25}


def test_a_round_of_another_epoch_ends_the_earlier_one_whatever_its_number(loop: Loop) -> None:
    loop.promises.prepare(prepare(6, round=5))
    assert loop.promises.prepare(prepare(7, round=1, epoch="e2")).promised


# --- refuse --------------------------------------------------------------------------------------


def test_nothing_is_promised_of_an_update_that_was_carried_out_until_that_has_ended(loop: Loop) -> None:
    loop.promises.prepare(prepare(4))
    loop.promises.decided(decision())
    loop.tick()
    assert (loop.effective, loop.held) == ({"rate": 0.25}, True)
    assert not loop.promises.prepare(prepare(9, epoch="e2")).promised
    loop.promises.concluded(conclusion(keep=False))
    loop.tick()
    assert (loop.effective, loop.held) == ({"rate": 0.5}, False)


def test_an_update_that_is_carried_out_while_another_epoch_asks_hears_its_end(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[Round] = []
    monkeypatch.setattr(loop.mailbox, "promise", rounds.append)
    loop.promises.prepare(prepare(4))
    loop.promises.decided(decision())
    assert loop.promises.prepare(prepare(9, epoch="e2")).promised, (
        "it is not carried out yet, for all one sees"
    )
    loop.promises.concluded(conclusion(keep=False))
    assert [each.end for each in rounds] == [End(keep=False, reason="rank 1: lost"), None]


def test_what_cannot_be_applied_is_refused_and_not_held(loop: Loop) -> None:
    answer = loop.promises.prepare(prepare(6, rate="fast"))
    assert not answer.promised
    assert answer.refused.startswith("rate")
    loop.step = 5
    loop.tick()
    assert not loop.held


def test_the_check_runs_no_handler(loop: Loop) -> None:
    assert loop.promises.prepare(prepare(6, rate=2.0)).promised
    assert loop.effective == {}


def test_a_rank_that_declares_none_of_the_keys_promises_all_the_same(loop: Loop) -> None:
    assert loop.promises.prepare(prepare(6, depth=3)).promised


def test_what_this_rank_has_answered_is_refused(loop: Loop) -> None:
    loop.mailbox.put(Revision(1, "config", {"rate": 0.75}))
    loop.tick()
    answer = loop.promises.prepare(prepare(6))
    assert answer.refused == "revision 1 was applied at step 4 here"


# --- paused --------------------------------------------------------------------------------------


def paused(loop: Loop) -> None:
    loop.promises.prepare(pause(4))
    loop.promises.decided(decision(round=9, revision=9))
    assert loop.tick() == ["9 applied"]


def test_a_paused_rank_promises_the_step_at_which_it_stands(loop: Loop) -> None:
    paused(loop)
    assert loop.promises.prepare(prepare(90)) == promise(4)
    loop.promises.decided(decision())
    loop.promises.concluded(conclusion())
    assert loop.tick() == ["1 applied"]
    assert (loop.step, loop.mailbox.pause.active) == (4, True)


def test_a_pause_that_ends_after_the_promise_is_held(loop: Loop) -> None:
    paused(loop)
    loop.promises.prepare(prepare(90))
    loop.mailbox.pause.end()
    assert loop.mailbox.must_wait
    loop.tick()
    assert (loop.step, loop.held) == (4, True)
    loop.promises.decided(decision(commit=False))
    loop.tick()
    assert not loop.held


def test_a_pause_that_ends_while_the_loop_promises_promises_the_step_that_was_asked(loop: Loop) -> None:
    paused(loop)
    loop.read = loop.mailbox.pause.end
    assert loop.promises.prepare(prepare(90)) == promise(90)
    loop.tick()
    assert not loop.held


def test_a_pause_that_ends_at_the_safe_point_that_is_under_way_is_held(loop: Loop) -> None:
    """The training thread is between its look at the rounds and the resume when the loop promises."""
    paused(loop)
    looked, promised = threading.Event(), threading.Event()

    def between() -> None:
        looked.set()
        assert promised.wait(DEADLINE)

    loop.registry.add_command("between", between)
    loop.mailbox.put(Revision(10, "command", command="between"))
    loop.mailbox.put(Revision(11, "command", command="resume"))
    training = threading.Thread(target=loop.tick)

    def run() -> None:
        loop.read = lambda: None
        training.start()
        assert looked.wait(DEADLINE)

    loop.read = run
    assert loop.promises.prepare(prepare(90)) == promise(4)
    promised.set()
    training.join(DEADLINE)
    assert not loop.mailbox.pause.active
    assert loop.mailbox.must_wait
    loop.tick()
    assert (loop.step, loop.held) == (4, True)


# --- the broker's word ---------------------------------------------------------------------------


def test_a_decision_of_another_round_or_epoch_is_ignored(loop: Loop) -> None:
    loop.promises.prepare(prepare(4, round=2))
    loop.promises.decided(decision(round=1))
    loop.promises.decided(decision(round=2, epoch="e0"))
    loop.promises.decided(decision(round=2, revision=2))
    loop.tick()
    assert loop.mailbox.must_wait
    loop.promises.decided(decision(round=2))
    loop.tick()
    assert loop.effective == {"rate": 0.25}


def test_a_conclusion_of_another_round_is_ignored(loop: Loop) -> None:
    loop.promises.prepare(prepare(4, round=2))
    loop.promises.decided(decision(round=2))
    loop.tick()
    loop.promises.concluded(conclusion(keep=False, round=1))
    assert loop.tick() == []
    loop.promises.concluded(conclusion(round=2))
    assert loop.tick() == ["1 applied"]


def test_a_conclusion_against_it_before_its_step_is_a_decision_against_it(loop: Loop) -> None:
    loop.promises.prepare(prepare(5))
    loop.promises.decided(decision())
    loop.promises.concluded(conclusion(keep=False))
    assert [loop.tick(), loop.tick()] == [[], ["1 aborted"]]
    assert loop.effective == {}
