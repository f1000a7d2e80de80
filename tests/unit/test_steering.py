"""Rounds of prepare, promise and decision by example: messages and time in, effects out."""

import math
from typing import Any

import pytest

from tests.unit.broker_support import sent
from tests.unit.steering_support import Job, decision, prepared, restarted, told
from zloom import codec
from zloom import messages as m
from zloom.model import MAX_NAMED_STEP
from zloom_broker.records import RevisionAgreed, decode_record
from zloom_broker.rounds import ANSWER_TIMEOUT
from zloom_broker.steering import EARLY, LEAD, MAX_ROUNDS, PATIENCE, RECHECK


@pytest.fixture
def job() -> Job:
    return Job()


def status(step: int, seq: int = 1, **more: object) -> m.Status:
    return m.Status(seq=seq, step=step, **more)  # type: ignore[arg-type]


def told_by_both(job: Job, step: int, **more: Any) -> None:
    """Let both ranks tell a status."""
    for rank in (0, 1):
        job.receive(f"r{rank}".encode(), status(step, **more))


def agreed(job: Job) -> list[RevisionAgreed]:
    records = [decode_record(payload) for payload in job.journal]
    return [record for record in records if isinstance(record, RevisionAgreed)]


# --- prepare -------------------------------------------------------------------------------------


def test_each_rank_is_asked_to_promise_the_same_step(job: Job) -> None:
    effects = job.change()
    asked = prepared(effects, 0)
    assert told(effects, 0) == told(effects, 1) == [asked]
    assert (asked.epoch, asked.round, asked.step) == ("epoch", 1, 2)
    assert asked.revision.changes == {"learning_rate": 0.5}
    assert asked.revision.mode == "consistent"


def test_a_run_of_one_rank_needs_no_round() -> None:
    job = Job(1)
    effects = job.change()
    assert told(effects, 0) == []
    job.answer(1, "r0")
    assert job.ends() == ["applied"]


def test_the_step_lies_ahead_of_the_fastest_rank_by_its_pace(job: Job) -> None:
    job.receive(b"r0", status(100, step_time=0.01))
    job.receive(b"r1", status(90, step_time=0.01))
    job.now = 0.2
    assert prepared(job.change()).step == 100 + 20 + 1 + LEAD / 0.01


@pytest.mark.parametrize("pace", [1e-9, 1e9])
def test_what_a_rank_tells_of_its_pace_stops_no_round(job: Job, pace: float) -> None:
    job.receive(b"r0", status(MAX_NAMED_STEP, step_time=pace))
    prepare = prepared(job.change())
    assert codec.from_broker.decode(codec.encode(prepare)) == prepare
    job.agree(prepare)
    assert job.core.state.attempts["run", "one"].ledgers[1].agreed is not None


def test_a_rank_that_holds_or_is_paused_gets_no_further(job: Job) -> None:
    job.receive(b"r0", status(100, step_time=0.01, paused=True))
    job.receive(b"r1", status(100, step_time=0.01, holding=True))
    job.now = 5.0
    assert prepared(job.change()).step == 100 + 1 + LEAD / 0.01


def test_ranks_that_are_missing_are_named() -> None:
    job = Job(2)
    job.lose(1)
    (answer,) = sent(job.change())
    assert isinstance(answer, m.Refusal)
    assert (answer.code, "missing: 1" in answer.text) == ("ranks_missing", True)


# --- promise and decision ------------------------------------------------------------------------


def test_g9_all_promised_is_on_disk_before_anybody_is_told(job: Job) -> None:
    asked = prepared(job.change())
    job.hold = True
    assert job.promise(0, asked) == []
    assert job.promise(1, asked) == []
    assert len(job.waiting) == 1
    assert job.waiting[0].durable
    effects = job.confirm()
    assert told(effects, 0) == told(effects, 1) == [decision(asked, True)]
    assert [(each.revision, each.round, each.step, each.store) for each in agreed(job)] == [(1, 1, 2, True)]


def test_g9_a_decision_is_fsynced_where_config_is_not() -> None:
    job = Job(durable=False)
    asked = prepared(job.change())
    job.hold = True
    job.agree(asked)
    assert job.waiting[0].durable


