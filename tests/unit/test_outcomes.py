"""Outcomes on their way to whoever follows or watches."""

import pytest

from tests.unit.broker_support import LEARNING_RATE, Bench, changed, published, pushes, sent, two_ranks
from zloom import messages as m
from zloom.codec import MAX_MESSAGE_SIZE, encode
from zloom.model import Outcome, OutcomeKind
from zloom_broker import outcomes
from zloom_broker.attempt import MAX_TEXT
from zloom_broker.effects import Commit
from zloom_broker.outcomes import MAX_RECORDED
from zloom_broker.records import OutcomesRecorded, RevisionAccepted, decode_record


def test_who_watches_is_told_of_each_outcome() -> None:
    bench = two_ranks()
    (answered,) = [x for x in published(bench.answer(1, "a"), b"watch/run/") if isinstance(x, m.Answered)]
    assert (answered.outcomes, answered.settled) == ([Outcome("a", 0, "applied", 5)], False)


def outcomes_of(name: str, error: str = "") -> tuple[str, m.Outcomes]:
    """Return what a replica says of revision 1."""
    kind: OutcomeKind = "rejected" if error else "applied"
    return name, m.Outcomes(epoch="epoch", outcomes={1: Outcome(name, outcome=kind, error=error)})


def test_outcomes_of_one_turn_are_written_and_told_together() -> None:
    bench = two_ranks()
    before = len(bench.journal)
    told = bench.turn(outcomes_of("a"), outcomes_of("b"), outcomes_of("a"))
    assert len(bench.journal) == before + 1
    (answered,) = published(told, b"watch/run/")
    assert isinstance(answered, m.Answered)
    assert ([each.replica for each in answered.outcomes], answered.settled) == (["a", "b"], True)
    assert pushes(sent(told)) == [["applied", "applied"]]
    told = bench.advance(1.0)
    for name in (b"a", b"b"):
        assert [each.recorded for each in sent(told, name) if isinstance(each, m.Ping)][-1] == [1]


def test_g4_what_was_said_before_a_goodbye_in_one_turn_is_on_disk_before_it() -> None:
    bench = two_ranks()
    bench.turn(outcomes_of("a"), outcomes_of("b"), ("a", m.Goodbye(reason="finished", step=9)))
    outcomes = bench.core.state.attempts["run", "one"].ledgers[1].outcomes
    assert [each.outcome for each in outcomes.values()] == ["applied", "applied"]


def test_g4_outcomes_of_one_turn_that_could_not_be_written_are_taken_when_they_come_again() -> None:
    bench = two_ranks()
    bench.hold = True
    bench.turn(outcomes_of("a"), outcomes_of("b"))
    bench.fail()
    assert bench.recorded("a") == []
    told = bench.turn(outcomes_of("a"), outcomes_of("b"))
    assert pushes(sent(told)) == [["applied", "applied"]]


def test_g4_a_bug_at_the_write_loses_no_outcome_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = two_ranks()
    with monkeypatch.context() as bug:
        bug.setattr(outcomes, "OutcomesRecorded", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bench.turn(outcomes_of("a"))
    assert pushes(sent(bench.turn(outcomes_of("a"), outcomes_of("b")))) == [["applied", "applied"]]


def test_a_record_takes_no_more_than_so_many_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "MAX_BATCH", 2)
    bench = changed("a", "b", "c")
    before = len(bench.journal)
    bench.turn(*map(outcomes_of, "abc"))
    written = [decode_record(payload) for payload in bench.journal[before:]]
    assert [len(each.outcomes[1]) for each in written if isinstance(each, OutcomesRecorded)] == [2, 1]


