"""Calls that have no time limit of their own, given one."""

import contextlib
import gc
import threading
import weakref

import pytest

from tests.support import DEADLINE
from zloom.bounded_calls import BoundedCalls


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
    started: list[threading.Thread] = []
    made: list[str] = []

    def first() -> None:
        running.set()
        go_on.wait(DEADLINE)
        made.append("first")

    def interrupted(thread: threading.Thread) -> None:
        started.append(thread)
        if begun:
            start(thread)
            running.wait(DEADLINE)
        raise KeyboardInterrupt

    start = threading.Thread.start
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call(first)
    assert (call.busy, call.made) == (begun, begun)
    if begun:
        with pytest.raises(TimeoutError, match="an earlier call has not returned"):
            call(lambda: made.append("second"))
    go_on.set()
    if not begun:
        start(started[0])  # later than all others
    started[0].join(DEADLINE)
    call(lambda: made.append("second"))
    assert made == (["first", "second"] if begun else ["second"])


@pytest.mark.parametrize(
    ("method", "error"),
    [("__init__", KeyboardInterrupt()), ("start", RuntimeError("can't start new thread"))],
    ids=["a signal while it is made", "no thread to be had"],
)
def test_where_no_thread_begins_no_call_is_made_and_nothing_is_left_behind(
    method: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread, *_: object, **__: object) -> None:
        raise error

    call = BoundedCalls(DEADLINE)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, method, fail)
        with pytest.raises(type(error)):
            call(lambda: None)
    assert (call.busy, call.made) == (False, False)
    assert call(lambda: 7) == 7
