"""What becomes of an update that all ranks agreed on, by example: messages and time in, effects out."""

import pytest

from tests.unit.broker_support import sent
from tests.unit.steering_support import Job, conclusion, decision, prepared, restarted, told
from zloom import messages as m
from zloom_broker.conclusions import CONFIRM_TIMEOUT, NOT_IN_BACKUP, WRITE_RETRY
from zloom_broker.effects import Effect
from zloom_broker.records import RevisionConcluded, decode_record

LOST = "the connection was closed"


def agreed(*, store: bool = False, size: int = 2) -> tuple[Job, m.Prepare]:
    """Return a job whose ranks agreed on revision 1, and that round."""
    job = Job(size, store=store)
    asked = prepared(job.change())
    job.agree(asked)
    return job, asked


def concluded(job: Job) -> list[bool]:
    records = [decode_record(payload) for payload in job.journal]
    return [record.keep for record in records if isinstance(record, RevisionConcluded)]


# --- the broker is the register ------------------------------------------------------------------


def test_g9_all_confirmed_the_same_step_is_kept_and_on_disk_before_anybody_is_told() -> None:
    job, asked = agreed()
    assert told(job.carried_out(0, asked), 0) == []
    job.hold = True
    assert told(job.carried_out(1, asked), 1) == []
    assert job.waiting[0].durable
    effects = job.confirm()
    assert told(effects, 0) == told(effects, 1) == [conclusion(asked, True)]
    assert concluded(job) == [True]


def test_nothing_is_kept_before_all_have_confirmed() -> None:
    job, asked = agreed(size=3)
    for rank in (0, 0, 2):
        assert told(job.carried_out(rank, asked), rank) == []
    assert concluded(job) == []


def test_different_steps_are_undone_and_named() -> None:
    job, asked = agreed()
    job.carried_out(0, asked, 5)
    effects = job.carried_out(1, asked, 6)
    why = "the ranks were ready at different steps: rank 0 at 5, rank 1 at 6"
    assert told(effects, 0) == told(effects, 1) == [conclusion(asked, False, why)]


def test_a_rank_that_rejects_has_the_others_undo() -> None:
    job, asked = agreed()
    job.carried_out(0, asked)
    effects = job.answer(1, "r1", "rejected", rank=1, error="learning_rate: ValueError: no")
    why = "rank 1: learning_rate: ValueError: no"
    assert told(effects, 0) == [conclusion(asked, False, why)]
    assert told(effects, 1) == [], "it has undone it by itself"


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_rank_that_is_lost_has_the_others_undo(confirmed: bool) -> None:
    job, asked = agreed()
    if confirmed:
        job.carried_out(0, asked)
    assert told(job.lose(1), 0) == [conclusion(asked, False, f"rank 1: {LOST}")]
    assert concluded(job) == [False]


def test_what_is_not_confirmed_in_time_is_undone() -> None:
    job, asked = agreed()
    job.advance(10.0)
    job.carried_out(0, asked)
    assert told(job.advance(CONFIRM_TIMEOUT - 0.1), 0) == []
    effects = job.advance(0.2)
    why = "not all ranks had applied it after 60 s"
    assert told(effects, 0) == told(effects, 1) == [conclusion(asked, False, why)]


def test_a_confirmation_that_is_repeated_is_answered_with_the_conclusion() -> None:
    job, asked = agreed()
    job.carried_out(0, asked)
    job.carried_out(1, asked)
    assert told(job.carried_out(0, asked), 0) == [conclusion(asked, True)]


def test_a_rank_that_was_lost_and_is_back_hears_that_it_is_undone() -> None:
    job, asked = agreed()
    job.lose(1)
    chain = job.core.state.attempts["run", "one"].chain
    job.enter(1, revision=1, chain=chain)
    assert told(job.carried_out(1, asked), 1) == [conclusion(asked, False, f"rank 1: {LOST}")]
    job.answer(1, "r1", "aborted", error="rank 1 was lost")
    assert job.ends()[1] == "aborted: rank 1 was lost"


@pytest.mark.parametrize("kind", ["confirmed", "timed out", "lost"])
def test_a_conclusion_that_cannot_be_written_is_tried_again(kind: str) -> None:
    job, asked = agreed(size=3)
    job.advance(0.0)
    job.carried_out(0, asked)
    if kind == "timed out":
        job.advance(CONFIRM_TIMEOUT - 0.5)
        job.hold = True
        job.advance(1.0)
    elif kind == "lost":
        job.unroutable(b"r2")
        job.hold = True
        job.advance(1.1)
        job.confirm(1)
    else:
        job.carried_out(1, asked)
        job.hold = True
        job.carried_out(2, asked)
    assert len(job.waiting) == 1
    assert told(job.fail(), 0) == []
    assert job.core.next_timer() > job.now, "it would be tried without a pause"
    effects = job.advance(WRITE_RETRY + 0.1) if kind != "confirmed" else job.carried_out(0, asked)
    assert [each.keep for each in told(effects, 0) if isinstance(each, m.Conclusion)] == [kind == "confirmed"]
    assert concluded(job) == [kind == "confirmed"]


