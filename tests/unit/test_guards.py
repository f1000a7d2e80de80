"""Guards at the broker: a core with its journal in memory, which is restarted in between."""

from collections.abc import Callable
from math import nan
from typing import Any

import pytest

from tests.unit.broker_support import BATCH_SIZE, Bench, fold, published, replica, sent
from tests.unit.steering_support import Job, prepared, restarted
from zloom import messages as m
from zloom.model import GuardEnd, HistoryEntry, Outcome, Problem, Revision
from zloom.series import MAX_STATUS_POINTS, Series
from zloom_broker.effects import Effect
from zloom_broker.guard_watch import EARLY_POINTS
from zloom_broker.records import decode_image, encode
from zloom_broker.state import State

GUARD = "loss > 2 * baseline within 200 steps"
WHY = "loss was 5.1 > 2 * 2.3 at step 20 on rank 0"


class Guarded:
    """A run of one rank, whose broker may be restarted between any two events."""

    def __init__(self, *, from_image: bool = False) -> None:
        self.from_image = from_image
        self.life = 1
        self.seq = 0
        self.effects: list[Effect] = []
        self.bench = Bench()
        self.bench.operator()
        self.bench.active()

    def restart(self) -> None:
        old, attempt = self.bench, self.attempt
        self.life += 1
        state = (
            State.restore(decode_image(encode(old.core.state.image())), old.core.state.parts())
            if self.from_image
            else None
        )
        self.bench = Bench(old.journal, state, epoch=f"epoch{self.life}")
        self.bench.now = old.now
        self.bench.operator()
        self.bench.join()
        self.bench.sync("a", attempt.revision, attempt.chain)

    @property
    def attempt(self) -> Any:
        return self.bench.core.state.attempts["run", "one"]

    def do(self, effects: list[Effect]) -> list[Effect]:
        self.effects += effects
        return effects

    def report(self, step: int, peer: str = "a", **metrics: dict[int, float]) -> list[Effect]:
        """Report points, by metric and step."""
        self.seq += 1
        series = {name: Series.of(list(points), list(points.values())) for name, points in metrics.items()}
        return self.do(self.bench.receive(peer.encode(), m.Status(seq=self.seq, step=step, metrics=series)))

    def loss(self, value: float, *steps: int) -> list[Effect]:
        return self.report(steps[-1], loss=dict.fromkeys(steps, value))

    def set(self, guard: str = GUARD, request: str = "q1", **more: Any) -> m.Message:
        fields = {"changes": {"learning_rate": 0.5}, "revert_if": guard, **more}
        effects = self.do(self.bench.receive(b"op", m.SetConfig(id=request, run="run", **fields)))
        return sent(effects)[0]

    def applied(self, revision: int, step: int) -> list[Effect]:
        return self.do(self.bench.answer(revision, step=step))

    def wait(self, seconds: float = 1.1) -> list[Effect]:
        return self.do(self.bench.advance(seconds))

    def entry(self, revision: int = 1) -> HistoryEntry:
        effects = self.bench.receive(b"op", m.GetHistory(id="h", run="run"))
        (history,) = sent(effects)
        assert isinstance(history, m.History)
        return next(each for each in history.entries if each.revision.revision == revision)

    def told(self) -> list[tuple[str, str]]:
        """Return the events of guards."""
        happened = [each for each in published(self.effects, b"watch/run/") if isinstance(each, m.Happened)]
        events = [each.event for each in happened]
        return [(each.kind, each.text) for each in events if each.kind.startswith("guard")]


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


def begun(guarded: Guarded, guard: str = GUARD, loss: float = 2.3) -> Guarded:
    """Have a guarded change be applied at step 11, after a loss."""
    guarded.loss(loss, *range(1, 11))
    answer = guarded.set(guard)
    assert isinstance(answer, m.RevisionState), answer
    guarded.applied(1, 11)
    return guarded


