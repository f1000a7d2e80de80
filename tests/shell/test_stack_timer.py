"""The timer of faulthandler: seen where others have set it, and unset while a process forks."""

import errno
import faulthandler
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.support import DEADLINE
from zloom import native_threads, stack_timer
from zloom.native_threads import NativeThread
from zloom.stack_timer import StackTimer, is_in_use


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """Return a file to write stacks to."""
    with open(tmp_path / "stacks.txt", "wb") as opened:
        yield opened.fileno()
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def timer() -> Iterator[StackTimer]:
    """Return a timer that the process lets go of in the end."""
    timer = StackTimer()
    yield timer
    timer.release()


def wait_until_in_use() -> None:
    """Wait for the timer's thread, which has a few instructions to do before it waits."""
    deadline = time.monotonic() + DEADLINE
    while not is_in_use():
        assert time.monotonic() < deadline, "the timer is not set"


def test_a_timer_that_the_program_has_set_is_left_to_it(file: int, timer: StackTimer) -> None:
    faulthandler.dump_traceback_later(DEADLINE, file=file)
    wait_until_in_use()
    assert not timer.claim()
    faulthandler.cancel_dump_traceback_later()
    assert not is_in_use()
    assert timer.claim()


def test_threads_that_wait_for_something_else_are_not_taken_for_it() -> None:
    context = zmq.Context()  # its threads take no signals either
    socket = context.socket(zmq.DEALER)
    socket.connect("tcp://127.0.0.1:1")
    over = threading.Event()
    waiting = threading.Thread(target=over.wait, args=(DEADLINE,))
    waiting.start()
    try:
        assert not is_in_use()
    finally:
        over.set()
        waiting.join()
        context.destroy(linger=0)


def test_it_is_known_when_somebody_else_has_set_it(file: int, timer: StackTimer) -> None:
    assert timer.claim()
    timer.set(DEADLINE, file)
    assert not timer.is_over
    faulthandler.dump_traceback_later(DEADLINE, file=file)
    wait_until_in_use()
    deadline = time.monotonic() + DEADLINE
    while not timer.is_over:  # its thread is told to end, and has a few instructions to do until then
        assert time.monotonic() < deadline, "it is not known"


def test_one_that_somebody_else_has_set_meanwhile_is_not_renewed(file: int, timer: StackTimer) -> None:
    assert not timer.renew(DEADLINE, file)
    assert timer.claim()
    timer.set(DEADLINE, file)
    assert timer.renew(DEADLINE, file)
    assert timer.is_set
    assert not timer.is_over
    faulthandler.dump_traceback_later(DEADLINE, file=file)
    assert not timer.renew(DEADLINE, file)
    wait_until_in_use()
    timer.unset()
    assert is_in_use(), "theirs"


def test_one_that_was_renewed_writes(tmp_path: Path, timer: StackTimer) -> None:
    assert timer.claim()
    with (tmp_path / "stacks").open("w+") as written:
        timer.set(DEADLINE, written.fileno())
        assert timer.renew(0.01, written.fileno())
        deadline = time.monotonic() + DEADLINE
        while not timer.is_over:
            assert time.monotonic() < deadline, "it does not write"
        timer.unset()
        assert "Timeout" in (tmp_path / "stacks").read_text()


def test_one_that_cannot_be_renewed_is_not_set_and_may_be_set_later(
    file: int, timer: StackTimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        faulthandler.cancel_dump_traceback_later()  # as CPython does before it looks for a thread
        raise RuntimeError("unable to start watchdog thread")

    assert timer.claim()
    timer.set(DEADLINE, file)
    with monkeypatch.context() as patched:
        patched.setattr(faulthandler, "dump_traceback_later", refuse)
        assert not timer.renew(DEADLINE, file)
        assert not timer.is_set
    timer.set(DEADLINE, file)
    assert timer.is_set


def test_it_is_found_where_another_thread_is_the_newest(
    file: int, timer: StackTimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a container does not tell the newest one."""
    assert timer.claim()
    for newest in (str(threading.get_native_id()), "1", ""):
        monkeypatch.setattr(stack_timer, "newest_number", lambda newest=newest: newest)
        timer.set(DEADLINE, file)
        assert is_in_use()
        assert not timer.is_over
        timer.unset()
        assert not is_in_use()


def test_a_timer_that_cannot_be_looked_at_is_not_left_set(
    file: int, timer: StackTimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would write to a file that is closed by then."""
    assert timer.claim()

    def no_descriptors(number: str) -> NativeThread:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(stack_timer, "NativeThread", no_descriptors)
        timer.set(DEADLINE, file)
    assert not is_in_use()
    assert not timer.is_over
    timer.set(DEADLINE, file)
    assert is_in_use()


def test_no_descriptor_is_left_open_when_it_is_set_anew(timer: StackTimer, file: int) -> None:
    open_before = os.listdir("/proc/self/fd")
    assert timer.claim()
    for _ in range(3):
        timer.set(DEADLINE, file)
    timer.unset()
    assert len(os.listdir("/proc/self/fd")) == len(open_before)


def test_of_a_user_in_many_groups_signals_are_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_threads, "_AT_ONCE", 100)
    status = NativeThread(str(threading.get_native_id())).status()
    assert b"SigBlk:" in status


def test_what_is_not_seen_is_let_alone(timer: StackTimer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_threads, "TASKS", "/proc/no/such/folder")
    assert is_in_use()
    assert not timer.claim()


def test_what_somebody_else_has_set_stays_set(file: int, timer: StackTimer) -> None:
    assert timer.claim()
    for _ in range(200):  # the thread of before has often not quite ended when it is looked for
        timer.set(DEADLINE, file)
        faulthandler.dump_traceback_later(DEADLINE, file=file)
        timer.unset()
        wait_until_in_use()
        faulthandler.cancel_dump_traceback_later()


def test_one_at_a_time_has_it(timer: StackTimer) -> None:
    other = StackTimer()
    assert timer.claim()
    assert not other.claim()
    timer.release()
    assert other.claim()
    other.release()


def test_what_another_took_is_still_over_after_a_fork(timer: StackTimer, file: int) -> None:
    """Else the watchdog would set its own again, in place of the program's."""
    assert timer.claim()
    timer.set(DEADLINE, file)
    faulthandler.dump_traceback_later(DEADLINE, file=file)
    wait_until_in_use()
    while not timer.is_over:  # the thread of before ends
        time.sleep(0.001)
    timer._before_fork()
    assert timer.is_over
    assert is_in_use()
    faulthandler.cancel_dump_traceback_later()


def test_a_forked_child_exits_and_the_parent_has_the_timer_again(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", _FORK, str(tmp_path / "stacks.txt")],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert told.stdout.split() == ["child", "0", "set", "again"], told.stderr


_FORK = """
import os, sys
from zloom.stack_timer import StackTimer, is_in_use

timer = StackTimer()
timer.claim()
with open(sys.argv[1], "wb") as file:
    timer.set(60, file.fileno())
    pid = os.fork()
    if not pid:
        own = StackTimer()
        claimed = own.claim()
        own.set(60, file.fileno())  # this waits for the end of the thread before, and so does the exit
        sys.exit(0 if claimed else 1)
    print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    print("set again" if is_in_use() and not timer.is_over else "not set")
    timer.release()
"""
