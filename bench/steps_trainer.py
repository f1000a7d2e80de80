"""A training whose steps are counted: bare, or with something that is told of each step.

It reads a line with a number of seconds, trains so long, prints the steps of a second, and so on until the
end of its input.
"""

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from tempfile import TemporaryDirectory

import zloom
from bench.roles import DEADLINE, announce
from bench.training import step

BetweenSteps = Callable[[int], object]
"""Called after each step with its number."""


@contextlib.contextmanager
def bare(address: str) -> Iterator[BetweenSteps]:
    """Nothing; a call that does nothing is made all the same."""
    yield lambda number: None


@contextlib.contextmanager
def with_zloom(address: str) -> Iterator[BetweenSteps]:
    """A safe point and a metric; `address` is the broker's, after `!` when it is not there."""
    endpoint = address.removeprefix("!")
    with zloom.Weavelet("bench", broker=endpoint, rank=0, world_size=1) as weavelet:
        if endpoint == address and not weavelet.wait_until_active(DEADLINE):
            raise TimeoutError(f"no broker at {endpoint}")

        def between(number: int) -> None:
            weavelet.tick()
            weavelet.report(loss=0.5)

        yield between


@contextlib.contextmanager
def with_nats(address: str) -> Iterator[BetweenSteps]:
    """A message with a metric, published from a thread with a loop; `address` is the server's."""
    import nats

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    connection = asyncio.run_coroutine_threadsafe(nats.connect(address), loop).result(DEADLINE)

    def publish(number: int) -> None:
        metric = b'{"loss": 0.5, "step": %d}' % number
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
        yield lambda number: writer.add_scalar("loss", 0.5, number)


CONTENDERS: dict[str, Callable[[str], AbstractContextManager[BetweenSteps]]] = {
    "bare": bare,
    "zloom": with_zloom,
    "nats": with_nats,
    "tensorboard": with_tensorboard,
}


def train(seconds: float, rounds: int, between: BetweenSteps) -> float:
    """Make steps of so many `rounds`; returns how many a second."""
    started = time.perf_counter()
    end, number, now = started + seconds, 0, started
    while now < end:
        step(rounds)
        number += 1
        between(number)
        now = time.perf_counter()
    return number / (now - started)


def main(contender: str, address: str, rounds: str) -> None:
    """Train as it is told; see the module."""
    with CONTENDERS[contender](address) as between:
        train(0.1, int(rounds), between)  # the first are slower
        announce()
        for line in sys.stdin:
            print(train(float(line), int(rounds), between), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
