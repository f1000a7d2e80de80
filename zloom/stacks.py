"""Stacks as text: what `faulthandler` writes, read again, and what of it a message may hold. Pure."""

import re
from collections.abc import Iterable

from msgspec.structs import replace

from zloom.messages import Stacks, StacksTaken
from zloom.model import Frame, ReplicaStatus, ThreadStack

FRAMES_LIMIT = 2000
"""Frames in one message, of all threads: 300 KB at most lengths, where a message may have a megabyte."""

THREADS_LIMIT = 200
"""Threads in one message."""

TEXT_LIMIT = 160
"""Characters of a path, a name or a line of source that are kept."""

_HEADING = re.compile(r"# zloom training=(0x[0-9a-f]+) weavelet=(0x[0-9a-f]+)\n")
_THREAD = re.compile(r"(?:Current thread|Thread) (0x[0-9a-f]+)[^\n]*\(most recent call first\):")
_FRAME = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')


def of_replica(request: str, status: ReplicaStatus, taken: StacksTaken) -> Stacks:
    """Return what the threads of a replica do, as the answer to a request."""
    return Stacks(
        id=request,
        replica=status.replica,
        rank=status.rank,
        host=status.host,
        pid=status.pid,
        state=status.state,
        step=status.step,
        threads=taken.threads,
        reason=taken.reason,
        hold=taken.hold,
    )


def heading(training: int | None, weavelet: int) -> str:
    """Return the line above a dump that tells which thread is which; `faulthandler` knows only numbers."""
    return f"# zloom training={training or 0:#x} weavelet={weavelet:#x}\n"


def parse(text: str) -> list[ThreadStack]:
    """Return the stacks of a dump below its heading, the training thread's first, the weavelet's not.

    What is no part of a dump is skipped, as is a frame that was not written to its end.
    """
    found = _HEADING.match(text)
    training, weavelet = (int(each, 16) for each in found.groups()) if found else (0, 0)
    stacks: dict[int, list[Frame]] = {}
    frames: list[Frame] = []
    for line in text.splitlines():
        if thread := _THREAD.match(line):
            frames = stacks[int(thread[1], 16)] = []
        elif frame := _FRAME.fullmatch(line):
            number = int(frame[2]) if frame[2].isdecimal() else 0
            frames.insert(0, Frame(frame[1], number, frame[3]))
    if weavelet != training:
        stacks.pop(weavelet, None)
    names = {thread: "training thread" if thread == training else f"thread {thread:#x}" for thread in stacks}
    return ordered(ThreadStack(names[each], stacks[each], each == training) for each in stacks)


def ordered(stacks: Iterable[ThreadStack]) -> list[ThreadStack]:
    """Return stacks with the training thread's first, the others by name."""
    return sorted(stacks, key=lambda stack: (not stack.training, stack.name))


def limited(stacks: Iterable[ThreadStack]) -> list[ThreadStack]:
    """Return as much of stacks as a message may hold: the first threads, and of each the innermost calls."""
    kept, room = [], FRAMES_LIMIT
    for stack in list(stacks)[:THREADS_LIMIT]:
        frames = [_limited(frame) for frame in stack.frames[-room:]] if room else []
        room -= len(frames)
        kept.append(replace(stack, name=stack.name[:TEXT_LIMIT], frames=frames))
    return kept


def _limited(frame: Frame) -> Frame:
    # Of a path the end says more than the beginning.
    return Frame(frame.file[-TEXT_LIMIT:], frame.line, frame.function[:TEXT_LIMIT], frame.source[:TEXT_LIMIT])
