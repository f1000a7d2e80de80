"""The fold of one attempt's records."""

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given, settings

from tests.unit.broker_support import replica
from zloom.model import Mode, Outcome, OutcomeKind, Revision, Value
from zloom_broker.attempt import Attempt
from zloom_broker.records import (
    AttemptStarted,
    OutcomesRecorded,
    ReplicaJoined,
    ReplicaLeft,
    RevisionAccepted,
)

MODES: tuple[Mode, ...] = ("next", "consistent")
ANSWERS: tuple[OutcomeKind, ...] = ("applied", "rejected", "aborted")


def attempt_of(*names: str) -> Attempt:
    """Return an attempt with these replicas, one a rank."""
    attempt = Attempt(AttemptStarted(run="run", attempt="one", world_size=len(names), at=0.0))
    for rank, name in enumerate(names):
        joined = replica(name, rank=rank, world_size=len(names))
        attempt.join(ReplicaJoined(replica=joined, at=0.0))
    return attempt


def accept(attempt: Attempt, mode: Mode = "next", **changes: Value) -> int:
    """Let a config revision be accepted for all replicas; return its number."""
    number = attempt.revision + 1
    revision = Revision(number, "config", changes, mode=mode, chain=number.to_bytes(4))
    targets = list(attempt.replicas)
    attempt.accept(RevisionAccepted(run="run", attempt="one", revision=revision, targets=targets))
    return number


def answer(attempt: Attempt, number: int, name: str, kind: OutcomeKind, error: str = "") -> None:
    """Let a replica answer."""
    outcome = Outcome(name, attempt.replicas[name].rank, kind, error=error)
    attempt.record(OutcomesRecorded(run="run", attempt="one", outcomes={number: [outcome]}))


def leave(attempt: Attempt, name: str, *, lost: bool) -> None:
    """Let a replica leave."""
    outcome = "lost" if lost else "not_reached"
    fields = {
        "run": "run",
        "attempt": "one",
        "replica": name,
        "outcome": outcome,
        "reason": "gone",
        "at": 1.0,
    }
    attempt.leave(msgspec.convert(fields | {"record": "replica_left"}, ReplicaLeft))


def values(attempt: Attempt) -> dict[str, Value]:
    return {key: setting.value for key, setting in attempt.config.now().items()}


def test_config_is_the_baseline_and_what_was_set() -> None:
    attempt = attempt_of("a")
    assert attempt.config.now()["learning_rate"] == (0.1, 0)
    accept(attempt, learning_rate=0.5)
    assert attempt.config.now()["learning_rate"] == (0.5, 1)
    assert attempt.config.at(0)["learning_rate"] == (0.1, 0)
    assert attempt.config.without([]) == {"learning_rate": 0.5}


@pytest.mark.parametrize("kind", ["rejected", "aborted", "cancelled", "superseded"])
def test_what_nobody_took_is_not_wanted_any_more(kind: OutcomeKind) -> None:
    attempt = attempt_of("a", "b")
    accept(attempt, learning_rate=0.5)
    answer(attempt, 1, "a", kind)
    assert values(attempt)["learning_rate"] == 0.5, "b may still apply it"
    answer(attempt, 1, "b", kind)
    assert values(attempt)["learning_rate"] == 0.1
    assert values(attempt) == {k: s.value for k, s in attempt.config.at(1).items()}


def test_what_one_applied_is_wanted() -> None:
    attempt = attempt_of("a", "b")
    accept(attempt, learning_rate=0.5)
    answer(attempt, 1, "a", "rejected")
    answer(attempt, 1, "b", "applied")
    assert values(attempt)["learning_rate"] == 0.5


def test_what_the_lost_could_not_take_is_wanted() -> None:
    attempt = attempt_of("a")
    accept(attempt, learning_rate=0.5)
    leave(attempt, "a", lost=True)
    assert attempt.ledgers[1].settled
    assert values(attempt)["learning_rate"] == 0.5
    answer(attempt, 1, "a", "rejected")
    assert values(attempt)["learning_rate"] == 0.1, "the amended outcome counts"


def test_g4_the_first_outcome_of_a_target_wins() -> None:
    attempt = attempt_of("a")
    accept(attempt, learning_rate=0.5)
    answer(attempt, 1, "a", "applied")
    answer(attempt, 1, "a", "rejected")
    assert attempt.ledgers[1].outcomes["a"].outcome == "applied"


def test_g4_not_reached_is_final() -> None:
    attempt = attempt_of("a")
    accept(attempt, learning_rate=0.5)
    leave(attempt, "a", lost=False)
    answer(attempt, 1, "a", "applied")
    assert attempt.ledgers[1].outcomes["a"].outcome == "not_reached"


