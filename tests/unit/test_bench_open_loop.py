"""bench.pace and bench.open_loop: when changes are sent, and from when they are timed."""

import asyncio
import time

import pytest

from bench.open_loop import GOALS, PACES, QUICK_PACES, Turns, figures, finished, send, summarized
from bench.pace import Pace, Turn
from bench.results import OPEN

MS = 1_000_000
SOON = 5.0
"""Seconds in which what needs no time has happened."""


def test_changes_are_intended_at_equal_distances_without_drift() -> None:
    assert Pace(200, 4).intended() == [0, 5 * MS, 10 * MS, 15 * MS]
    assert Pace(3, 4).intended() == [0, 333_333_333, 666_666_666, 1_000_000_000]
    assert Pace(200, 4).length == 20 * MS


def test_a_change_is_timed_from_when_it_should_have_been_sent() -> None:
    # All were answered at 31 ms: the first kept the others waiting, also if they were only sent then.
    turn = Turn(Pace(100, 3), [31 * MS] * 3, 40 * MS)

    assert turn.latencies() == [31 * MS, 21 * MS, 11 * MS]


def test_one_without_an_answer_counts_with_what_it_waited() -> None:
    turn = Turn(Pace(100, 3), [1 * MS, None, None], 2000 * MS)

    assert turn.latencies() == [1 * MS, 1990 * MS, 1980 * MS]
    assert turn.unanswered == 2


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        ([1 * MS, 11 * MS, 21 * MS], 100.0),  # the last came before a fourth would have been sent
        ([1 * MS, 11 * MS, 60 * MS], 50.0),
        ([1 * MS, None, None], 1000 / 30),
        ([None, None, None], 0.0),
    ],
)
def test_who_keeps_up_reaches_the_rate_and_nobody_more(answered: list[int | None], expected: float) -> None:
    assert Turn(Pace(100, 3), answered, 2000 * MS).answered_a_second() == pytest.approx(expected)


async def test_no_change_waits_for_another() -> None:
    sent, all_sent = 0, asyncio.Event()

    async def change() -> None:
        nonlocal sent
        sent += 1
        if sent == 20:
            all_sent.set()
        await all_sent.wait()  # for ever, if the next were sent after this one's answer

    turn, late = await send(Pace(1000, 20), change, SOON)

    assert turn.unanswered == 0
    assert not late
    latencies = turn.latencies()
    assert latencies[0] >= 19 * MS, "the first was answered when the last was sent"
    assert latencies[0] - latencies[-1] >= 10 * MS, "which itself waited for nobody"


async def test_a_sender_who_is_late_hides_nothing() -> None:
    async def change() -> None:
        time.sleep(0.02)  # noqa: ASYNC251 - so the loop, which should send the next, is busy

    turn, _ = await send(Pace(1000, 5), change, SOON)

    assert min(turn.latencies()) >= 20 * MS
    assert turn.latencies()[-1] >= (5 * 20 - 4) * MS


async def test_who_never_answers_ends_the_turn_and_is_given_up() -> None:
    cancelled = 0

    async def change() -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise

    turn, late = await send(Pace(1000, 5), change, 0.01)

    assert turn.unanswered == 5
    assert min(turn.latencies()) >= 10 * MS
    assert not await finished(late, 0.01)
    assert cancelled == 5


async def test_who_answers_late_has_further_turns() -> None:
    answer = asyncio.Event()

    async def change() -> None:
        await answer.wait()

    turn, late = await send(Pace(1000, 2), change, 0.01)
    assert turn.unanswered == 2

    answer.set()
    assert await finished(late, SOON)


async def test_a_change_that_fails_is_not_counted_as_answered() -> None:
    async def change() -> None:
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        await send(Pace(1000, 2), change, SOON)


def test_rounds_are_kept_apart_and_pooled() -> None:
    pace = Pace(100, 2)
    turns: Turns = {
        (100, "NATS"): [Turn(pace, [1 * MS, 11 * MS], 20 * MS), Turn(pace, [5 * MS, None], 40 * MS)]
    }

    (found,) = summarized(turns)

    assert [each.p50 for each in found.rounds] == [1000.0, 5000.0]
    assert (found.total.n, found.total.p99) == (4, 30_000.0)
    assert (found.answered, found.unanswered) == ([100.0, 50.0], 1)
    medians, tails = figures([found])
    assert (medians.case, medians.what, medians.rounds) == ("100 a second", "p50", [1000.0, 5000.0])
    assert (tails.what, tails.rounds) == ("p99", [1000.0, 30_000.0])


def test_goals_are_for_the_rates_that_are_measured() -> None:
    assert {goal.case for goal in GOALS} == {f"{pace.rate} a second" for pace in (*PACES, *QUICK_PACES)}
    assert {goal.contender for goal in GOALS} | {goal.peer for goal in GOALS} == set(OPEN)