def outcomes_written(bench: Bench, since: int) -> list[list[str]]:
    """Return whose outcomes each record since then has."""
    written = [decode_record(payload) for payload in bench.journal[since:]]
    return [
        [each.replica for each in record.outcomes[1]]
        for record in written
        if isinstance(record, OutcomesRecorded)
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_what_comes_while_outcomes_are_written_is_written_together(fails: bool) -> None:
    bench = changed("a", "b", "c")
    before, bench.hold = len(bench.journal), True
    for name in "abc":
        bench.turn(outcomes_of(name))
    assert len(bench.waiting) == 1
    if fails:
        bench.fail()
    else:
        bench.confirm()
    assert outcomes_written(bench, before) == ([["b", "c"]] if fails else [["a"], ["b", "c"]])


def test_what_follows_from_outcomes_is_written_after_them() -> None:
    bench = changed("a", "b")
    before, bench.hold = len(bench.journal), True
    bench.turn(outcomes_of("a"))
    bench.turn(outcomes_of("b"))
    bench.set("q2", learning_rate=0.25)
    bench.confirm()
    assert outcomes_written(bench, before) == [["a"], ["b"]]
    assert [type(decode_record(each)) for each in bench.journal[before:]][-1] is RevisionAccepted


def test_what_waits_to_be_written_is_written_at_the_end() -> None:
    bench = changed("a", "b")
    bench.hold = True
    bench.turn(outcomes_of("a"))
    bench.turn(outcomes_of("b"))
    (commit,) = bench.core.end()
    assert isinstance(commit, Commit)
    record = decode_record(commit.payloads[0])
    assert isinstance(record, OutcomesRecorded)
    assert [each.replica for each in record.outcomes[1]] == ["b"]


def test_outcomes_that_do_not_fit_into_one_publication_come_in_several() -> None:
    names = [f"r{rank}" for rank in range(400)]
    bench = changed(*names)
    told = bench.turn(*(outcomes_of(name, "x" * MAX_TEXT) for name in names))
    answered = [each for each in published(told, b"watch/run/") if isinstance(each, m.Answered)]
    assert [each.replica for part in answered for each in part.outcomes] == names
    assert all(len(encode(each)) < MAX_MESSAGE_SIZE / 2 for each in answered)
    assert len(answered) > 1


def test_a_long_outcome_takes_no_other_with_it() -> None:
    bench = two_ranks()
    key = "k" * 100
    values: dict[str, int | float] = {f"{key}{number}": 0.5 for number in range(8000)}
    short, long = (
        outcomes_of("a"),
        m.Outcomes(epoch="epoch", outcomes={1: Outcome("b", outcome="applied", values=values)}),
    )
    told = published(bench.turn(short, ("b", long)), b"watch/run/")
    parts = [each.outcomes for each in told if isinstance(each, m.Answered)]
    assert [[outcome.replica for outcome in part] for part in parts] == [["a"], ["b"]]


def test_a_replica_that_repeats_itself_fills_no_memory() -> None:
    bench = two_ranks()
    for number in range(0, 2 * MAX_RECORDED, 100):
        invented = {n: Outcome("a", outcome="applied") for n in range(number + 2, number + 102)}
        bench.receive(b"a", m.Outcomes(epoch="epoch", outcomes=invented))
    assert len(bench.recorded()) == MAX_RECORDED


def test_an_outcome_of_another_replica_is_not_taken() -> None:
    bench = two_ranks()
    forged = m.Outcomes(epoch="epoch", outcomes={1: Outcome("b", 1, "applied")})
    bench.receive(b"a", forged)
    assert bench.recorded() == [1], "it would be sent for ever"
    assert bench.core.state.attempts["run", "one"].ledgers[1].outcomes == {}


def test_a_novel_is_cut_short() -> None:
    bench = two_ranks()
    bench.answer(1, "a", "rejected", error="x" * 100_000)
    outcome = bench.core.state.attempts["run", "one"].ledgers[1].outcomes["a"]
    assert outcome.error == "x" * MAX_TEXT + "…"


def test_g4_a_joiner_does_not_make_what_all_rejected_valid_again() -> None:
    bench = Bench()
    bench.active()
    bench.operator()
    bench.set(learning_rate=0.5)
    bench.answer(1, outcome="rejected", error="no")
    bench.active("b", rank=1, world_size=2)
    # It took the config as of revision 1, which has nothing of it.
    bench.answer(1, "b", detail="snapshot")
    assert bench.recorded("b") == [1], "it would be sent for ever"
    attempt = bench.core.state.attempts["run", "one"]
    assert list(attempt.ledgers[1].outcomes) == ["a"]
    assert attempt.config.now()["learning_rate"].value == LEARNING_RATE.baseline


def test_g4_a_command_may_return_the_word_that_a_joiner_says() -> None:
    bench = Bench()
    bench.active()
    bench.operator()
    bench.receive(b"op", m.SendCommand(id="q1", run="run", command="pause"))
    ledger = bench.core.state.attempts["run", "one"].ledgers[1]
    bench.answer(1, detail="snapshot")
    assert not ledger.settled
    bench.answer(1, detail="snapshot", chain=ledger.revision.chain)
    assert ledger.settled