def test_g9_nothing_is_decided_before_all_have_promised() -> None:
    job = Job(3)
    asked = prepared(job.change())
    job.promise(0, asked)
    job.promise(0, asked)
    job.promise(2, asked)
    assert agreed(job) == []
    assert told(job.promise(1, asked), 0) == [decision(asked, True)]


def test_g9_a_promise_of_a_stranger_does_not_count() -> None:
    job = Job(2)
    asked = prepared(job.change())
    job.join("r2", rank=2, world_size=2)
    job.sync("r2")
    job.promise(0, asked)
    job.promise(2, asked)
    assert agreed(job) == []


def test_ranks_that_promised_different_steps_are_asked_again(job: Job) -> None:
    asked = prepared(job.change())
    job.promise(0, asked, step=40)
    effects = job.promise(1, asked)
    first, again = told(effects, 0)
    assert first == decision(asked, False, "the ranks were too far apart, or past the step: 2, 40")
    assert isinstance(again, m.Prepare)
    assert (again.round, again.step > 40) == (2, True)
    assert told(job.agree(again), 1) == [decision(again, True)]


def test_a_rank_that_is_past_the_step_tells_where_it_is(job: Job) -> None:
    asked = prepared(job.change())
    job.promise(0, asked)
    again = prepared(job.promise(1, asked, promised=False, step=70))
    assert again.step > 70


def test_the_lead_doubles_with_each_round(job: Job) -> None:
    told_by_both(job, 100, step_time=0.001, paused=True)
    asked = prepared(job.change())
    leads = []
    for _ in range(3):
        leads.append(asked.step - 101)
        job.promise(0, asked, promised=False, step=100)
        asked = prepared(job.promise(1, asked, promised=False, step=100))
    assert leads == [50, 100, 200]


@pytest.mark.parametrize("told", [None, 1.0], ids=["told none", "told a slow one"])
@pytest.mark.parametrize("pace", [1e-3, 3e-4, 2e-5])
def test_ranks_that_are_faster_than_they_told_agree_all_the_same(
    job: Job, told: float | None, pace: float
) -> None:
    """As at the start of a run, when no pace is known or the one of its first steps."""
    trip = 0.003
    told_by_both(job, 1, step_time=told)
    asked = prepared(job.change())
    while (step := 1 + int((job.now + trip) / pace)) >= asked.step:
        job.now += trip
        job.promise(0, asked, promised=False, step=step)
        asked = prepared(job.promise(1, asked, promised=False, step=step - 1))
    job.agree(asked)
    assert [each.step for each in agreed(job)] == [asked.step]
    assert (asked.step - step) * pace < 2.0


def test_a_rank_that_is_silent_for_long_does_not_make_the_others_seem_faster(job: Job) -> None:
    """What counts is when a rank told its step, not when the round ended that it told it in."""
    asked = prepared(job.change())
    job.promise(0, asked, promised=False, step=100)
    asked = prepared(job.advance(ANSWER_TIMEOUT))
    job.promise(0, asked, promised=False, step=1100)
    asked = prepared(job.promise(1, asked, promised=False, step=1100))
    assert asked.step == 1100 + 1 + 4 * LEAD * 1000


@pytest.mark.parametrize("tries", [1, 2, 3, 4])
def test_a_promised_step_is_none_that_was_reached(job: Job, tries: int) -> None:
    """Rank 0 stands in a pause still that rank 1 has ended, which has promised a step that lies ahead."""
    told_by_both(job, 100, step_time=0.1)
    asked = prepared(job.change())
    for _ in range(tries):
        job.now += 0.001
        job.promise(0, asked, step=100)
        asked = prepared(job.promise(1, asked))
    job.agree(asked)
    assert (asked.step - 101) * 0.1 < 2


@pytest.mark.parametrize("tries", [1, 2, 3, 4, 5])
def test_a_journal_that_fails_a_while_does_not_put_a_change_off_for_long(job: Job, tries: int) -> None:
    told_by_both(job, 100, step_time=0.1)
    asked = prepared(job.change())
    for _ in range(tries):
        job.now += 0.002
        job.hold = True
        job.agree(asked)
        (asked,) = [each for each in told(job.fail(), 0) if isinstance(each, m.Prepare)]
    job.hold = False
    job.agree(asked)
    assert [each.step for each in agreed(job)] == [asked.step]
    assert (asked.step - 101) * 0.1 < 2


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_a_phase_of_short_steps_does_not_put_a_change_off_once_they_are_long(
    job: Job, seconds: float
) -> None:
    """As when a loader skips what was trained before. The pace that is told is a median, and stays."""
    for beat in range(8):
        job.now = float(beat)
        step = 60_000 + int(beat / seconds)
        told_by_both(job, step, seq=beat + 1, step_time=0.0004)
    job.now += 0.9
    assert prepared(job.change()).step <= step + 3


