"""What one that joins is still to carry out, besides the values that hold."""

from bench.instructions import counted
from tests.unit.broker_support import Bench, replica, sent
from tests.unit.test_attempt import accept, answer, attempt_of, leave
from zloom import messages as m
from zloom.model import Revision, Value
from zloom_broker.attempt import Attempt
from zloom_broker.catchup import KEPT_PAGES, PENDING_SIZE, LogPages, pending_for
from zloom_broker.records import ReplicaJoined, RevisionAccepted


def numbers(revisions: list[Revision]) -> list[int]:
    return [revision.revision for revision in revisions]


def cancel(attempt: Attempt, number: int, target: str) -> None:
    revision = Revision(attempt.revision + 1, "cancel", cancels=number)
    attempt.accept(RevisionAccepted(run="run", attempt="one", revision=revision, targets=[target]))


def test_a_long_history_costs_one_that_joins_nothing() -> None:
    def joining_after(changes: int) -> int:
        attempt = attempt_of("a")
        for _ in range(changes):
            answer(attempt, accept(attempt, learning_rate=0.5), "a", "applied")
        accept(attempt, "at_step", learning_rate=0.25)
        pending = pending_for(attempt, "new")
        assert numbers(pending) == [changes + 1]
        assert attempt.config.without(pending) == {"learning_rate": 0.5}
        return counted(lambda: attempt.config.without(pending_for(attempt, "new")))

    assert joining_after(250) <= joining_after(10) * 1.1


def test_a_log_that_many_lack_is_made_once() -> None:
    def asking_costs(lacks: int) -> int:
        attempt, pages = attempt_of("a"), LogPages("epoch")
        for _ in range(lacks):
            accept(attempt, learning_rate=0.5)
        log = pages.after(attempt, 0)
        assert numbers(log.revisions) == list(range(1, lacks + 1))
        assert pages.after(attempt, 0) is log
        return counted(lambda: pages.after(attempt, 0))

    assert asking_costs(300) <= asking_costs(10) * 1.1


def test_a_log_that_was_kept_is_that_of_the_place_and_the_moment() -> None:
    attempt, pages = attempt_of("a"), LogPages("epoch")
    accept(attempt, learning_rate=0.5)
    assert numbers(pages.after(attempt, 0).revisions) == [1]
    accept(attempt, learning_rate=0.25)
    for _ in range(2):
        assert numbers(pages.after(attempt, 0).revisions) == [1, 2]
        assert numbers(pages.after(attempt, 1).revisions) == [2]
        assert pages.after(attempt, 2).revisions == []
    for position in range(KEPT_PAGES + 1):
        accept(attempt, learning_rate=0.5)
        pages.after(attempt, position)
    assert numbers(pages.after(attempt, 0).revisions) == list(range(1, attempt.revision + 1))


def test_a_log_that_was_kept_is_that_of_the_attempt() -> None:
    bench = Bench()
    bench.operator()
    told: list[list[dict[str, Value]]] = []
    for rate, name, attempt in (0.5, "a", "one"), (0.25, "b", "two"), (0.125, "c", "one"):
        bench.active(name, attempt=attempt)
        change = m.SetConfig(id=name, run="run", attempt=attempt, changes={"learning_rate": rate})
        bench.receive(b"op", change)
        (log,) = [each for each in sent(bench.sync(name, 0), name.encode()) if isinstance(each, m.Log)]
        told.append([each.changes for each in log.revisions])
        bench.answer(1, name)
        bench.receive(name.encode(), m.Goodbye())
        if attempt == "one":
            bench.receive(b"op", m.Forget(id=f"forget {name}", run="run", attempt=attempt))
    assert told == [[{"learning_rate": 0.5}], [{"learning_rate": 0.25}], [{"learning_rate": 0.125}]]


