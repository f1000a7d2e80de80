"""A signal in any place of a piece of code, one place after the other."""

import dis
import functools
import itertools
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any


@functools.cache
def where_signals_are_heard(code: CodeType) -> frozenset[int]:
    """Return the offsets of instructions before which CPython runs the handlers of signals."""
    names = [(each.offset, each.opname) for each in dis.get_instructions(code)]
    pairs = itertools.pairwise(names)
    return frozenset(
        offset for (_, before), (offset, _) in pairs if before.startswith(("CALL", "RESUME", "JUMP_BACK"))
    )


class Interrupt:
    """Raises KeyboardInterrupt on this thread, in one place after the other that hears signals."""

    def __init__(self, place: int) -> None:
        self.left = place

    def trace(self, frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and frame.f_lasti in where_signals_are_heard(frame.f_code):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.trace


def interrupted(place: int, function: Callable[[], object]) -> bool:
    """Call a function with a signal in one of its places; return whether it has as many."""
    interrupt = Interrupt(place)
    sys.settrace(interrupt.trace)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return interrupt.left <= 0