def test_a_silent_rank_does_not_put_off_what_was_scheduled(job: Job) -> None:
    told_by_both(job, 100, step_time=0.1)
    asked = prepared(job.change(mode="at_step", at_step=140))
    job.promise(0, asked)
    job.agree(prepared(job.advance(ANSWER_TIMEOUT)))
    assert [each.step for each in agreed(job)] == [140]


def test_after_so_many_rounds_it_is_given_up(job: Job) -> None:
    asked = prepared(job.change())
    for number in range(1, MAX_ROUNDS + 1):
        assert asked.round == number
        job.promise(0, asked)
        effects = job.promise(1, asked, promised=False, step=asked.step)
        if number < MAX_ROUNDS:
            asked = prepared(effects)
    assert told(effects, 0)[1:] == []
    why = f"the ranks were too far apart, or past the step: {asked.step}, in 6 rounds"
    assert job.ends() == [f"aborted: {why}"] * 2


def test_silence_ends_a_round_and_names_the_rank(job: Job) -> None:
    asked = prepared(job.change())
    job.promise(0, asked)
    assert told(job.advance(ANSWER_TIMEOUT - 0.01), 0) == []
    first, again = told(job.advance(0.02), 0)
    assert first == decision(asked, False, "rank 1 did not answer within 1 s")
    assert isinstance(again, m.Prepare)
    job.advance(ANSWER_TIMEOUT * MAX_ROUNDS)
    assert job.ends() == ["aborted: ranks 0, 1 did not answer within 1 s, in 6 rounds"] * 2


def test_a_disk_that_is_slow_takes_no_time_from_a_round(job: Job) -> None:
    """The ranks have their second from when they are asked, and the step is ahead of where they are then."""
    told_by_both(job, 100, step_time=0.01)
    job.hold = True
    job.change()
    job.change("q2", changes={"batch_size": 8})
    assert told(job.advance(1.2 * ANSWER_TIMEOUT), 0) == []
    asked = prepared(job.confirm())
    assert asked.step == 100 + 120 + 1 + LEAD / 0.01
    assert told(job.advance(0.9 * ANSWER_TIMEOUT), 0) == []
    job.hold = True
    job.agree(asked)
    assert told(job.advance(1.2 * ANSWER_TIMEOUT), 0) == []
    first, second = told(job.confirm(), 0)
    assert first == decision(asked, True)
    assert isinstance(second, m.Prepare)
    assert second.step == 100 + 330 + 1 + LEAD / 0.01
    assert told(job.advance(0.9 * ANSWER_TIMEOUT), 0) == []


def test_a_refusal_ends_the_revision(job: Job) -> None:
    asked = prepared(job.change())
    job.promise(0, asked)
    effects = job.promise(1, asked, promised=False, refused="learning_rate: too high for this rank")
    why = "rank 1 refuses: learning_rate: too high for this rank"
    assert told(effects, 0) == [decision(asked, False, why)]
    assert job.ends() == [f"aborted: {why}"] * 2


def test_ranks_must_share_a_store_or_none_may(job: Job) -> None:
    asked = prepared(job.change())
    job.promise(0, asked)
    job.promise(1, asked, store=False)
    assert job.ends()[0].startswith("aborted: rank 1 shares no torch.distributed store with the others")


def test_one_revision_is_decided_at_a_time(job: Job) -> None:
    asked = prepared(job.change())
    assert told(job.change("q2", changes={"batch_size": 8}), 0) == []
    first, second = told(job.agree(asked), 0)
    assert first == decision(asked, True)
    assert isinstance(second, m.Prepare)
    assert second.revision.revision == 2


# --- messages that are late, lost or repeated ----------------------------------------------------


