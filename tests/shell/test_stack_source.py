"""The stacks of this process's threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zloom.model import ThreadStack
from zloom.stack_source import in_collective, take


@contextmanager
def blocked_thread() -> Iterator[threading.Thread]:
    """A thread that waits in C, without the GIL, for a lock that is taken."""
    lock, begun = threading.Lock(), threading.Event()

    def wait_for_the_lock() -> None:
        begun.set()
        lock.acquire()  # where it is blocked

    with lock:
        thread = threading.Thread(target=wait_for_the_lock, name="a trainer")
        thread.start()
        begun.wait()
        yield thread
    thread.join()


def of(thread: threading.Thread, stacks: list[ThreadStack]) -> ThreadStack:
    [found] = [stack for stack in stacks if stack.name == thread.name]
    return found


def test_a_blocked_thread_is_seen_where_it_is() -> None:
    with blocked_thread() as thread:
        while of(thread, take(thread.ident)).frames[-1].source != "lock.acquire()  # where it is blocked":
            pass  # between the two lines of the thread
        first, *_ = take(thread.ident)
    assert (first.name, first.training) == ("a trainer", True)
    assert first.frames[-1].function.endswith("wait_for_the_lock")
    assert first.frames[0].function.endswith("_bootstrap")
    assert first.frames[-1].file == __file__


def test_the_one_that_looks_is_left_out_unless_it_trains() -> None:
    own = threading.current_thread()
    assert own.name not in [stack.name for stack in take(None)]
    assert take(own.ident)[0].name == own.name


def test_a_thread_in_a_collective_is_told_from_one_that_works() -> None:
    assert not in_collective(threading.get_ident())
    assert not in_collective(None)
    source = "def all_reduce(look):\n    return look()\n"
    names: dict[str, Any] = {}
    exec(compile(source, "/venv/torch/distributed/distributed_c10d.py", "exec"), names)
    assert names["all_reduce"](lambda: in_collective(threading.get_ident()))