def reverted(guarded: Guarded, revision: int = 2) -> Revision:
    found: Revision = guarded.attempt.ledgers[revision].revision
    return found


# --- firing -------------------------------------------------------------------------------------


def test_it_fires_by_a_revision_of_the_broker_and_history_says_so(guarded: Guarded) -> None:
    begun(guarded)
    guarded.loss(3.0, *range(11, 20))
    assert guarded.attempt.revision == 1
    assert guarded.entry().guard is None
    effects = guarded.loss(5.1, 20)
    (revised,) = published(effects, b"steer/run/one/")
    assert isinstance(revised, m.Revised)
    assert revised.revision == reverted(guarded)
    made = reverted(guarded)
    assert (made.changes, made.by, made.mode) == ({"learning_rate": 0.1}, "zloom", "next")
    assert made.note == f"reverted: {WHY}"
    assert made.request_id == "revert:run:one:1"
    assert guarded.entry().guard == GuardEnd("reverted", WHY, 1000.0, 2)
    assert guarded.entry().revision.revert_if == GUARD
    assert guarded.told() == [("guard_reverted", f"revision 1 by revision 2: {WHY}")]
    assert guarded.attempt.config.now()["learning_rate"].value == 0.1


SCENARIO: list[Callable[[Guarded], object]] = [
    lambda guarded: guarded.set(),
    lambda guarded: guarded.applied(1, 11),
    lambda guarded: guarded.loss(3.0, *range(11, 20)),
    lambda guarded: guarded.loss(5.1, 20),
    lambda guarded: guarded.loss(7.0, 21),
    lambda guarded: guarded.applied(2, 22),
    lambda guarded: guarded.loss(9.0, 22, 23, 24),
]


@pytest.mark.parametrize("from_image", [False, True])
@pytest.mark.parametrize("restarts", [{n} for n in range(1, 8)] + [set(range(1, 8))], ids=str)
def test_g5_a_restart_between_any_two_events_makes_no_difference(
    restarts: set[int], from_image: bool
) -> None:
    guarded = Guarded(from_image=from_image)
    guarded.loss(2.3, *range(1, 11))
    for place, event in enumerate(SCENARIO):
        if place in restarts:
            guarded.restart()
        event(guarded)
    guarded.wait(5)
    assert guarded.attempt.revision == 2
    assert reverted(guarded).note == f"reverted: {WHY}"
    end = guarded.entry().guard
    assert end is not None
    assert (end.kind, end.text, end.revision) == ("reverted", WHY, 2)
    assert [kind for kind, _ in guarded.told()] == ["guard_reverted"]


def test_a_loss_that_is_lost_fires_whatever_the_guard_compares(guarded: Guarded) -> None:
    begun(guarded)
    guarded.loss(nan, 12)
    assert reverted(guarded).note == "reverted: loss was nan at step 12 on rank 0"


def test_is_nan_needs_no_baseline(guarded: Guarded) -> None:
    guarded.set("loss is nan within 200 steps")
    guarded.applied(1, 1)
    guarded.loss(nan, 3)
    assert reverted(guarded).note == "reverted: loss was nan at step 3 on rank 0"


def test_points_that_came_before_the_outcome_count_on_their_side_of_the_step(guarded: Guarded) -> None:
    guarded.loss(100.0, *range(1, 11))
    guarded.set()
    guarded.report(71, loss=dict.fromkeys(range(11, 71), 1.0) | {71: 1.0, 72: 9.0})
    assert guarded.attempt.revision == 1
    guarded.applied(1, 71)
    guarded.loss(1.0, 73)
    assert reverted(guarded).note == "reverted: loss was 9 > 2 * 1 at step 72 on rank 0"