def test_ranks_that_are_about_to_pause_promise_nothing_beyond(job: Job) -> None:
    """It would be decided for a step behind the pause, and a stop would wait for a resume."""
    pause = prepared(job.command("pause"))
    assert told(job.agree(pause), 0) == [decision(pause, True)]
    assert told(job.command("stop", "q2"), 0) == []
    assert told(job.answer(1, "r0"), 0) == []
    assert prepared(job.answer(1, "r1")).revision.command == "stop"


def test_a_promise_of_an_earlier_round_is_told_its_end(job: Job) -> None:
    asked = prepared(job.change())
    job.advance(ANSWER_TIMEOUT)
    assert told(job.promise(0, asked), 0) == [decision(asked, False, "the round is over")]
    assert agreed(job) == []


def test_a_promise_that_is_repeated_after_the_decision_is_told_it_again(job: Job) -> None:
    asked = prepared(job.change())
    job.agree(asked)
    assert told(job.promise(1, asked), 1) == [decision(asked, True)]


def test_a_promise_of_a_revision_that_is_not_there_is_aborted(job: Job) -> None:
    asked = prepared(job.change())
    effects = job.promise(0, asked, revision=9)
    assert [message.commit for message in told(effects, 0) if isinstance(message, m.Decision)] == [False]


def test_a_promise_while_the_decision_is_written_is_not_answered(job: Job) -> None:
    asked = prepared(job.change())
    job.hold = True
    job.agree(asked)
    assert job.promise(0, asked) == []


# --- the journal ---------------------------------------------------------------------------------


def test_a_decision_that_cannot_be_written_is_an_abort_and_another_round(job: Job) -> None:
    asked = prepared(job.change())
    job.hold = True
    job.agree(asked)
    first, again = told(job.fail(), 0)
    assert first == decision(asked, False, "the journal could not be written: disk full")
    assert isinstance(again, m.Prepare)
    assert told(job.agree(again), 1) == [decision(again, True)]


def test_what_cannot_be_ended_for_the_journal_is_tried_again(job: Job) -> None:
    asked = prepared(job.change())
    job.hold = True
    job.promise(0, asked, promised=False, refused="no")
    job.fail()
    again = prepared(job.advance(RECHECK))
    job.promise(0, again, promised=False, refused="no")
    assert job.ends() == ["aborted: rank 0 refuses: no"] * 2


@pytest.mark.parametrize("from_image", [False, True])
def test_g9_a_restarted_broker_answers_with_what_is_on_disk(from_image: bool) -> None:
    job = Job()
    asked = prepared(job.change())
    job.agree(asked)
    undecided = prepared(job.change("q2", changes={"batch_size": 8}))
    reborn = restarted(job, from_image=from_image)
    assert told(reborn.promise(0, asked), 0) == [decision(asked, True)]
    assert told(reborn.promise(0, undecided), 0) == [decision(undecided, False, "the round is over")]


@pytest.mark.parametrize("from_image", [False, True])
def test_a_restarted_broker_begins_a_round_when_all_ranks_have_caught_up(from_image: bool) -> None:
    job = Job()
    prepared(job.change())
    chain = job.core.state.attempts["run", "one"].chain
    reborn = restarted(job, from_image=from_image, enter=False)
    assert told(reborn.enter(0, revision=1, chain=chain), 0) == []
    asked = prepared(reborn.enter(1, revision=1, chain=chain))
    assert (asked.epoch, asked.round) == ("epoch2", 1)
    reborn.agree(asked)
    assert [(each.epoch, each.round) for each in agreed(reborn)] == [("epoch2", 1)]


# --- who comes and goes --------------------------------------------------------------------------


def test_a_rank_that_is_lost_ends_an_undecided_revision(job: Job) -> None:
    asked = prepared(job.change())
    job.promise(0, asked)
    job.lose(1)
    assert job.ends() == [
        "aborted: rank 1 left: the connection was closed",
        "lost: the connection was closed",
    ]


def test_a_goodbye_ends_an_undecided_revision(job: Job) -> None:
    asked = prepared(job.change())
    effects = job.receive(b"r1", m.Goodbye(reason="finished"))
    assert told(effects, 0) == [decision(asked, False, "a rank left")]
    assert job.ends() == ["aborted: rank 1 left: finished", "not_reached: finished"]


