"""Calls that have no time limit of their own, given one."""

import contextlib
import threading

import pytest

from tests.support import DEADLINE
from zloom.bounded_calls import BoundedCalls


def test_a_call_returns_or_raises_what_the_function_does() -> None:
    call = BoundedCalls(DEADLINE)
    assert call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call(lambda: 1 // 0)
    assert call(threading.current_thread) is call(threading.current_thread) is not threading.current_thread()


def test_while_one_call_hangs_no_other_is_made() -> None:
    call, go_on, made = BoundedCalls(0.05), threading.Event(), list[str]()

    def hang() -> None:
        go_on.wait(DEADLINE)
        made.append("first")

    with pytest.raises(TimeoutError):
        call(hang)
    with pytest.raises(TimeoutError, match="an earlier call has not returned"):
        call(lambda: made.append("second"))
    go_on.set()
    third = ""
    while not third:  # until its thread says that it has returned
        with contextlib.suppress(TimeoutError):
            third = call(lambda: "third")
    assert made == ["first"]