def test_the_baseline_is_the_median_of_the_last_50_numbers(guarded: Guarded) -> None:
    falling = {step: float(200 - step) for step in range(1, 101)}
    guarded.report(160, loss=falling | dict.fromkeys(range(101, 161), nan))
    guarded.set()
    assert guarded.attempt.ledgers[1].baselines == {"a": {"loss": 124.5}}  # between those of steps 75 and 76
    guarded.report(
        170, loss=dict.fromkeys(range(161, 166), nan) | dict.fromkeys(range(166, 170), 1.0) | {170: 99.0}
    )
    guarded.applied(1, 170)
    assert guarded.attempt.ledgers[1].baselines == {"a": {"loss": 120.5}}  # four are lower


def test_the_first_of_its_steps_counts(guarded: Guarded) -> None:
    begun(guarded)
    guarded.loss(99.0, 10)
    assert guarded.attempt.revision == 1
    guarded.loss(99.0, 11)
    assert reverted(guarded).note == "reverted: loss was 99 > 2 * 2.3 at step 11 on rank 0"


def test_two_guards_whose_outcomes_come_together_have_a_baseline_each(guarded: Guarded) -> None:
    guarded.loss(2.3, 1)
    guarded.set()
    guarded.set(GUARD, "q2", changes={"batch_size": 64})
    said = {number: Outcome("a", 0, "applied", 2) for number in (1, 2)}
    guarded.loss(2.5, *range(2, 6))
    guarded.do(guarded.bench.receive(b"a", m.Outcomes(epoch="epoch", outcomes=said)))
    assert [ledger.baselines for ledger in guarded.attempt.ledgers] == [{"a": {"loss": 2.3}}] * 2
    guarded.loss(99.0, 6)
    assert [reverted(guarded, number).changes for number in (3, 4)] == [
        {"learning_rate": 0.1},
        {"batch_size": 32},
    ]


def test_steps_at_the_ends_of_64_bits_do_no_harm(guarded: Guarded) -> None:
    points = Series.of([-(2**63), 2**63 - 1], [1.0, 1.0])
    guarded.bench.receive(b"a", m.Status(seq=1, step=3, metrics={"loss": points}))
    guarded.set()
    guarded.applied(1, 4)
    guarded.loss(9.0, 5)
    assert reverted(guarded).note == "reverted: loss was 9 > 2 * 1 at step 5 on rank 0"


def test_metrics_are_taken_together_step_by_step(guarded: Guarded) -> None:
    guarded.report(1, loss={1: 1.0}, val={1: 1.0})
    guarded.set("loss > 2 and val > 2 within 200 steps")
    guarded.applied(1, 2)
    guarded.report(4, loss={2: 9.0, 3: 1.0}, val={2: 1.0, 3: 9.0})
    assert guarded.attempt.revision == 1
    guarded.report(4, loss={4: 9.0})
    assert reverted(guarded).note == "reverted: loss was 9 > 2 and val was 9 > 2 at step 4 on rank 0"


def test_all_keys_of_the_revision_get_the_values_before_it_back(guarded: Guarded) -> None:
    guarded.set("", "q0", changes={"batch_size": 64})
    guarded.applied(1, 1)
    guarded.set("loss is nan within 200 steps", changes={"batch_size": 128, "learning_rate": 0.5})
    guarded.applied(2, 2)
    guarded.loss(nan, 3)
    assert reverted(guarded, 3).changes == {"batch_size": 64, "learning_rate": 0.1}


@pytest.mark.parametrize("values", [[nan, 1.0], [1.0, nan], [1.0, nan, 1.0]])
def test_each_point_of_a_step_is_judged(guarded: Guarded, values: list[float]) -> None:
    begun(guarded, "loss is nan within 200 steps")
    guarded.seq += 1
    series = {"loss": Series.of([12] * len(values), values)}
    guarded.bench.receive(b"a", m.Status(seq=guarded.seq, step=12, metrics=series))
    assert reverted(guarded).note == "reverted: loss was nan at step 12 on rank 0"


# --- its end without firing ---------------------------------------------------------------------