def test_a_goodbye_while_the_decision_is_written_does_not_take_it_back(job: Job) -> None:
    asked = prepared(job.change())
    job.hold = True
    job.agree(asked)
    job.receive(b"r1", m.Goodbye(reason="finished"))
    effects = job.confirm()
    assert told(effects, 0)[0] == decision(asked, True)
    assert [type(each).__name__ for each in told(effects, 0)] == ["Decision", "Conclusion"]


def test_an_outcome_of_a_rank_that_decided_by_itself_ends_the_revision(job: Job) -> None:
    prepared(job.change())
    job.answer(1, "r1", "aborted", error="the broker's decision did not come within 5 s")
    assert job.ends() == [
        "aborted: the ranks decided against it by themselves",
        "aborted: the broker's decision did not come within 5 s",
    ]


def test_a_rank_that_comes_back_on_another_connection_keeps_its_promise(job: Job) -> None:
    asked = prepared(job.change())
    job.promise(0, asked)
    chain = job.core.state.attempts["run", "one"].chain
    job.enter(0, revision=1, chain=chain)
    assert told(job.promise(1, asked), 0) == [decision(asked, True)]


def test_ranks_that_have_not_caught_up_are_waited_for(job: Job) -> None:
    job.join("r1", rank=1, world_size=2)
    assert told(job.change(), 0) == []
    job.advance(PATIENCE - 1)
    chain = job.core.state.attempts["run", "one"].chain
    assert prepared(job.sync("r1", 1, chain)).round == 1


def test_ranks_that_do_not_catch_up_are_named(job: Job) -> None:
    job.join("r1", rank=1, world_size=2)
    job.change()
    job.advance(PATIENCE + RECHECK)
    assert job.ends() == ["aborted: rank 1 had not caught up after 10 s"] * 2


def test_a_short_absence_long_after_the_change_does_not_end_it(job: Job) -> None:
    told_by_both(job, 100, step_time=1.0, paused=True)
    job.change(mode="at_step", at_step=200)
    job.advance(2 * PATIENCE)
    job.receive(b"r0", status(198, 2, step_time=1.0, paused=True))
    job.join("r1", rank=1, world_size=2)
    assert told(job.advance(RECHECK), 0) == []
    assert job.ends() == ["None", "None"]
    assert prepared(job.sync("r1", 1, job.core.state.attempts["run", "one"].chain)).step == 200


# --- at a step -----------------------------------------------------------------------------------


def test_ranks_are_asked_some_seconds_before_a_step(job: Job) -> None:
    job.receive(b"r0", status(100, step_time=1.0, paused=True))
    assert told(job.change(mode="at_step", at_step=100 + EARLY + 3), 0) == []
    job.receive(b"r0", status(102, 2, step_time=1.0, paused=True))
    assert prepared(job.advance(RECHECK)).step == 108


def test_what_waits_for_its_step_keeps_nothing_else_waiting(job: Job) -> None:
    job.change(mode="at_step", at_step=10_000)
    assert prepared(job.change("q2", changes={"batch_size": 8})).revision.revision == 2


def test_a_step_that_is_past_is_moved_ahead(job: Job) -> None:
    job.receive(b"r0", status(100, step_time=1.0, paused=True))
    assert prepared(job.change(mode="at_step", at_step=50)).step > 100


def test_g2_what_is_queued_behind_another_is_not_agreed_on_for_an_earlier_step(job: Job) -> None:
    told_by_both(job, 100, step_time=0.001, paused=True)
    asked = prepared(job.change(mode="at_step", at_step=101))
    for _ in range(2):  # the ranks are past the step, so that the lead is doubled
        job.promise(0, asked, promised=False, step=100)
        asked = prepared(job.promise(1, asked, promised=False, step=100))
    job.change("q2", mode="at_step", at_step=102, queue=True, changes={"learning_rate": 0.25})
    second = prepared(job.agree(asked))
    assert second.revision.changes == {"learning_rate": 0.25}
    assert second.step == asked.step > 102


def test_the_table_of_what_waits_is_empty_in_the_end(job: Job) -> None:
    asked = prepared(job.change())
    job.agree(asked)
    for rank in (0, 1):
        job.answer(1, f"r{rank}", step=asked.step)
    job.advance(RECHECK)
    assert job.core._steering.next_timer() == math.inf
