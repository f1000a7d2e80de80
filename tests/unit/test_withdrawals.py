"""What a new revision ends of those that are not agreed on: by cancel, stop, resume or supersede."""

import pytest

from tests.unit.broker_support import sent
from tests.unit.steering_support import Job, decision, prepared, told
from zloom import messages as m
from zloom_broker.effects import Effect
from zloom_broker.steering import RECHECK


@pytest.fixture
def job() -> Job:
    return Job()


def test_a_cancel_ends_what_is_not_agreed_on_without_asking_the_ranks(job: Job) -> None:
    asked = prepared(job.change())
    job.promise(0, asked)
    effects = job.cancel(1)
    assert told(effects, 0) == [decision(asked, False, "by revision 2")]
    assert job.ends(1) == ["cancelled: by revision 2"] * 2
    assert job.ends(2) == ["applied"] * 2
    states = [each for each in sent(effects) if isinstance(each, m.RevisionState)]
    assert [(each.revision, each.settled) for each in states][-1] == (2, True)
    assert told(job.promise(1, asked), 1) == [decision(asked, False, "the round is over")]


def test_a_cancel_of_what_is_agreed_on_is_agreed_on_too(job: Job) -> None:
    asked = prepared(job.change())
    job.agree(asked)
    cancel = prepared(job.cancel(1))
    assert (cancel.revision.kind, cancel.revision.cancels, cancel.revision.mode) == (
        "cancel",
        1,
        "consistent",
    )
    assert job.ends(1) == ["None", "None"]


def test_a_cancel_while_the_decision_is_written_is_agreed_on_too(job: Job) -> None:
    asked = prepared(job.change())
    job.hold = True
    job.agree(asked)
    job.cancel(1)
    effects = job.confirm()
    assert told(effects, 0)[0] == decision(asked, True)
    assert prepared(effects).revision.kind == "cancel"


def test_no_round_begins_while_the_end_is_written(job: Job) -> None:
    asked = prepared(job.change())
    job.hold = True
    job.cancel(1)
    assert told(job.promise(0, asked), 0) == [decision(asked, False, "the round is over")]
    assert told(job.advance(5.0), 0) == []
    job.confirm()
    assert job.ends(1) == ["cancelled: by revision 2"] * 2


def test_an_end_that_cannot_be_written_leaves_it_undecided(job: Job) -> None:
    prepared(job.change())
    job.hold = True
    job.cancel(1)
    effects = job.fail()
    assert [each.code for each in sent(effects) if isinstance(each, m.Refusal)] == ["journal_failed"]
    again = prepared(job.advance(RECHECK))
    assert told(job.agree(again), 0) == [decision(again, True)]


def test_a_stop_ends_all_that_is_undecided(job: Job) -> None:
    asked = prepared(job.change())
    job.change("q2", changes={"batch_size": 8})
    effects = job.command("stop", "q3")
    assert told(effects, 0)[0] == decision(asked, False, "the run was stopped by revision 3")
    assert prepared(effects).revision.command == "stop"
    for number in (1, 2):
        assert job.ends(number) == ["aborted: the run was stopped by revision 3"] * 2
    assert job.ends(3) == ["None", "None"]


def test_a_stop_leaves_what_is_agreed_on(job: Job) -> None:
    job.agree(prepared(job.change()))
    job.command("stop", "q2")
    assert job.ends(1) == ["None", "None"]


def test_a_stop_ends_what_was_being_written_when_it_came(job: Job) -> None:
    job.hold = True
    job.change()
    job.command("stop", "q2")
    effects = job.confirm()
    assert job.ends(1) == ["aborted: the run was stopped by revision 2"] * 2
    assert told(effects, 0)[-1] == prepared_last(effects)
    assert prepared_last(effects).revision.command == "stop"


def prepared_last(effects: list[Effect]) -> m.Prepare:
    return [each for each in told(effects, 0) if isinstance(each, m.Prepare)][-1]


def test_a_resume_ends_a_pause_that_is_not_agreed_on(job: Job) -> None:
    asked = prepared(job.command("pause"))
    effects = job.command("resume", "q2")
    assert told(effects, 0) == [decision(asked, False, "the run was resumed by revision 2")]
    assert job.ends(1) == ["aborted: the run was resumed by revision 2"] * 2


def test_a_resume_leaves_everything_else(job: Job) -> None:
    prepared(job.change())
    job.command("resume", "q2")
    assert job.ends(1) == ["None", "None"]


def test_supersede_ends_what_waits_for_a_step(job: Job) -> None:
    job.change(mode="at_step", at_step=10_000)
    refused = sent(job.change("q2", changes={"learning_rate": 0.75}))
    assert isinstance(refused[0], m.Refusal)
    assert refused[0].code == "key_pending"
    asked = prepared(job.change("q3", changes={"learning_rate": 0.75}, supersede=True))
    assert asked.revision.supersedes == [1]
    assert job.ends(1) == ["superseded: by revision 2"] * 2


def test_supersede_ends_what_was_being_written_when_it_came(job: Job) -> None:
    job.hold = True
    job.change(mode="at_step", at_step=10_000)
    job.change("q2", changes={"learning_rate": 0.75}, supersede=True)
    job.confirm()
    assert job.ends(1) == ["superseded: by revision 2"] * 2


def test_supersede_of_what_is_agreed_on_is_left_to_the_ranks(job: Job) -> None:
    job.agree(prepared(job.change(mode="at_step", at_step=2)))
    asked = prepared(job.change("q2", changes={"learning_rate": 0.75}, supersede=True))
    assert asked.revision.supersedes == [1]
    assert job.ends(1) == ["None", "None"]


def test_two_cancels_at_once_end_it_once(job: Job) -> None:
    prepared(job.change())
    job.hold = True
    job.cancel(1, "c1")
    job.cancel(1, "c2")
    job.confirm()
    assert job.ends(1) == ["cancelled: by revision 2"] * 2
    assert job.ends(3) == ["applied"] * 2