def test_a_guard_of_whose_metric_no_point_came_is_not_said_to_have_passed(guarded: Guarded) -> None:
    begun(guarded, "loss > 2 within 3 steps")
    guarded.loss(1.0, 20)
    guarded.loss(1.0, 21)
    guarded.wait()
    text = "3 steps passed, and no point of loss was reported for them"
    assert guarded.told() == [("guard_disarmed", f"revision 1: {text}")]


def test_a_restarted_broker_does_not_say_that_points_were_not_reported_before(guarded: Guarded) -> None:
    begun(guarded, "loss > 2 within 3 steps")
    guarded.loss(1.0, 11)
    guarded.restart()
    guarded.loss(1.0, 20)
    guarded.loss(1.0, 21)
    guarded.wait()
    text = "3 steps passed, and no point of loss was reported for them since the broker was restarted"
    assert guarded.told() == [("guard_disarmed", f"revision 1: {text}")]


def test_a_guard_of_which_one_metric_was_reported_passes_and_says_which_was_not(guarded: Guarded) -> None:
    guarded.report(1, val={1: 1.0})
    begun(guarded, "loss > 2 or val > 2 within 1 steps")
    guarded.report(20, loss={11: 1.0, 20: 1.0})
    guarded.loss(1.0, 21)
    guarded.wait()
    text = "1 step passed, and no point of val was reported for it"
    assert guarded.told() == [("guard_passed", f"revision 1: {text}")]


def test_points_that_came_before_the_outcome_and_were_dropped_are_told(guarded: Guarded) -> None:
    guarded.loss(2.3, *range(1, 11))
    guarded.set("loss > 5 within 100000 steps")
    guarded.loss(9.0, *range(11, 111))
    guarded.loss(1.0, *range(111, 111 + EARLY_POINTS))
    guarded.loss(1.0, 111 + EARLY_POINTS)
    guarded.applied(1, 11)
    guarded.loss(1.0, 112 + EARLY_POINTS)
    [(kind, text)] = guarded.told()
    assert kind == "guard_failed"
    assert text.startswith("revision 1: too many points of rank 0 came before its outcome was on disk: those")


def test_a_status_of_too_many_points_is_taken_without_them_and_they_are_counted(guarded: Guarded) -> None:
    begun(guarded, "loss > 5 within 100000 steps")
    guarded.loss(9.0, *range(12, 13 + MAX_STATUS_POINTS))
    assert guarded.attempt.revision == 1
    assert guarded.bench.core._hub.counters["metrics_dropped"] == MAX_STATUS_POINTS + 1


def test_a_guard_waits_for_points_that_a_replica_has_still_to_send(guarded: Guarded) -> None:
    """More were reported than a status holds: those of the guard's own metric are not among the first."""
    begun(guarded)
    guarded.seq += 1
    others = {"other": Series.of([140], [0.5])}
    guarded.bench.receive(b"a", m.Status(seq=guarded.seq, step=400, awaited=141, metrics=others))
    guarded.wait()
    assert guarded.entry().guard is None
    guarded.report(401, loss={150: 99.0})
    assert guarded.attempt.revision == 2


def test_when_its_steps_have_passed_it_ends_and_says_so(guarded: Guarded) -> None:
    begun(guarded)
    guarded.report(212, loss={210: 3.0})
    guarded.wait()
    assert guarded.entry().guard is None  # a point of step 210 came only now, so more of that time may
    guarded.report(213, loss={212: 99.0})
    guarded.wait()
    end = guarded.entry().guard
    assert end is not None
    assert (end.kind, end.text) == ("passed", "200 steps passed")
    assert guarded.told() == [("guard_passed", "revision 1: 200 steps passed")]
    guarded.loss(99.0, 214)
    assert guarded.attempt.revision == 1


