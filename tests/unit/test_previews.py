"""A preview says what would come of a change, and leaves no trace."""

from typing import Any

import pytest

from tests.unit.broker_support import BATCH_SIZE, LEARNING_RATE, PAUSE, Bench, sent
from zloom import messages as m
from zloom.model import Key, Problem, Schema

NARROW = Key("learning_rate", Schema(["number"], exclusive_minimum=0, maximum=0.3), 0.1)


def bench_of(*keys: Key, world_size: int = 2) -> Bench:
    """Return a bench with ranks of which the last declares these keys, and an operator."""
    bench = Bench()
    for rank in range(world_size):
        declared = {"keys": [*keys, BATCH_SIZE]} if keys and rank == world_size - 1 else {}
        bench.active(f"r{rank}", rank=rank, world_size=world_size, **declared)
    bench.operator()
    return bench


def preview(bench: Bench, request: Any) -> m.Preview:
    (answer,) = sent(bench.receive(b"op", request))
    assert isinstance(answer, m.Preview), answer
    return answer


def update(**more: Any) -> m.SetConfig:
    fields: dict[str, Any] = {"changes": {"learning_rate": 0.2}, "preview": True, **more}
    return m.SetConfig(id="q", run="run", **fields)


def test_it_says_what_would_be_accepted_and_who_would_answer() -> None:
    answer = preview(bench_of(), update(note="why"))
    assert answer.problems == []
    assert answer.targets == ["r0", "r1"]
    revision = answer.revision
    assert revision is not None
    assert (revision.revision, revision.changes, revision.mode) == (1, {"learning_rate": 0.2}, "consistent")
    assert (revision.note, revision.by, revision.at, revision.chain) == ("why", "", 0.0, b"")


def test_nothing_is_written_published_or_remembered() -> None:
    bench = bench_of()
    journal = list(bench.journal)
    effects = bench.receive(b"op", update())
    assert len(effects) == 1
    assert bench.journal == journal
    accepted = sent(bench.receive(b"op", update(preview=False, changes={"batch_size": 8})))
    assert isinstance(accepted[0], m.RevisionState)
    assert (accepted[0].revision, accepted[0].duplicate) == (1, False)


def test_it_names_all_that_is_wrong_and_whose_schema_refuses_it() -> None:
    answer = preview(bench_of(NARROW), update(changes={"learning_rate": 0.5, "batch_size": 0}))
    assert answer.revision is None
    assert answer.problems == [
        Problem("out_of_bounds", "batch_size: 0 is out of bounds; expected integer >= 1", ["r0", "r1"]),
        Problem("out_of_bounds", "learning_rate: 0.5 is out of bounds; expected number > 0, <= 0.3", ["r1"]),
    ]


def test_it_names_what_the_broker_itself_would_refuse() -> None:
    bench = bench_of()
    [problem] = preview(bench, update(expected_revision=5)).problems
    assert (problem.code, problem.replicas) == ("revision_conflict", [])
    bench.receive(b"r1", m.Goodbye())
    assert [each.code for each in preview(bench, update()).problems] == ["ranks_missing"]
    both = preview(bench, update(changes={"learning_rate": 5.0}, expected_revision=5)).problems
    assert [each.code for each in both] == ["revision_conflict", "out_of_bounds"]


def test_a_read_only_journal_is_a_problem_too() -> None:
    bench = Bench(read_only="it is damaged")
    bench.operator()
    (answer,) = sent(bench.receive(b"op", update()))
    assert isinstance(answer, m.Refusal)  # there is no such run
    assert answer.code == "unknown_run"


def test_a_rollback_shows_what_it_would_change() -> None:
    bench = bench_of(world_size=1)
    bench.set("q1", learning_rate=0.5)
    bench.answer(1, "r0")
    request = m.Rollback(id="b", run="run", to_revision=0, preview=True)
    revision = preview(bench, request).revision
    assert revision is not None
    assert (revision.changes, revision.note) == ({"learning_rate": 0.1}, "rollback to 0")
    bench.receive(b"r0", m.Declare(seq=1, keys=[NARROW], commands=[PAUSE]))
    bench.receive(b"op", m.Rollback(id="b2", run="run", to_revision=0))
    back = m.Rollback(id="b3", run="run", to_revision=1, preview=True)
    assert preview(bench, back).problems == [
        Problem("out_of_bounds", "learning_rate: 0.5 is out of bounds; expected number > 0, <= 0.3", ["r0"])
    ]


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [({"limit": 5}, []), ({"limit": "long"}, [("bad_arguments", ["r0", "r1"])])],
)
def test_a_command_is_checked_too(arguments: Any, problems: list[Any]) -> None:
    request = m.SendCommand(id="c", run="run", command="pause", arguments=arguments, preview=True)
    answer = preview(bench_of(), request)
    assert [(each.code, each.replicas) for each in answer.problems] == problems
    assert LEARNING_RATE.name not in str(answer.problems)
