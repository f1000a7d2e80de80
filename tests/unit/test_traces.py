"""How far a replica had come, as its outcomes show."""

from typing import Any

import pytest

from tests.unit.broker_support import Bench, sent
from zloom import messages as m
from zloom.model import ReplicaStatus
from zloom_broker.attempt import Attempt
from zloom_broker.blocks import unpack_ledger
from zloom_broker.ledgers import BLOCK_SIZE
from zloom_broker.traces import LOOK_BACK, Trace


def steered(revisions: int) -> Bench:
    """Return a bench with a weavelet in step that was steered so many times, and has answered nothing."""
    bench = Bench()
    bench.active()
    bench.operator()
    for number in range(revisions):
        bench.set(request_id=f"q{number}", learning_rate=0.5)
    return bench


def attempt_of(bench: Bench) -> Attempt:
    return bench.core.state.attempts["run", "one"]


def restarted(bench: Bench) -> Bench:
    """Return another life of the broker, in which the operator is there again."""
    other = Bench(list(bench.journal))
    other.operator()
    return other


def seen(bench: Bench) -> ReplicaStatus:
    (answer,) = sent(bench.receive(b"op", m.GetReplicas(id="r", run="run")))
    assert isinstance(answer, m.Replicas)
    (status,) = answer.replicas
    return status


def test_the_newest_outcome_tells_how_far_it_was() -> None:
    bench = steered(3)
    assert attempt_of(bench).traces.of("a") == Trace()
    bench.answer(1, step=5)
    bench.answer(2, step=7)
    assert attempt_of(bench).traces.of("a") == Trace(7, 2)
    bench.answer(3, outcome="rejected", step=None)
    assert attempt_of(bench).traces.of("a") == Trace(7, 3)
    assert attempt_of(bench).traces.of("b") == Trace()


def test_what_a_replica_answered_after_its_last_status_counts_when_it_has_left() -> None:
    bench = steered(1)
    bench.receive(b"a", m.Status(seq=1, step=1))
    bench.answer(1, step=1)
    bench.receive(b"a", m.Goodbye(step=1))
    assert (seen(bench).state, seen(bench).revision) == ("finished", 1)


def test_a_replica_that_came_back_from_a_checkpoint_is_where_its_newest_outcome_says() -> None:
    bench = steered(2)
    assert attempt_of(bench).traces.of("a") == Trace()
    bench.answer(2, step=3)
    bench.answer(1, step=9)
    assert attempt_of(bench).traces.of("a") == Trace(3, 2)


def test_history_is_unpacked_once_for_all_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for replica by replica, it held the broker up for 54 s: 1,000 of them, and 400 revisions."""
    bench = steered(BLOCK_SIZE + 1)  # so that the first block is full, and rests
    for number in range(BLOCK_SIZE):
        bench.answer(number + 1, step=5)
    names = [f"r{rank}" for rank in range(1, 9)]
    for rank, name in enumerate(names, 1):
        bench.join(name, rank=rank)
    attempt = attempt_of(restarted(bench))
    for _ in attempt.ledgers.pack():
        pass
    unpacked: list[memoryview] = []

    def unpack(row: memoryview) -> Any:
        unpacked.append(row)
        return unpack_ledger(row)

    monkeypatch.setattr("zloom_broker.ledgers.unpack_ledger", unpack)
    assert [attempt.traces.of(name) for name in ["a", *names]] == [Trace(5, BLOCK_SIZE), *[Trace()] * 8]
    assert 0 < len(unpacked) <= LOOK_BACK


def test_what_the_broker_concluded_of_a_lost_one_tells_nothing() -> None:
    bench = steered(2)
    bench.answer(1, step=5)
    bench.unroutable(b"a")
    bench.advance(2.0)
    assert attempt_of(bench).traces.of("a") == Trace(5, 1)


def test_not_all_of_a_long_history_is_looked_through() -> None:
    bench = steered(LOOK_BACK + 1)
    bench.answer(1, step=5)
    assert attempt_of(bench).traces.of("a") == Trace()


def test_a_restarted_broker_names_no_step_that_nobody_told() -> None:
    bench = steered(1)
    bench.receive(b"a", m.Status(seq=1, step=9, revision=1))
    other = restarted(bench)
    assert (seen(other).step, seen(other).revision) == (None, None)
    other.join("a")
    assert (seen(other).state, seen(other).step) == ("live", None)
    other.sync("a")
    other.receive(b"a", m.Status(seq=1, step=12, revision=1))
    assert (seen(other).step, seen(other).revision) == (12, 1)


@pytest.mark.parametrize("answered", [False, True])
def test_one_that_died_while_the_broker_was_away_keeps_the_step_of_its_outcome(answered: bool) -> None:
    bench = steered(1)
    if answered:
        bench.answer(1, step=5)
    other = restarted(bench)
    other.advance(60.0)
    lost = seen(other)
    assert lost.state == "lost"
    assert (lost.step, lost.revision) == ((5, 1) if answered else (None, None))
    again = seen(restarted(other))
    assert (again.state, again.step, again.revision) == ("lost", lost.step, lost.revision)