def test_the_last_of_its_steps_counts(guarded: Guarded) -> None:
    begun(guarded)
    guarded.report(215, loss={211: 99.0})
    assert guarded.attempt.revision == 1
    guarded.report(216, loss={210: 99.0})
    assert guarded.attempt.revision == 2


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (
            m.SetConfig(id="q2", run="run", changes={"learning_rate": 0.2, "batch_size": 8}),
            "revision 1: revision 2 by alice changes learning_rate",
        ),
        (
            m.Rollback(id="q2", run="run", to_revision=0),
            "revision 1: revision 2 by alice changes learning_rate",
        ),
    ],
    ids=["set", "rollback"],
)
def test_a_later_change_disarms_it(guarded: Guarded, request_: Any, text: str, restarted: bool) -> None:
    begun(guarded)
    if restarted:
        guarded.restart()
    guarded.do(guarded.bench.receive(b"op", request_))
    assert guarded.told() == [("guard_disarmed", text)]
    guarded.loss(99.0, 12)
    assert guarded.attempt.revision == 2
    end = guarded.entry().guard
    assert end is not None
    assert (end.kind, end.revision) == ("disarmed", 0)


def test_a_change_of_another_key_does_not(guarded: Guarded) -> None:
    begun(guarded)
    guarded.set("", "q2", changes={"batch_size": 8})
    guarded.loss(99.0, 12)
    assert reverted(guarded, 3).changes == {"learning_rate": 0.1}


def test_a_cancel_disarms_it(guarded: Guarded) -> None:
    guarded.loss(2.3, 1)
    guarded.set()
    guarded.do(guarded.bench.receive(b"op", m.Cancel(id="c", run="run", revision=1)))
    assert guarded.told() == [("guard_disarmed", "revision 1: revision 2 by alice cancels it")]


def test_a_change_that_nobody_applied_is_not_guarded(guarded: Guarded) -> None:
    guarded.loss(2.3, 1)
    guarded.set()
    guarded.do(guarded.bench.answer(1, outcome="rejected", error="no"))
    guarded.wait()
    assert guarded.told() == [("guard_disarmed", "revision 1: no replica applied it")]


def test_a_crash_between_a_later_change_and_the_end_of_the_guard_reverts_nothing(guarded: Guarded) -> None:
    begun(guarded)
    guarded.bench.hold = True
    guarded.bench.receive(b"op", m.SetConfig(id="q2", run="run", changes={"learning_rate": 0.2}))
    guarded.bench.confirm(1)
    guarded.bench.waiting.clear()  # the end of the guard never came to the disk
    guarded.restart()
    guarded.loss(99.0, 12)
    guarded.wait()
    assert guarded.attempt.revision == 2
    assert guarded.told() == [("guard_disarmed", "revision 1: learning_rate has its value from revision 2")]


def test_the_end_of_the_training_ends_it(guarded: Guarded) -> None:
    begun(guarded)
    guarded.do(guarded.bench.receive(b"a", m.Goodbye(step=50)))
    guarded.wait()
    [(kind, text)] = guarded.told()
    assert kind == "guard_disarmed"
    assert text == "revision 1: no replica is left of those that had 200 steps to go"


def test_one_that_was_lost_may_come_back_and_still_fires(guarded: Guarded) -> None:
    begun(guarded)
    guarded.bench.unroutable(b"a")
    guarded.wait(5)
    assert "a" in guarded.attempt.left
    assert guarded.told() == []
    guarded.bench.join()
    guarded.bench.sync("a", 1, guarded.attempt.chain)
    guarded.loss(5.1, 20)
    assert reverted(guarded).note == f"reverted: {WHY}"


def test_one_that_was_lost_and_replaced_ends_it(guarded: Guarded) -> None:
    begun(guarded)
    guarded.bench.unroutable(b"a")
    guarded.wait(5)
    guarded.bench.active("b")
    guarded.wait()
    assert [kind for kind, _ in guarded.told()] == ["guard_disarmed"]


