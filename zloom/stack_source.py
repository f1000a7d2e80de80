"""What the threads of this process do right now, as far as Python sees it."""

import linecache
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType

from msgspec.structs import replace

from zloom.model import Frame, ThreadStack
from zloom.stacks import limited, ordered

DEVICES_THREAD = "zloom-devices"
"""Name of the thread that reads the devices."""

COLLECTIVES = "/torch/distributed/"
"""Part of the path of the code that calls collectives."""

INNERMOST = 12
"""Calls that are looked at: enough for torch's own wrappers around a collective."""


def take(training: int | None) -> list[ThreadStack]:
    """Return the stacks of all threads but the weavelet's own, the training thread's first.

    Nobody co-operates: a thread that is blocked in C, as in a collective, is shown where it called that. The
    loop's thread may do this, also where that is the training thread itself.

    Args:
        training: Identifier of the training thread, if it is known.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    stacks = []
    for thread, frame in sys._current_frames().items():
        name = names.get(thread, f"thread {thread:#x}")
        if name != DEVICES_THREAD and (thread != own or thread == training):
            stacks.append(ThreadStack(name, list(_frames(frame)), thread == training))
    return limited(with_source(ordered(stacks)))


def in_collective(thread: int | None) -> bool:
    """Return whether a thread is in `torch.distributed` right now, as one is that waits for other ranks.

    What DDP does in C++ during the backward pass, or CUDA on its own, is not seen.
    """
    frame = sys._current_frames().get(thread or 0)
    for _ in range(INNERMOST):
        if frame is None:
            return False
        if COLLECTIVES in frame.f_code.co_filename.replace("\\", "/"):
            return True
        frame = frame.f_back
    return False


def with_source(stacks: Iterable[ThreadStack]) -> list[ThreadStack]:
    """Return stacks with the source lines that this host has."""
    return [replace(stack, frames=[_with_source(frame) for frame in stack.frames]) for stack in stacks]


def _frames(innermost: FrameType) -> Iterator[Frame]:
    found: list[Frame] = []
    frame: FrameType | None = innermost
    while frame is not None:
        code = frame.f_code
        found.append(Frame(code.co_filename, frame.f_lineno or 0, code.co_qualname))
        frame = frame.f_back
    return reversed(found)


def _with_source(frame: Frame) -> Frame:
    return replace(frame, source=linecache.getline(frame.file, frame.line).strip())
