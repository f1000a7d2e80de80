"""Which requests are sent again, and when they are over."""

import itertools

import pytest
from msgspec.structs import replace

from bench import instructions
from zloom.client.requests import RESEND, SPARE, Answered, RequestTable
from zloom.messages import Follow, GetRuns, Refusal, RevisionState, Runs, SetConfig
from zloom.model import Outcome


@pytest.fixture
def table() -> RequestTable:
    ids = itertools.count(1)
    return RequestTable(lambda: f"fresh-{next(ids)}")


def a_change(request: str = "r1") -> SetConfig:
    return SetConfig(id=request, run="lm", changes={"lr": 0.1})


def a_state(request: str, *, settled: bool) -> RevisionState:
    outcome = Outcome("a", 0, "applied" if settled else None)
    return RevisionState(id=request, run="lm", attempt="one", revision=7, outcomes=[outcome], settled=settled)


def test_a_request_is_due_at_once_and_again_until_it_is_answered(table: RequestTable) -> None:
    request = GetRuns(id="r1")
    table.add(request, 10.0)
    assert table.first_due(10.0) == request
    table.sent(request, 10.0)
    assert table.first_due(10.0 + RESEND / 2) is None
    assert table.next_due() == 10.0 + RESEND
    assert table.first_due(10.0 + RESEND) == request
    table.sent(request, 10.0 + RESEND)
    assert table.resent == 1

    answer = Runs(id="r1", runs=[])
    assert table.receive(answer, 11.5) == [Answered("r1", answer, last=True)]
    assert (len(table), table.next_due()) == (0, None)


def test_an_answer_that_nobody_waits_for_is_nothing(table: RequestTable) -> None:
    assert table.receive(Runs(id="other", runs=[]), 1.0) == []


def test_a_change_becomes_a_follow_until_it_is_settled(table: RequestTable) -> None:
    change = a_change()
    table.add(change, 0.0)
    table.sent(change, 0.0)
    first = replace(a_state("r1", settled=False), chain=b"c7")
    assert table.receive(first, 0.1) == [Answered("r1", first, last=False)]

    follow = Follow(id="fresh-1", run="lm", attempt="one", revision=7, chain=b"c7")
    assert table.first_due(0.1 + RESEND / 2) is None
    assert table.first_due(0.1 + RESEND) == follow
    table.sent(follow, 0.1 + RESEND)
    pushed = a_state("r1", settled=False)
    assert table.receive(pushed, 1.2) == [Answered("r1", pushed, last=False)]
    assert table.first_due(0.1 + 2 * RESEND) == follow  # under the same id

    last = a_state("fresh-1", settled=True)
    assert table.receive(last, 2.2) == [Answered("r1", last, last=True)]
    assert table.receive(a_state("r1", settled=True), 2.3) == []
    assert table.resent == 0


def test_a_follow_of_the_caller_is_its_own(table: RequestTable) -> None:
    follow = Follow(id="r1", run="lm", revision=7)
    table.add(follow, 0.0)
    table.sent(follow, 0.0)
    table.receive(a_state("r1", settled=False), 0.1)
    assert table.first_due(RESEND) == follow


def test_one_push_is_for_all_that_wait_for_the_revision(table: RequestTable) -> None:
    table.add(a_change("r1"), 0.0)
    table.add(Follow(id="r2", run="lm", revision=7), 0.0)
    table.add(Follow(id="r3", run="lm", revision=8), 0.0)
    table.receive(a_state("r1", settled=False), 0.1)
    table.receive(a_state("r2", settled=False), 0.1)
    pushed = a_state("r1", settled=True)
    assert table.receive(pushed, 0.2) == [
        Answered("r1", pushed, last=True),
        Answered("r2", pushed, last=True),
    ]
    assert len(table) == 1


def test_a_push_under_an_id_that_is_over_still_tells_others(table: RequestTable) -> None:
    table.add(Follow(id="r2", run="lm", revision=7), 0.0)
    table.receive(a_state("r2", settled=False), 0.1)
    pushed = a_state("r1", settled=True)
    assert table.receive(pushed, 0.2) == [Answered("r2", pushed, last=True)]


def test_a_refusal_ends_a_request(table: RequestTable) -> None:
    table.add(a_change(), 0.0)
    refusal = Refusal(id="r1", code="unknown_key", text="no")
    assert table.receive(refusal, 0.1) == [Answered("r1", refusal, last=True)]
    assert len(table) == 0


def test_what_is_dropped_is_forgotten_with_its_follow(table: RequestTable) -> None:
    table.add(a_change(), 0.0)
    table.receive(a_state("r1", settled=False), 0.1)
    table.drop("r1")
    assert table.receive(a_state("fresh-1", settled=True), 0.2) == []
    assert table.first_due(99.0) is None


def test_a_new_connection_makes_everything_due(table: RequestTable) -> None:
    change = a_change()
    table.add(change, 0.0)
    table.sent(change, 0.0)
    table.restart(0.2)
    assert table.first_due(0.2) == change


def test_a_new_connection_has_requests_sent_in_the_order_in_which_they_were_made(table: RequestTable) -> None:
    made = ["z", "a", "m", "b"]
    for request in made:
        table.add(a_change(request), 0.0)
        table.sent(a_change(request), float(len(request)))
    table.restart(0.2)
    sent = []
    while (message := table.first_due(0.2)) is not None:
        table.sent(message, 0.2)
        sent.append(message.id)
    assert sent == made


def test_a_request_beside_many_open_ones_costs_no_more(table: RequestTable) -> None:
    def ask(request: str) -> None:
        table.add(a_change(request), 1.0)
        while (message := table.first_due(1.0)) is not None:
            table.sent(message, 1.0)

    ask("first")
    few = instructions.counted(lambda: ask("second"))
    for number in range(1000):
        ask(f"r{number}")
    assert instructions.counted(lambda: ask("last")) < 2 * few


def test_an_id_that_is_open_twice_leaves_nothing_behind(table: RequestTable) -> None:
    table.add(a_change(), 0.0)
    table.receive(a_state("r1", settled=False), 0.1)
    table.add(a_change(), 0.2)
    table.drop("r1")
    assert (len(table), table.next_due()) == (0, None)
    assert table.receive(a_state("r1", settled=True), 0.3) == []


def test_what_is_dropped_while_nobody_asks_leaves_no_times_behind(table: RequestTable) -> None:
    table.add(GetRuns(id="open"), 0.0)
    for number in range(1000):
        table.add(GetRuns(id=f"r{number}"), 1.0)
        table.drop(f"r{number}")
    assert len(table._agenda) <= 2 * len(table) + SPARE
    assert table.next_due() == 0.0