def test_a_forgotten_attempt_takes_its_guards_with_it(guarded: Guarded) -> None:
    begun(guarded)
    guarded.bench.unroutable(b"a")
    guarded.wait(5)
    guarded.bench.receive(b"op", m.Forget(id="f", run="run"))
    guarded.bench.active("b")
    guarded.wait()
    guarded.set("", "q2")
    guarded.report(20, "b", loss={20: 99.0})
    assert guarded.attempt.revision == 1
    assert guarded.told() == []


def test_an_attempt_that_is_being_forgotten_is_left_alone(guarded: Guarded) -> None:
    begun(guarded)
    guarded.bench.receive(b"a", m.Goodbye(step=50))
    guarded.bench.hold = True
    guarded.bench.receive(b"op", m.Forget(id="f", run="run"))
    guarded.wait()
    guarded.bench.confirm()
    guarded.wait()
    assert guarded.bench.core.state.attempts == {}
    assert guarded.told() == []


# --- what stands in the way ---------------------------------------------------------------------


def test_g1_a_revert_that_cannot_be_written_is_made_when_it_can(guarded: Guarded) -> None:
    begun(guarded)
    guarded.bench.hold = True
    guarded.loss(5.1, 20)
    assert guarded.attempt.revision == 1
    assert guarded.told() == []
    guarded.do(guarded.bench.fail())
    assert guarded.attempt.revision == 1
    guarded.wait()
    assert reverted(guarded).note == f"reverted: {WHY}"
    assert [kind for kind, _ in guarded.told()] == ["guard_reverted"]


def test_a_change_that_is_being_written_comes_first(guarded: Guarded) -> None:
    begun(guarded)
    guarded.bench.hold = True
    guarded.bench.receive(b"op", m.SetConfig(id="q2", run="run", changes={"learning_rate": 0.2}))
    guarded.loss(99.0, 20)
    guarded.do(guarded.bench.confirm())
    guarded.wait()
    assert guarded.attempt.revision == 2
    assert [kind for kind, _ in guarded.told()] == ["guard_disarmed"]


def test_a_revert_that_is_refused_is_told_once_and_tried_again(guarded: Guarded) -> None:
    begun(guarded)
    guarded.bench.receive(b"a", m.Declare(seq=1, keys=[BATCH_SIZE], commands=[]))
    guarded.loss(5.1, 20)
    guarded.wait(3)
    [(kind, text)] = guarded.told()
    assert kind == "guard_failed"
    assert text.startswith(f"revision 1: {WHY}, but it cannot be reverted: run has no key 'learning_rate'")
    guarded.bench.receive(b"a", m.Declare(seq=2, keys=replica().keys, commands=[]))
    guarded.wait()
    assert reverted(guarded).changes == {"learning_rate": 0.1}


def test_a_baseline_that_nobody_knows_is_told(guarded: Guarded) -> None:
    guarded.set("loss > 2 * baseline or loss is nan within 200 steps")
    guarded.applied(1, 1)
    guarded.wait(3)
    text = "revision 1: loss was not reported before it, so there is no baseline to compare with"
    assert guarded.told() == [("guard_failed", text)]
    guarded.loss(nan, 2)
    assert reverted(guarded).note == "reverted: loss was nan at step 2 on rank 0"


# --- what is refused ----------------------------------------------------------------------------


def test_a_bad_guard_is_refused_and_nothing_is_changed(guarded: Guarded) -> None:
    guarded.loss(2.3, 1)
    refusal = guarded.set("loss >> 2 within 5 steps")
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "bad_guard"
    assert refusal.text.startswith("column 7: expected a metric")
    refusal = guarded.set("los > 2 within 5 steps", "q2")
    assert isinstance(refusal, m.Refusal)
    assert refusal.text == "column 1: unknown metric 'los'; did you mean loss? known are: loss"
    preview = guarded.set("los > 2 within 5 steps", "q3", preview=True)
    assert isinstance(preview, m.Preview)
    assert preview.problems == [Problem("bad_guard", refusal.text)]
    assert guarded.attempt.revision == 0