def test_what_others_were_lost_in_costs_one_that_joins_nothing() -> None:
    def joining_after(changes: int) -> int:
        attempt = attempt_of("a", "b")
        for number in range(1, changes + 1):
            accept(attempt, learning_rate=0.5)
            answer(attempt, number, "a", "applied")
        leave(attempt, "b", lost=True)
        for _ in attempt.pack():
            pass
        assert numbers(pending_for(attempt, "b")) == list(range(1, changes + 1))
        assert pending_for(attempt, "new") == []
        return counted(lambda: attempt.config.without(pending_for(attempt, "new")))

    assert joining_after(300) <= joining_after(10) * 1.1


def test_what_waits_for_a_step_is_pending_and_not_config() -> None:
    attempt = attempt_of("a")
    accept(attempt, "at_step", learning_rate=0.5)
    accept(attempt, batch_size=8)
    answer(attempt, 2, "a", "applied")
    pending = pending_for(attempt, "new")
    assert numbers(pending) == [1]
    assert attempt.config.without(pending) == {"batch_size": 8}
    answer(attempt, 1, "a", "applied")
    assert pending_for(attempt, "new") == []


def test_config_that_may_still_be_rejected_is_answered_by_a_joiner_too() -> None:
    attempt = attempt_of("a")
    accept(attempt, learning_rate=0.5)
    assert numbers(pending_for(attempt, "new")) == [1]
    answer(attempt, 1, "a", "applied")
    assert pending_for(attempt, "new") == []


def test_g3_config_that_only_lost_replicas_were_to_apply_is_answered_by_a_joiner_too() -> None:
    attempt = attempt_of("a")
    accept(attempt, learning_rate=0.5)
    leave(attempt, "a", lost=True)
    assert numbers(pending_for(attempt, "new")) == [1]
    attempt.join(ReplicaJoined(replica=replica("new", rank=1), at=0.0))
    answer(attempt, 1, "new", "applied")
    assert pending_for(attempt, "another") == []
    answer(attempt, 1, "a", "rejected")  # it is back; the joiner has the value, and so has the config
    assert attempt.config.now()["learning_rate"].value == 0.5


def test_g4_what_was_lost_before_the_first_snapshot_is_still_to_come() -> None:
    bench = Bench()
    bench.operator()
    bench.join()
    bench.receive(b"op", m.SendCommand(id="q1", run="run", command="pause"))
    bench.unroutable(b"a")
    bench.advance(2)
    assert bench.core.state.attempts["run", "one"].ledgers[1].outcomes["a"].outcome == "lost"
    bench.join()
    (snapshot,) = sent(bench.sync(), b"a")
    assert isinstance(snapshot, m.Snapshot)
    assert numbers(snapshot.pending) == [1]


def test_g3_a_cancel_comes_with_what_it_cancels() -> None:
    attempt = attempt_of("a")
    accept(attempt, "at_step", learning_rate=0.5)
    cancel(attempt, 1, "a")
    assert numbers(pending_for(attempt, "new")) == [1, 2]


def test_g3_a_later_value_does_not_come_before_an_earlier_one() -> None:
    attempt = attempt_of("a", "b")
    leave(attempt, "a", lost=True)
    accept(attempt, learning_rate=0.5)
    number = attempt.revision + 1
    revision = Revision(number, "config", {"learning_rate": 0.25})
    attempt.accept(RevisionAccepted(run="run", attempt="one", revision=revision, targets=["b"]))
    for each in (1, 2):
        answer(attempt, each, "b", "applied")
    pending = pending_for(attempt, "a")
    assert numbers(pending) == [1, 2]
    assert attempt.config.without(pending) == {}


def test_g3_under_a_flood_a_joiner_is_not_sent_all_of_it() -> None:
    bench = Bench()
    bench.operator()
    bench.active()
    for number in range(2 * PENDING_SIZE // 100):
        bench.set(f"q{number}", learning_rate=0.5)
    bench.join("b", rank=1, world_size=2)
    (snapshot,) = sent(bench.sync("b"), b"b")
    assert isinstance(snapshot, m.Snapshot)
    assert (snapshot.config, snapshot.pending) == ({"learning_rate": 0.5}, [])
