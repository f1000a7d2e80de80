"""The watchdog that writes stacks while the GIL is held."""

import asyncio
import ctypes
import errno
import faulthandler
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.shell.test_stack_timer import wait_until_in_use
from tests.support import DEADLINE
from zloom import hold_watch, stack_timer
from zloom.handlers import Registry
from zloom.hold_watch import HoldWatch, read_hold
from zloom.mailbox import Mailbox
from zloom.metrics import MetricBuffer
from zloom.native_threads import NativeThread
from zloom.training import Training


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the files, in a runtime folder of its own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "zloom" / "stacks"


def watch(replica: str = "r0", after: float | None = 0.2) -> HoldWatch:
    registry = Registry()
    mailbox = Mailbox(registry, lambda *_: None, lambda *_: None, lambda _: None)
    training = Training(registry, mailbox, MetricBuffer(10), thread=threading.get_ident())
    return HoldWatch(replica, training, after)


def hold_the_gil(seconds: float) -> None:
    ctypes.PyDLL(None).usleep(round(seconds * 1e6))  # PyDLL keeps the GIL during the call


async def test_it_tells_who_held_the_gil_and_for_how_long(folder: Path) -> None:
    holds = watch()
    holds.start()
    try:
        path = folder / "r0.txt"
        assert path.stat().st_mode & 0o777 == 0o600
        hold_the_gil(0.5)
        threads, _ = read_hold("r0")  # which nobody has cleared yet
        async with asyncio.timeout(DEADLINE):
            while holds.newest is None or holds.newest.threads != threads:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)
    finally:
        holds.stop()
    assert not path.exists()
    assert holds.newest.seconds >= 0.5
    [held] = [stack for stack in threads if stack.training]
    assert held.frames[-1].function == "hold_the_gil"
    assert held.frames[-1].source.startswith("ctypes.PyDLL(None).usleep(")


async def test_while_nobody_holds_it_nothing_is_written(folder: Path) -> None:
    holds = watch(after=1.2)
    holds.start()
    begun = time.monotonic()
    async with asyncio.timeout(DEADLINE):
        while holds._set_back < begun + 1.2:
            assert read_hold("r0")[0] == []
            await asyncio.sleep(0.05)
    holds.stop()
    assert holds.newest is None


@pytest.mark.parametrize("after", [None, 0.2])
async def test_one_of_a_process_watches(folder: Path, after: float | None) -> None:
    first, second = watch("r0", after), watch("r1")
    first.start()
    second.start()
    assert os.listdir(folder) == (["r1.txt"] if after is None else ["r0.txt"])
    first.stop()
    second.stop()
    third = watch("r2")
    third.start()
    assert os.listdir(folder) == ["r2.txt"]
    third.stop()


async def test_files_of_processes_that_were_killed_are_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold_watch, "STALE_AFTER", 0.0)
    os.mkdir(folder.parent, mode=0o700)
    os.mkdir(folder, mode=0o700)
    os.close(os.open(folder / "dead.txt", os.O_CREAT))
    holds = watch()
    holds.start()
    assert os.listdir(folder) == ["r0.txt"]
    holds.stop()


async def test_the_file_of_a_process_that_lives_is_let_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold_watch, "STALE_AFTER", 0.0)
    holds = watch("alive")
    holds.start()
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", _START, stdout=asyncio.subprocess.PIPE)
    told, _ = await other.communicate()
    holds.stop()
    assert told.split() == [b"alive.txt", b"other.txt"]


_START = """
import asyncio, os
from zloom.endpoints import runtime_folder
from tests.shell.test_hold_watch import hold_watch, watch

async def main():
    hold_watch.STALE_AFTER = 0.0
    holds = watch("other")
    holds.start()
    print(*sorted(os.listdir(runtime_folder() / "stacks")))
    holds.stop()

asyncio.run(main())
"""


async def test_without_a_private_folder_nothing_is_written(folder: Path) -> None:
    os.mkdir(folder.parent)
    os.chmod(folder.parent, 0o755)
    holds = watch()
    holds.start()
    holds.stop()
    assert os.listdir(folder.parent) == []
    os.chmod(folder.parent, 0o700)
    holds = watch()
    holds.start()
    assert os.listdir(folder) == ["r0.txt"], "the timer was let go"
    holds.stop()


async def test_a_timer_that_the_program_has_set_before_is_let_alone(folder: Path, tmp_path: Path) -> None:
    own = os.open(tmp_path / "own.txt", os.O_RDWR | os.O_CREAT)
    faulthandler.dump_traceback_later(1.0, file=own)
    wait_until_in_use()
    holds = watch()
    holds.start()
    assert os.listdir(tmp_path) == ["own.txt"]
    await _written(own)
    holds.stop()
    os.close(own)


@pytest.mark.parametrize("stops", ["by itself", "on demand"])
async def test_a_timer_that_the_program_sets_later_is_let_alone(
    folder: Path, tmp_path: Path, stops: str
) -> None:
    holds = watch()
    holds.start()
    own = os.open(tmp_path / "own.txt", os.O_RDWR | os.O_CREAT)
    faulthandler.dump_traceback_later(0.5, file=own)
    if stops == "on demand":
        holds.stop()
    await _written(own)
    assert os.listdir(folder) == []
    holds.stop()
    os.close(own)


async def test_a_timer_that_the_program_sets_while_ours_could_not_be_set_is_let_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()

    def no_descriptors(number: str) -> NativeThread:
        looked.set()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    holds = watch()
    with monkeypatch.context() as patch:
        patch.setattr(stack_timer, "NativeThread", no_descriptors)
        # As at a look: where there is none to begin with, it does not begin.
        patch.setattr(stack_timer, "is_in_use", lambda: False)
        holds.start()
    assert looked.is_set()
    own = os.open(tmp_path / "own.txt", os.O_RDWR | os.O_CREAT)
    faulthandler.dump_traceback_later(0.5, file=own)
    await _written(own)
    holds.stop()
    os.close(own)


async def _written(file: int) -> None:
    async with asyncio.timeout(DEADLINE):
        while not os.fstat(file).st_size:  # noqa: ASYNC110 - a thread in C tells nobody
            await asyncio.sleep(0.02)