# --- several ranks ------------------------------------------------------------------------------


def status(job: Job, rank: int, seq: int, step: int, loss: float) -> list[Effect]:
    metrics = {"loss": Series.of([step], [loss])}
    return job.receive(f"r{rank}".encode(), m.Status(seq=seq, step=step, metrics=metrics))


def settled(job: Job, prepare: m.Prepare) -> None:
    """Have all ranks agree, and answer."""
    job.agree(prepare)
    number = prepare.revision.revision
    for rank in range(job.size):
        said = Outcome(f"r{rank}", rank, "applied", prepare.step)
        job.receive(f"r{rank}".encode(), m.Outcomes(epoch="epoch", outcomes={number: said}))


def guarded_job() -> tuple[Job, m.Prepare]:
    job = Job(2)
    for rank in range(2):
        status(job, rank, 1, 5, 2.0 + rank)
    prepare = prepared(job.change(revert_if=GUARD))
    settled(job, prepare)
    return job, prepare


def test_g9_on_several_ranks_one_fires_and_all_go_back_at_one_step() -> None:
    job, prepare = guarded_job()
    step = prepare.step + 3
    assert status(job, 1, 2, step, 5.9) is not None  # not twice the 3.0 of rank 1
    effects = status(job, 0, 2, step, 5.9)
    back = prepared(effects, 0)
    assert prepared(effects, 1) == back
    assert (back.revision.revision, back.revision.mode) == (2, "consistent")
    assert back.revision.changes == {"learning_rate": 0.1}
    assert back.revision.note == f"reverted: loss was 5.9 > 2 * 2 at step {step} on rank 0"
    settled(job, back)
    attempt = job.core.state.attempts["run", "one"]
    assert attempt.config.now()["learning_rate"].value == 0.1
    assert attempt.revision == 2


def test_a_revert_that_the_ranks_could_not_agree_on_is_told() -> None:
    job, prepare = guarded_job()
    back = prepared(status(job, 0, 2, prepare.step + 1, 99.0))
    effects = job.promise(1, back, promised=False, refused="no")
    told = [each.event for each in published(effects, b"watch/run/") if isinstance(each, m.Happened)]
    assert [each.text for each in told if each.kind == "guard_failed"] == [
        "revision 2 did not revert 1: aborted: rank 1 refuses: no"
    ]


def test_a_revert_that_came_to_nothing_is_told_by_another_life_of_the_broker_too() -> None:
    job, prepare = guarded_job()
    status(job, 0, 2, prepare.step + 1, 99.0)
    reborn = restarted(job, enter=False)
    effects = reborn.advance(20.0)  # no rank comes back
    told = [each.event for each in published(effects, b"watch/run/") if isinstance(each, m.Happened)]
    (failed,) = [each.text for each in told if each.kind == "guard_failed"]
    assert failed.startswith("revision 2 did not revert 1: ")


def test_nothing_is_reverted_before_all_ranks_have_it() -> None:
    job = Job(2)
    for rank in range(2):
        status(job, rank, 1, 5, 2.0)
    prepare = prepared(job.change(revert_if=GUARD))
    job.agree(prepare)
    said = Outcome("r0", 0, "applied", prepare.step)
    job.receive(b"r0", m.Outcomes(epoch="epoch", outcomes={1: said}))
    status(job, 0, 2, prepare.step + 1, 99.0)
    attempt = job.core.state.attempts["run", "one"]
    assert attempt.revision == 1
    job.receive(b"r1", m.Outcomes(epoch="epoch", outcomes={1: Outcome("r1", 1, "applied", prepare.step)}))
    back = prepared(status(job, 0, 3, prepare.step + 2, 1.0))
    assert back.revision.note == f"reverted: loss was 99 > 2 * 2 at step {prepare.step + 1} on rank 0"
    assert fold(job.journal).attempts["run", "one"].ledgers[1].guard_end is not None
