"""Stacks as text: dumps of faulthandler are read again, and a message holds no more than it may."""

import faulthandler
import tempfile
import threading

import pytest

from zloom.cli.stacks import folded, library_of, lines
from zloom.messages import Stacks
from zloom.model import Frame, Hold, ThreadStack
from zloom.stacks import FRAMES_LIMIT, THREADS_LIMIT, heading, limited, parse

DUMP = """\
# zloom training=0xa1 weavelet=0xb2
Timeout (0:00:05)!
Thread 0x00000000000000b2 (most recent call first):
  File "/lib/zloom/weavelet.py", line 4 in _run_loop

Thread 0x00000000000000c3 [worker] (most recent call first):
  File "/lib/queue.py", line 7 in get

Thread 0x00000000000000a1 (most recent call first):
  File "/home/me/train "v2".py", line 12 in spin
  File "/home/me/train "v2".py", line ??? in <module>
  File "/home/me/tra"""

SPIN = ThreadStack(
    "training thread",
    [Frame('/home/me/train "v2".py', 0, "<module>"), Frame('/home/me/train "v2".py', 12, "spin")],
    training=True,
)


def test_a_dump_is_read_outermost_first_and_the_training_thread_first() -> None:
    assert parse(DUMP) == [SPIN, ThreadStack("thread 0xc3", [Frame("/lib/queue.py", 7, "get")])]


def test_without_a_heading_nobody_is_left_out() -> None:
    assert [stack.training for stack in parse(DUMP.partition("\n")[2])] == [False, False, False]


def test_a_heading_alone_is_no_dump() -> None:
    assert parse(heading(None, 3)) == []
    assert parse("") == []


def test_what_this_python_writes_can_be_read() -> None:
    with tempfile.TemporaryFile("w+") as file:
        file.write(heading(threading.get_ident(), 1))
        file.flush()
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        [stack, *_] = parse(file.read())
    assert stack.training
    assert stack.frames[-1].function == "test_what_this_python_writes_can_be_read"
    assert stack.frames[-1].file == __file__


def test_a_message_holds_the_innermost_calls_of_the_first_threads() -> None:
    deep = ThreadStack("deep", [Frame("f" * 500, line, "g") for line in range(2 * FRAMES_LIMIT)])
    first, *others = limited([deep] * (2 * THREADS_LIMIT))
    assert [frame.line for frame in first.frames] == list(range(FRAMES_LIMIT, 2 * FRAMES_LIMIT))
    assert all(len(frame.file) == 160 for frame in first.frames)
    assert len(others) == THREADS_LIMIT - 1
    assert not any(stack.frames for stack in others)


def stacks(rank: int, *threads: ThreadStack, **more: object) -> Stacks:
    fields = {"step": 7, "host": "gpu-1", "pid": 40 + rank} | more
    return Stacks(id="q", replica=f"r{rank}", rank=rank, threads=list(threads), **fields)  # type: ignore[arg-type]


WAIT = ThreadStack("MainThread", [Frame("t.py", 3, "main", "all_reduce(x)")], training=True)


def test_ranks_that_do_the_same_are_one_group() -> None:
    found = [stacks(0, WAIT), stacks(1, SPIN), stacks(2, WAIT), stacks(3, WAIT, step=8), stacks(5, WAIT)]
    assert [[each.rank for each in group] for group in folded(found)] == [[0, 2, 3, 5], [1]]
    assert lines(found)[:4] == [
        "ranks 0, 2 to 3, 5 · live, steps 7 to 8 · gpu-1",
        "  MainThread (training)",
        "    t.py:3 in main",
        "      all_reduce(x)",
    ]


def test_ranks_that_do_the_same_in_another_state_are_another_group() -> None:
    assert len(folded([stacks(0, WAIT), stacks(1, WAIT, state="stalled")])) == 2


def test_ranks_that_are_gone_are_one_line_each_way_of_it() -> None:
    lost = {"state": "lost", "reason": "nothing was heard of it"}
    found = [stacks(0, WAIT), stacks(1, **lost), stacks(2, **lost), stacks(3, state="finished")]
    found.append(stacks(4, state="lost", reason="its key was revoked"))
    assert lines(found)[4:] == [
        "",
        "ranks 1 to 2 · lost: nothing was heard of it",
        "",
        "rank 3 · finished",
        "",
        "rank 4 · lost: its key was revoked",
    ]


def test_why_there_are_none_is_said_and_a_hold_is_told() -> None:
    hold = Hold(at=0.0, seconds=12.4, threads=[SPIN])
    told = lines([stacks(1, state="unresponsive", reason="it does not answer", hold=hold)])
    assert told[:2] == ["rank 1 · unresponsive, step 7 · gpu-1:41", "  it does not answer"]
    assert told[2].startswith("  its GIL was held, or it was stopped, for up to 12 s until ")
    assert told[-1] == '    /home/me/train "v2".py:12 in spin'


SITE = "/opt/venv/lib/python3.11/site-packages"
DEEP = ThreadStack(
    "MainThread",
    [
        Frame("<frozen runpy>", 198, "_run_module_as_main"),
        Frame("/home/me/train.py", 88, "main", "trainer.fit(model)"),
        Frame(f"{SITE}/lightning/trainer.py", 5, "fit"),
        Frame("/usr/lib/python3.11/contextlib.py", 81, "inner"),
        Frame(f"{SITE}/lightning/loop.py", 9, "run"),
        Frame("/home/me/model.py", 30, "training_step", "dist.all_reduce(loss)"),
        Frame(f"{SITE}/torch/nn/module.py", 1, "forward"),
        Frame("/usr/lib/python3/dist-packages/six.py", 2, "wrapper"),
        Frame(f"{SITE}/torch/distributed.py", 2810, "all_reduce", "work.wait()"),
    ],
    training=True,
)


def test_a_run_of_frames_of_libraries_is_one_line_save_where_the_thread_is() -> None:
    assert lines([stacks(0, DEEP)])[2:] == [
        "    <frozen runpy>:198 in _run_module_as_main",
        "    /home/me/train.py:88 in main",
        "      trainer.fit(model)",
        "    … 3 frames of lightning, Python",
        "    /home/me/model.py:30 in training_step",
        "      dist.all_reduce(loss)",
        "    … 2 frames of torch, six",
        f"    {SITE}/torch/distributed.py:2810 in all_reduce",
        "      work.wait()",
    ]


def test_all_frames_are_shown_to_who_asks_for_them() -> None:
    told = lines([stacks(0, DEEP)], whole=True)
    assert len([line for line in told if " in " in line]) == len(DEEP.frames)
    assert not any("…" in line for line in told)


@pytest.mark.parametrize(
    ("file", "library"),
    [
        ("/home/me/train.py", ""),
        ("/home/me/lib/python/train.py", ""),
        (f"{SITE}/torch/cuda/graphs.py", "torch"),
        (f"{SITE}/six.py", "six"),
        ("/usr/lib64/python3.12/threading.py", "Python"),
        (r"C:\venv\Lib\site-packages\torch\cuda.py", "torch"),
        ("<frozen importlib._bootstrap>", "Python"),
        ("<string>", ""),
        ("<ipython-input-3-1a2b>", ""),
    ],
)
def test_whose_a_frame_is(file: str, library: str) -> None:
    assert library_of(file) == library
