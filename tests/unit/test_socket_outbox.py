from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zloom.socket_outbox import Outbox


def filled(limit: int, *messages: tuple[bytes, bytes]) -> Outbox:
    outbox = Outbox(limit)
    for lane, payload in messages:
        assert outbox.put(lane, [lane, payload])
    return outbox


def accept_into(sent: list[list[bytes]]) -> Callable[[list[bytes]], bool]:
    def send(frames: list[bytes]) -> bool:
        sent.append(frames)
        return True

    return send


def test_each_lane_has_its_own_bound() -> None:
    outbox = filled(1, (b"a", b"1"))
    assert not outbox.put(b"a", [b"a", b"2"])
    assert outbox.put(b"b", [b"b", b"1"])
    assert len(outbox) == 2


def test_a_limit_of_zero_holds_nothing() -> None:
    outbox = Outbox(0)
    assert not outbox.put(b"a", [b"1"])
    assert b"a" not in outbox.lanes


def test_a_stuck_lane_is_passed_over_and_keeps_its_order() -> None:
    outbox = filled(9, (b"stuck", b"1"), (b"free", b"1"), (b"stuck", b"2"), (b"free", b"2"))
    sent: list[list[bytes]] = []

    def send(frames: list[bytes]) -> bool:
        if frames[0] == b"stuck":
            return False
        sent.append(frames)
        return True

    assert outbox.flush(send, 10)
    assert sent == [[b"free", b"1"], [b"free", b"2"]]
    assert b"stuck" in outbox.lanes
    assert b"free" not in outbox.lanes
    assert not outbox.flush(send, 10)
    sent.clear()
    assert outbox.flush(accept_into(sent), 10)
    assert sent == [[b"stuck", b"1"], [b"stuck", b"2"]]


def test_attempts_are_bounded_and_the_next_flush_begins_with_those_not_reached() -> None:
    outbox = filled(1, *[(b"%d" % lane, b"") for lane in range(5)])
    tried: list[bytes] = []

    def full(frames: list[bytes]) -> bool:
        tried.append(frames[0])
        return False

    outbox.flush(full, 2)
    outbox.flush(full, 3)
    assert tried == [b"0", b"1", b"2", b"3", b"4"]


def test_a_caller_may_reuse_its_list() -> None:
    outbox, frames = Outbox(1), [b"a"]
    outbox.put(b"", frames)
    frames[0] = b"changed"
    sent: list[list[bytes]] = []
    outbox.flush(accept_into(sent), 1)
    assert sent == [[b"a"]]


def test_a_send_that_raises_loses_nothing() -> None:
    outbox = filled(9, (b"a", b"1"), (b"a", b"2"))

    def broken(frames: list[bytes]) -> bool:
        raise OSError(frames[1].decode())

    with pytest.raises(OSError, match="1"):
        outbox.flush(broken, 5)
    assert outbox.clear() == 2
    assert len(outbox) == 0


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 1000)), max_size=40),
    st.lists(st.booleans(), max_size=200),
    st.integers(1, 7),
)
def test_whatever_is_refused_when_every_lane_stays_in_order(
    messages: list[tuple[bytes, int]], answers: list[bool], attempts: int
) -> None:
    outbox = filled(40, *[(lane, b"%d" % number) for lane, number in messages])
    left: list[tuple[bytes, int]] = []
    remaining = iter(answers)

    def send(frames: list[bytes]) -> bool:
        accepted = next(remaining, True)
        if accepted:
            left.append((frames[0], int(frames[1])))
        return accepted

    while len(outbox):
        outbox.flush(send, attempts)
    for name in (b"a", b"b", b"c"):
        assert [m for m in left if m[0] == name] == [m for m in messages if m[0] == name]