@pytest.mark.parametrize("from_image", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_g9_a_restarted_broker_concludes_as_before(from_image: bool, keep: bool) -> None:
    job, asked = agreed()
    job.carried_out(0, asked)
    job.carried_out(1, asked, asked.step + (not keep))
    reborn = restarted(job, from_image=from_image)
    (told_again,) = told(reborn.carried_out(1, asked), 1)
    assert isinstance(told_again, m.Conclusion)
    assert told_again.keep is keep


def test_a_restarted_broker_collects_the_confirmations_anew() -> None:
    job, asked = agreed()
    job.carried_out(0, asked)
    reborn = restarted(job)
    assert told(reborn.carried_out(1, asked), 1) == []
    assert told(reborn.carried_out(0, asked), 1) == [conclusion(asked, True)]


def test_a_restarted_broker_that_has_a_loss_on_disk_and_no_conclusion_undoes_at_once() -> None:
    job, asked = agreed()
    job.unroutable(b"r1")
    job.hold = True
    job.advance(1.1)
    job.confirm(1)  # the loss is written, and the broker dies before the conclusion is
    reborn = restarted(job, enter=False)
    reborn.enter(0, revision=1, chain=job.core.state.attempts["run", "one"].chain)
    assert told(reborn.carried_out(0, asked), 0) == [conclusion(asked, False, f"rank 1: {LOST}")]


def test_g9_a_decision_that_the_journal_lacks_is_undone() -> None:
    job = Job(store=False)
    asked = prepared(job.change())
    assert told(job.carried_out(0, asked), 0) == [conclusion(asked, False, NOT_IN_BACKUP)]


def test_a_command_is_not_concluded() -> None:
    job = Job(store=False)
    asked = prepared(job.command("checkpoint"))
    job.agree(asked)
    assert told(job.answer(1, "r0", "rejected", error="disk full"), 1) == []
    assert told(job.lose(1), 0) == []
    assert job.ends() == ["rejected: disk full", f"lost: {LOST}"]


# --- the ranks have a store ----------------------------------------------------------------------


def test_ranks_with_a_store_conclude_by_themselves() -> None:
    job, asked = agreed(store=True)
    job.carried_out(0, asked)
    assert told(job.carried_out(1, asked), 1) == []
    assert concluded(job) == []
    job.answer(1, "r0", step=asked.step)
    job.answer(1, "r1", step=asked.step)
    assert told(job.advance(2 * CONFIRM_TIMEOUT), 0) == []
    assert job.ends() == ["applied", "applied"]


@pytest.mark.parametrize("confirmed", [False, True])
def test_ranks_with_a_store_are_told_that_one_is_lost(confirmed: bool) -> None:
    job, asked = agreed(store=True)
    if confirmed:
        job.carried_out(0, asked)
    assert told(job.lose(1), 0) == [conclusion(asked, False, f"rank 1: {LOST}")]
    assert concluded(job) == [], "what stands in their store counts"


def test_a_rank_that_left_while_the_decision_was_written_is_told_of_after_it() -> None:
    job = Job()
    asked = prepared(job.change())
    job.hold = True
    job.agree(asked)
    job.receive(b"r1", m.Goodbye(reason="finished"))
    assert told(job.confirm(), 0) == [decision(asked, True), conclusion(asked, False, "rank 1: finished")]


def commanded(size: int = 3, *, store: bool = True) -> tuple[Job, m.Prepare]:
    job = Job(size, store=store)
    asked = prepared(job.command("stop"))
    job.agree(asked)
    return job, asked


def test_ranks_with_a_store_are_told_once_that_one_has_carried_a_command_out() -> None:
    job, asked = commanded()
    job.hold = True
    assert told(job.answer(1, "r0", step=asked.step), 1) == [], "it is not on disk"
    effects = job.confirm()
    assert [told(effects, rank) for rank in range(3)] == [[], *[[conclusion(asked, True)]] * 2]
    assert told(job.answer(1, "r1", step=asked.step), 2) == []
    assert concluded(job) == []


def test_one_that_was_away_when_another_stopped_is_told_when_it_is_back() -> None:
    job, asked = commanded(2)
    job.answer(1, "r0", step=asked.step)
    job.receive(b"r0", m.Goodbye())
    chain = job.core.state.attempts["run", "one"].chain
    assert told(job.enter(1, revision=1, chain=chain), 1) == [conclusion(asked, True)]
    reborn = restarted(job, enter=False)
    assert told(reborn.enter(1, revision=1, chain=chain), 1) == [conclusion(asked, True)]
    reborn.answer(1, "r1", step=asked.step)
    assert told(reborn.enter(1, revision=1, chain=chain), 1) == []


@pytest.mark.parametrize("why", ["rejected", "earlier", "no store"])
def test_what_does_not_show_that_a_command_stands_is_not_told(why: str) -> None:
    job, asked = commanded(2, store=why != "no store")
    step = asked.step - (why == "earlier")
    effects = job.answer(1, "r0", "rejected" if why == "rejected" else "applied", step=step)
    assert told(effects, 1) == []


# --- newcomers -----------------------------------------------------------------------------------


def snapshots(effects: list[Effect]) -> list[m.Snapshot]:
    return [each for each in sent(effects, b"new") if isinstance(each, m.Snapshot)]


@pytest.mark.parametrize("keep", [False, True])
def test_a_newcomer_waits_until_it_is_known_what_others_keep(keep: bool) -> None:
    job, asked = agreed(store=True)
    job.lose(1)
    assert snapshots(job.enter(1, "new")) == []
    job.answer(1, "r0", "applied" if keep else "aborted", step=asked.step)
    (snapshot,) = snapshots(job.sync("new"))
    assert snapshot.config == ({"learning_rate": 0.5} if keep else {})
