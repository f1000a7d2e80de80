"""A training whose steps are counted, in turns: bare, or with something that is told of each step.

It reads a line with a number of seconds, who is told, and where that is; trains so long, and prints a `Turn`;
and so on until the end of its input. All take turns in one process, as where its memory lies makes the steps
of one some percent faster than those of another.
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import zloom
from bench import roles
from bench.roles import DEADLINE, announce
from bench.training import cuda_step, step
from zloom.cuda_copies import streams_and_events

LOSS = 0.5
"""Of a step in Python."""

WARM_UP = 0.1
"""Seconds before each turn, whose steps are not counted."""

BetweenSteps = Callable[[int, Any], object]
"""Called after each step with its number and its loss."""


@contextlib.contextmanager
def bare(address: str) -> Iterator[BetweenSteps]:
    """Nothing; a call that does nothing is made all the same."""
    yield lambda number, loss: None


@contextlib.contextmanager
def with_zloom(address: str) -> Iterator[BetweenSteps]:
    """A safe point and a metric; `address` is the broker's, after `!` when it is not there."""
    endpoint = address.removeprefix("!")
    with zloom.Weavelet("bench", broker=endpoint, rank=0, world_size=1) as weavelet:
        if endpoint == address and not weavelet.wait_until_active(DEADLINE):
            raise TimeoutError(f"no broker at {endpoint}")

        def between(number: int, loss: Any) -> None:
            weavelet.tick()
            weavelet.report(loss=loss)

        yield between


@contextlib.contextmanager
def with_killed_broker(address: str) -> Iterator[BetweenSteps]:
    """As `with_zloom`, whose broker was there; `address` is a folder for it."""
    with (
        TemporaryDirectory(dir=address) as folder,
        broker(Path(folder)) as running,
        with_zloom(running.endpoint) as between,
    ):
        os.kill(running.pid, signal.SIGKILL)
        yield between


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[roles.Running]:
    """Run a broker as long as the block lasts.

    Args:
        folder: For its journal.
    """
    with TemporaryDirectory(prefix="zloom-") as sockets:
        options = ["--log-level", "error", "--bind", f"ipc://{sockets}/b", "--data-dir", str(folder / "data")]
        with roles.running("zloom", "broker", *options) as running:
            yield running


@contextlib.contextmanager
def with_nats(address: str) -> Iterator[BetweenSteps]:
    """A message with a metric, published from a thread with a loop; `address` is the server's."""
    import nats

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    connection = asyncio.run_coroutine_threadsafe(nats.connect(address), loop).result(DEADLINE)

    def publish(number: int, loss: Any) -> None:
        metric = b'{"loss": %f, "step": %d}' % (float(loss), number)
        asyncio.run_coroutine_threadsafe(connection.publish("metrics", metric), loop)

    yield publish
    asyncio.run_coroutine_threadsafe(connection.close(), loop).result(DEADLINE)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(DEADLINE)


@contextlib.contextmanager
def with_tensorboard(address: str) -> Iterator[BetweenSteps]:
    """A scalar of TensorBoard's, written to a folder in `address`."""
    from torch.utils.tensorboard import SummaryWriter

    with TemporaryDirectory(dir=address) as folder, SummaryWriter(folder) as writer:
        yield lambda number, loss: writer.add_scalar("loss", loss, number)


@contextlib.contextmanager
def copied(address: str) -> Iterator[BetweenSteps]:
    """What torch must do for a loss to leave a GPU without a wait, and no more."""
    import torch

    host = torch.empty((), dtype=torch.bfloat16, pin_memory=True)
    current_stream, make_event = streams_and_events(torch)
    event = make_event()

    def copy(number: int, loss: Any) -> None:
        host.copy_(loss.detach(), non_blocking=True)
        event.record(current_stream(loss.get_device()))

    yield copy


CONTENDERS: dict[str, Callable[[str], AbstractContextManager[BetweenSteps]]] = {
    "bare": bare,
    "zloom": with_zloom,
    "killed": with_killed_broker,
    "nats": with_nats,
    "tensorboard": with_tensorboard,
    "copy": copied,
}


def step_of(work: str) -> Callable[[], Any]:
    """Return a step, which returns its loss: so many rounds in Python, or on a GPU where it says `cuda`."""
    if work == "cuda":
        return cuda_step()
    rounds = int(work)

    def train() -> float:
        step(rounds)
        return LOSS

    return train


class Turn(NamedTuple):
    """What came of a turn.

    Attributes:
        rate: Steps a second.
        taken: Of its time, in percent: what was not the step's on the training's thread, and the CPU of all
            other threads of the process. Where they do not share the interpreter or the core it costs less.
    """

    rate: float
    taken: float

    def __str__(self) -> str:
        return f"{self.rate} {self.taken}"


def train(seconds: float, make_step: Callable[[], Any], between: BetweenSteps) -> Turn:
    """Make steps for so long."""
    clock, others = time.perf_counter, cpu_of_others()
    started = now = clock()
    end, number, told = started + seconds, 0, 0.0
    while now < end:
        loss = make_step()
        number += 1
        made = clock()
        between(number, loss)
        now = clock()
        told += now - made
    elapsed = now - started
    return Turn(number / elapsed, 100 * (told + cpu_of_others() - others) / elapsed)


def cpu_of_others() -> float:
    """Return the seconds of CPU of all threads of this process but this one."""
    return time.process_time() - time.thread_time()


def main(work: str) -> None:
    """Train as it is told; see the module."""
    make_step = step_of(work)
    announce()
    for line in sys.stdin:
        seconds, contender, address = line.split()
        with CONTENDERS[contender](address) as between:
            train(WARM_UP, make_step, between)
            turn = train(float(seconds), make_step, between)
        print(turn, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
