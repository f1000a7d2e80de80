"""Calls that have no time limit of their own, given one."""

import _thread
import contextlib
import functools
import gc
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

import pytest

from tests.interrupts import interrupted
from tests.support import DEADLINE
from zloom.bounded_calls import BoundedCalls

T = TypeVar("T")


def test_a_call_returns_or_raises_what_the_function_does() -> None:
    call = BoundedCalls(DEADLINE)
    assert call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call(lambda: 1 // 0)
    assert call(threading.current_thread) is not threading.current_thread()


class Owner:
    """Whoever makes calls that refer to it."""

    def __init__(self) -> None:
        self.calls = BoundedCalls(DEADLINE)

    def succeed(self) -> int:
        return 7

    def fail(self) -> None:
        raise LookupError(str(self))


def test_a_call_keeps_nobody_alive() -> None:
    gc.disable()
    try:
        owner = Owner()
        with contextlib.suppress(LookupError):
            owner.calls(owner.fail)
        assert owner.calls(owner.succeed) == 7
        alive = weakref.ref(owner)
        del owner
        assert alive() is None
    finally:
        gc.enable()


def test_while_one_call_hangs_no_other_is_made() -> None:
    call, go_on, made = BoundedCalls(0.05), threading.Event(), list[str]()

    def hang() -> None:
        go_on.wait(DEADLINE)
        made.append("first")

    with pytest.raises(TimeoutError):
        call(hang)
    assert call.busy
    with pytest.raises(TimeoutError, match="an earlier call has not returned"):
        call(lambda: made.append("second"))
    go_on.set()
    third = ""
    while not third:  # until its thread says that it has returned
        with contextlib.suppress(TimeoutError):
            third = call(lambda: "third")
    assert (made, call.busy) == (["first"], False)


@pytest.mark.parametrize("begun", [True, False])
def test_a_signal_while_a_thread_starts_leaves_one_call_at_a_time(
    begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, running, go_on = BoundedCalls(DEADLINE), threading.Event(), threading.Event()
    later: list[Callable[[], None]] = []
    made: list[str] = []

    def first() -> None:
        running.set()
        go_on.wait(DEADLINE)
        made.append("first")

    def interrupted(make: Callable[[], None], _: tuple[()]) -> None:
        later.append(make)
        if begun:
            threading.Thread(target=make).start()
            running.wait(DEADLINE)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call(first)
    assert (call.busy, call.made) == (begun, begun)
    if begun:
        with pytest.raises(TimeoutError, match="an earlier call has not returned"):
            call(lambda: made.append("second"))
    go_on.set()
    if not begun:
        later[0]()  # later than all others
    once_free(call, lambda: made.append("second"))
    assert made == (["first", "second"] if begun else ["second"])


def once_free(call: BoundedCalls, function: Callable[[], T]) -> T:
    """Make a call once none before it is under way."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            return call(function)
    raise AssertionError("it is busy for ever")


@pytest.mark.skipif(sys.gettrace() is not None, reason="another tracer is at work")
def test_a_signal_wherever_it_comes_leaves_one_call_that_was_made_or_never_is() -> None:
    for place in itertools.count(1):
        call, made = BoundedCalls(DEADLINE), list[str]()
        if not interrupted(place, functools.partial(call, functools.partial(made.append, "first"))):
            break
        said = call.made
        once_free(call, functools.partial(made.append, "second"))
        assert made == [*["first"] * said, "second"], place
    assert place > 10


def test_where_no_thread_is_to_be_had_no_call_is_made_and_nothing_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = BoundedCalls(DEADLINE)
    with monkeypatch.context() as patched:
        # What is in C raises a RuntimeError there, as an interpreter does that has too many threads, or ends.
        patched.setattr(_thread, "start_new_thread", _thread.allocate_lock().__exit__)
        with pytest.raises(TimeoutError, match="no thread: "):
            call(lambda: None)
    assert (call.busy, call.made) == (False, False)
    assert call(lambda: 7) == 7


def test_what_the_handler_of_a_signal_raises_while_a_thread_starts_is_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise RuntimeError("told to end")

    call = BoundedCalls(DEADLINE)
    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", interrupted)
        with pytest.raises(RuntimeError, match="told to end"):
            call(lambda: None)
    assert (call.busy, call.made) == (False, False)
