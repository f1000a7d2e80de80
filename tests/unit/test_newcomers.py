"""The config for ranks that come later, from the broker's side."""

import pytest

from tests.unit.broker_support import LEARNING_RATE, published
from tests.unit.steering_support import Job, prepared, restarted, told
from zloom import messages as m
from zloom.model import Key, Revision, Schema
from zloom_broker.effects import Effect, Send

LACKING = m.Status(seq=1, step=0, lacks_config=True)


@pytest.fixture
def job() -> Job:
    """Two ranks whose learning rate was steered to 0.5."""
    job = Job()
    prepared(job.change())
    for rank in range(2):
        job.answer(1, f"r{rank}")
    return job


def replace_rank_1(job: Job, **more: object) -> None:
    job.receive(b"r1", m.Goodbye())
    job.join("new", rank=1, world_size=2, **more)  # type: ignore[arg-type]
    job.sync("new")


def promise_of(asked: m.Prepare) -> m.Promise:
    number = asked.revision.revision
    return m.Promise(epoch=asked.epoch, revision=number, round=asked.round, step=asked.step, store=True)


def newest(job: Job) -> Revision:
    return list(job.core.state.attempts["run", "one"].ledgers)[-1].revision


def lacks(job: Job, name: str = "new") -> list[Effect]:
    return job.receive(name.encode(), LACKING)


def test_g3_the_config_comes_to_all_ranks_as_one_consistent_revision(job: Job) -> None:
    replace_rank_1(job)
    effects = lacks(job)
    made = newest(job)
    assert (made.revision, made.kind, made.mode, made.by) == (2, "config", "consistent", "zloom")
    assert (made.changes, made.restores) == ({"learning_rate": 0.5}, True)
    assert prepared(effects, 0).revision == made
    assert [
        each.revision for each in published(effects, b"steer/run/one/") if isinstance(each, m.Revised)
    ] == [made]


def test_it_waits_until_all_ranks_are_there(job: Job) -> None:
    for rank in range(2):
        job.receive(f"r{rank}".encode(), m.Goodbye())
    job.join("new0", rank=0, world_size=2)
    job.sync("new0")
    lacks(job, "new0")
    assert newest(job).revision == 1
    job.join("new1", rank=1, world_size=2)
    lacks(job, "new0")  # it has not caught up yet
    assert newest(job).revision == 1
    job.sync("new1")
    lacks(job, "new0")
    assert newest(job).revision == 2


def test_what_a_rank_refuses_is_tried_less_and_less_often(job: Job) -> None:
    replace_rank_1(job)
    tries = []
    for second in range(100):
        before = newest(job).revision
        effects = lacks(job)
        if newest(job).revision > before:
            tries.append(second)
            job.promise(0, prepared(effects), refused="never")
        job.advance(1.0)
    assert tries == [0, 10, 30, 70]
    assert [end.partition(":")[0] for end in job.ends(2)] == ["aborted", "aborted"]


def test_g3_a_rank_that_was_cut_off_while_it_was_asked_gets_the_config_all_the_same(job: Job) -> None:
    replace_rank_1(job)
    lacks(job)
    job.unroutable(b"new")
    job.advance(2.0)
    assert [end.partition(":")[0] for end in job.ends(2)] == ["aborted", "lost"]
    job.join("new", rank=1, world_size=2)
    job.sync("new", 2, newest(job).chain)
    job.advance(10.0)
    asked = prepared(lacks(job))
    assert (asked.revision.revision, asked.revision.changes) == (3, {"learning_rate": 0.5})


def test_g3_a_change_for_a_later_step_keeps_no_other_key_from_a_newcomer(job: Job) -> None:
    replace_rank_1(job)
    job.change("q2", changes={"batch_size": 8}, mode="at_step", at_step=10_000)
    lacks(job)
    made = newest(job)
    assert (made.restores, made.changes, made.supersedes) == (True, {"learning_rate": 0.5}, [])


def test_what_a_newcomer_has_is_not_brought_again_while_it_lacks_what_is_about_to_change(job: Job) -> None:
    replace_rank_1(job)
    job.change("q2", changes={"batch_size": 8}, mode="at_step", at_step=10_000)
    asked = prepared(lacks(job))
    for name in ("r0", "new"):
        job.receive(name.encode(), promise_of(asked))
        job.answer(asked.revision.revision, name)
    job.advance(100.0)
    lacks(job)
    assert newest(job) == asked.revision


def test_a_key_that_is_about_to_change_gets_its_value_with_the_change(job: Job) -> None:
    replace_rank_1(job)
    job.change("q2", changes={"learning_rate": 0.25}, mode="at_step", at_step=10_000)
    lacks(job)
    assert newest(job).revision == 2


def test_what_a_newcomer_cannot_take_is_left_out(job: Job) -> None:
    narrow = Key("learning_rate", Schema(["number"], maximum=0.25), 0.1)
    replace_rank_1(job, keys=[narrow])
    assert told(lacks(job), 0) == []
    assert newest(job).revision == 1


def test_g3_names_of_any_length_keep_the_config_from_nobody() -> None:
    job = Job(0)
    run, attempt = "r" * 128, "a" * 128
    who = {"run": run, "attempt": attempt, "world_size": 2}
    for rank in range(2):
        job.active(f"r{rank}", rank=rank, **who)
    changes = {"learning_rate": 0.5}
    job.receive(b"op", m.SetConfig(id="q1", run=run, changes={**changes}, mode="next"))
    for rank in range(2):
        job.answer(1, f"r{rank}")
    job.receive(b"r1", m.Goodbye())
    job.active("new", rank=1, **who)
    lacks(job)
    assert list(job.core.state.attempts[run, attempt].ledgers)[-1].revision.restores


def test_what_was_not_steered_is_each_rank_s_own(job: Job) -> None:
    replace_rank_1(job, keys=[LEARNING_RATE])
    lacks(job)
    assert newest(job).changes == {"learning_rate": 0.5}


def test_another_life_of_the_broker_makes_it_too(job: Job) -> None:
    replace_rank_1(job)
    reborn = restarted(job, enter=False)
    for name, rank in (("r0", 0), ("new", 1)):
        reborn.join(name, rank=rank, world_size=2)
        reborn.sync(name, 1, newest(job).chain)
    lacks(reborn)
    assert newest(reborn).restores


def test_an_inherited_config_is_for_all_ranks_at_one_step(job: Job) -> None:
    for rank in range(2):
        job.join(f"two{rank}", rank=rank, world_size=2, attempt="two", inherit=True)
    attempt = job.core.state.attempts["run", "two"]
    (first,) = attempt.ledgers
    assert (first.revision.mode, first.targets, first.settled) == ("consistent", [], True)
    job.sync("two0")
    effects = job.sync("two1")
    told = [each.message for each in effects if isinstance(each, Send)]
    (snapshot,) = [each for each in told if isinstance(each, m.Snapshot)]
    assert snapshot.config == {"learning_rate": 0.5}
    lacks(job, "two1")
    assert attempt.ledgers[attempt.revision].revision.restores
