from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from zloom.edge_reader import EdgeReader
from zloom.errors import TransportError


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


class BlindLoop(asyncio.SelectorEventLoop):
    """Like the default loop of Windows."""

    def add_reader(self, *_: object) -> None:
        raise NotImplementedError


def test_a_loop_that_cannot_watch_descriptors_is_refused(pipe: tuple[int, int]) -> None:
    loop = BlindLoop()
    try:
        with pytest.raises(TransportError, match=r"BlindLoop cannot watch sockets .*SelectorEventLoop"):
            EdgeReader(loop, pipe[0], lambda: True)
    finally:
        loop.close()


class Turns:
    """Counts its turns, each of which leaves nothing."""

    def __init__(self) -> None:
        self.taken = 0

    def __call__(self) -> bool:
        self.taken += 1
        return True


async def settle() -> None:
    """Long enough for every callback that is due, and for those that they schedule."""
    for _ in range(10):
        await asyncio.sleep(0)


def run_with_reader(
    pipe: tuple[int, int], turn: Callable[[], bool], use: Callable[[EdgeReader], None]
) -> None:
    async def main() -> None:
        reader = EdgeReader(asyncio.get_running_loop(), pipe[0], turn)
        await settle()
        use(reader)
        await settle()
        reader.close()
        reader.kick()
        await settle()

    asyncio.run(main())


def test_many_kicks_are_one_turn(pipe: tuple[int, int]) -> None:
    turns = Turns()

    def kick_thrice(reader: EdgeReader) -> None:
        assert turns.taken == 1  # after add_reader, in case that the edge came before
        for _ in range(3):
            reader.kick()

    run_with_reader(pipe, turns, kick_thrice)
    assert turns.taken == 2


def test_a_turn_that_stopped_early_is_followed_by_another(pipe: tuple[int, int]) -> None:
    left = [False, False, True]
    run_with_reader(pipe, lambda: left.pop(0), lambda _: None)
    assert left == []


def test_an_interrupted_turn_is_followed_by_another(pipe: tuple[int, int]) -> None:
    reports: list[object] = []
    turns: list[int] = []

    def turn() -> bool:
        turns.append(1)
        if len(turns) == 1:
            raise ValueError("interrupted")
        return True

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, report: reports.append(report["exception"]))
        reader = EdgeReader(loop, pipe[0], turn)
        await settle()
        reader.close()

    asyncio.run(main())
    assert len(turns) == 2
    assert [str(report) for report in reports] == ["interrupted"]


def test_a_readable_descriptor_is_a_turn_and_a_timer_too(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        turned = asyncio.Event()

        def turn() -> bool:
            turned.set()
            return True

        async def next_turn() -> None:
            turned.clear()
            async with asyncio.timeout(10):
                await turned.wait()

        reader = EdgeReader(asyncio.get_running_loop(), pipe[0], turn)
        await next_turn()
        reader.kick_after(0.001)
        await next_turn()
        os.write(pipe[1], b"x")
        await next_turn()
        reader.kick_after(3600)
        reader.close()

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_takes_no_turn(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        turns = Turns()
        reader = EdgeReader(asyncio.get_running_loop(), pipe[0], turns)
        await settle()
        pid = os.fork()
        if pid == 0:
            reader._wake()
            os._exit(turns.taken)
        _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - the child ends at once
        assert os.waitstatus_to_exitcode(status) == 1
        reader.close()

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_collects_does_not_deafen_the_parents_loop(pipe: tuple[int, int]) -> None:
    """A loop that is collected closes itself, and takes its own wake-up pipe out of the shared epoll."""
    loop = asyncio.new_event_loop()
    references: dict[str, Any] = {"loop": loop, "reader": EdgeReader(loop, pipe[0], Turns())}
    del loop
    pid = os.fork()
    if pid == 0:
        warnings.simplefilter("ignore")  # one raised as an error would keep the loop from closing itself
        references.clear()
        gc.collect()
        os._exit(0)
    os.waitpid(pid, 0)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        loop.call_later(5, lambda: None)  # a deaf loop would still wake up for this
        # The result arrives through the wake-up pipe, and late enough to find the loop asleep.
        await loop.run_in_executor(None, time.sleep, 0.05)
        references.pop("reader").close()
        await loop.shutdown_default_executor()
        return loop.time() - started

    loop = references["loop"]
    assert loop.run_until_complete(main()) < 4
    loop.close()


def test_signals_still_end_a_loop_of_endless_turns(pipe: tuple[int, int]) -> None:
    """A turn that always stops early leaves the loop to others between turns."""

    async def main() -> None:
        reader = EdgeReader(asyncio.get_running_loop(), pipe[0], lambda: False)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stop.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(10):
            await stop.wait()
        reader.close()

    asyncio.run(main())