def test_one_that_has_nothing_to_say_is_not_listed() -> None:
    attempt = attempt_of("a", "b")
    revision = Revision(1, "config", {"learning_rate": 0.5})
    attempt.accept(RevisionAccepted(run="run", attempt="one", revision=revision, targets=["a"]))
    answer(attempt, 1, "b", "rejected", "undeclared")
    assert [outcome.replica for outcome in attempt.outcomes(attempt.ledgers[1])] == ["a"]
    answer(attempt, 1, "b", "applied")
    assert [outcome.replica for outcome in attempt.outcomes(attempt.ledgers[1])] == ["a", "b"]


def test_what_a_thousand_have_to_say_fits_into_one_message() -> None:
    attempt = attempt_of(*(f"replica-{number}" for number in range(1000)))
    accept(attempt, learning_rate=0.5)
    for name in attempt.replicas:
        answer(attempt, 1, name, "rejected", "x" * 10_000)
    assert len(msgspec.msgpack.encode(attempt.entry(attempt.ledgers[1]))) < 512 * 1024


def test_keys_are_those_of_who_is_there_and_else_of_who_was() -> None:
    attempt = attempt_of("a")
    leave(attempt, "a", lost=False)
    assert set(attempt.keys()) == {"learning_rate", "batch_size"}
    attempt.join(ReplicaJoined(replica=replica("b", keys=[]), at=0.0))
    assert attempt.keys() == {}


@pytest.mark.parametrize("overwritten", [False, True])
def test_what_one_that_comes_back_applied_is_wanted_again(overwritten: bool) -> None:
    attempt = attempt_of("a", "b")
    accept(attempt, learning_rate=0.5)
    answer(attempt, 1, "a", "rejected")
    leave(attempt, "b", lost=True)
    assert values(attempt)["learning_rate"] == 0.1
    if overwritten:
        accept(attempt, learning_rate=0.25)
    answer(attempt, 1, "b", "applied")
    assert values(attempt)["learning_rate"] == (0.25 if overwritten else 0.5)
    assert attempt.config.now() == attempt.config.at(attempt.revision)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_snapshot_has_the_same_config_in_whatever_order_outcomes_came(data: st.DataObject) -> None:
    attempt = attempt_of("a", "b")
    accept(attempt, data.draw(st.sampled_from(MODES)), learning_rate=0.25)
    accept(attempt, data.draw(st.sampled_from(MODES)), learning_rate=0.5)
    end = Revision(3, "cancel", cancels=2, chain=b"3")
    attempt.accept(RevisionAccepted(run="run", attempt="one", revision=end, targets=["a", "b"]))
    for number, name in data.draw(st.permutations([(n, name) for n in (1, 2, 3) for name in "ab"])):
        leave(attempt, name, lost=data.draw(st.booleans()))
        attempt.join(ReplicaJoined(replica=attempt.replicas[name], at=1.0))
        kind = data.draw(st.sampled_from(ANSWERS))
        reached: dict[str, int | float] = {"learning_rate": 0.3} if data.draw(st.booleans()) else {}
        outcome = Outcome(name, "ab".index(name), kind, values=reached)
        attempt.record(OutcomesRecorded(run="run", attempt="one", outcomes={number: [outcome]}))
        assert Attempt.restore(attempt.image(), attempt.parts(), {}).config.now() == attempt.config.now()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from((*ANSWERS, "lost")), st.booleans()), max_size=8
    )
)
@example(
    [
        ("c", "lost", True),
        ("b", "applied", False),
        ("a", "applied", True),
        ("c", "applied", False),
    ]
)
def test_outcomes_of_one_record_are_what_each_of_them_would_be(
    said: list[tuple[str, OutcomeKind, bool]],
) -> None:
    together, apart = attempt_of("a", "b", "c"), attempt_of("a", "b", "c")
    for attempt in (together, apart):
        accept(attempt, learning_rate=0.5)
        cancel = Revision(2, "cancel", cancels=1)
        attempt.accept(RevisionAccepted(run="run", attempt="one", revision=cancel, targets=["a", "b", "c"]))
    outcomes = [
        Outcome(name, 0, kind, values={"learning_rate": place} if valued else {})
        for place, (name, kind, valued) in enumerate(said)
    ]

    for number in (1, 2):
        together.record(OutcomesRecorded(run="run", attempt="one", outcomes={number: outcomes}))
        for outcome in outcomes:
            apart.record(OutcomesRecorded(run="run", attempt="one", outcomes={number: [outcome]}))

    assert together.image() == apart.image()
    assert together.config.now() == apart.config.now()
    assert (list(together.open), together.losses) == (list(apart.open), apart.losses)
