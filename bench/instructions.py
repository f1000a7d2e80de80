"""Count the instructions that the interpreter executes for some work: the same number on every machine.

One version of Python gives the same number each time; another version has other instructions. What C code
does in one of them, such as a search through a list, counts as that one.
"""

import gc
import sys
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any


def counted(
    work: Callable[[], object], warm_up: Callable[[], object] | None = None, leave_out: Collection[str] = ()
) -> int:
    """Return how many instructions this thread executes in `work` and in all that it calls.

    Args:
        work: What counts; it is much slower than usual.
        warm_up: Done before it, by default the work itself: it fills caches, and calls what Python 3.13
            tells of only from its second call on.
        leave_out: Files whose own instructions do not count, but those of what they call.
    """
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "opcode":
            count += 1
        elif event == "call":
            if frame.f_code.co_filename in leave_out:
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return trace

    # Python 3.12 tells of instructions only if a frame has asked for them before the trace function is set.
    sys._getframe().f_trace_opcodes = True
    before, collects = sys.gettrace(), gc.isenabled()
    gc.disable()  # what it finds, and whom it calls, depends on what was done before
    sys.settrace(trace)
    try:
        (warm_up or work)()
        count = 0
        work()
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
    return count


class _Sum:
    """Something with an attribute, for `reference`."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, number: int) -> None:
        if number % 2:
            self.total += number


def reference() -> None:
    """Do a fixed bit of everything that the counted work is made of: calls, attributes, dicts, loops."""
    found: dict[str, int] = {}
    numbers = _Sum()
    for number in range(100):
        numbers.add(number)
        found[f"{number % 10}"] = found.get(f"{number % 10}", 0) + numbers.total
    for name, total in found.items():
        numbers.add(len(name) + total)
    numbers.add(sum(each for each in found.values() if each > numbers.total))
