"""bench.round_trips: what becomes of samples."""

from bench.percentiles import Spread
from bench.results import Ratio
from bench.round_trips import Samples, compared, figures, summarized


def micros(*values: int) -> list[int]:
    return [value * 1000 for value in values]


def test_rounds_are_kept_apart_and_pooled() -> None:
    samples: Samples = {("ipc", "idle", "pyzmq"): [micros(1, 2, 3), micros(10, 20, 30)]}

    (found,) = summarized(samples)

    assert [each.p50 for each in found.rounds] == [2.0, 20.0]
    assert (found.total.n, found.total.p50, found.total.p99) == (6, 3.0, 30.0)


def test_each_of_ours_is_compared_with_each_peer_under_the_same_conditions() -> None:
    samples: Samples = {
        ("ipc", "idle", "zloom fsync"): [micros(40), micros(60)],
        ("ipc", "idle", "pyzmq"): [micros(10), micros(10)],
        ("ipc", "idle", "zmq.asyncio"): [micros(20), micros(20)],
    }

    assert compared(summarized(samples)) == [
        Ratio("ipc", "idle", "zloom fsync", "pyzmq", Spread(5.0, 4.0, 6.0)),
        Ratio("ipc", "idle", "zloom fsync", "zmq.asyncio", Spread(2.5, 2.0, 3.0)),
    ]


def test_a_busy_training_in_the_operators_own_process_is_not_compared() -> None:
    samples: Samples = {
        ("inproc", "busy", "zloom fsync"): [micros(40)],
        ("inproc", "busy", "pyzmq"): [micros(1)],
        ("inproc", "busy", "zmq.asyncio"): [micros(1)],
    }

    assert compared(summarized(samples)) == []


def test_a_peer_that_is_not_there_is_not_compared() -> None:
    samples: Samples = {
        ("tcp", "idle", "zloom fsync"): [micros(40)],
        ("tcp", "idle", "pyzmq"): [micros(10)],
    }

    assert [each.peer for each in compared(summarized(samples))] == ["pyzmq"]


def test_goals_see_the_medians_and_the_tails_of_the_rounds() -> None:
    samples: Samples = {("tcp", "idle", "NATS"): [micros(1, 2, 9), micros(3, 3, 3)]}

    medians, tails = figures("latency", summarized(samples))

    assert (medians.case, medians.what, medians.rounds) == ("tcp, idle", "p50", [2.0, 3.0])
    assert (tails.what, tails.rounds) == ("p99", [9.0, 3.0])
