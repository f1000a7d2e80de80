"""A process of the anatomy of a change: `python -m bench.anatomy_part PART FILE …`.

PART is operator, broker or trainer. Stamps are taken in it, and written to FILE at its end; with `-` none.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zloom
from bench import stamps
from bench.anatomy_points import BY_PART
from bench.contenders import ZloomBench
from bench.roles import announce
from bench.trainer import END, RUN, train
from zloom.cli import main as zloom_main

NO_STAMPS = "-"
ENDED = "ended"
"""What operator and trainer say when their stamps are written."""


def operator(endpoint: str) -> None:
    """Read numbers from stdin: make so many changes, and print when each was called and had returned.

    An empty line ends it, and the trainer.
    """
    asyncio.run(_operate(endpoint))


async def _operate(endpoint: str) -> None:
    async with zloom.connect(endpoint) as connected:
        bench = ZloomBench(connected)
        await bench.train("idle")
        announce(endpoint)
        # In a thread, because the broker asks an operator now and then whether he is there.
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            print(json.dumps(await _changes(bench, int(line))), flush=True)
        await connected.command(RUN, END)
        await connected.resume(RUN)  # out of the pause, and so out of the loop


async def _changes(bench: ZloomBench, count: int) -> list[tuple[int, int]]:
    changes = []
    for _ in range(count):
        called = time.monotonic_ns()
        await bench.change()
        changes.append((called, time.monotonic_ns()))
    return changes


def broker(*options: str) -> None:
    """Be `zloom broker` until SIGTERM."""
    sys.argv = ["zloom", "broker", *options]
    zloom_main()


def trainer(endpoint: str) -> None:
    """Train until the command to end."""
    train(endpoint, None, announce)


PARTS: dict[str, Callable[..., None]] = {"operator": operator, "broker": broker, "trainer": trainer}


@contextlib.contextmanager
def _stamped(part: str, file: str) -> Iterator[None]:
    taken = {} if file == NO_STAMPS else stamps.install(BY_PART[part])
    try:
        yield
    finally:
        if file != NO_STAMPS:
            stamps.save(taken, Path(file))


def main(part: str, file: str, *arguments: str) -> None:
    """Be a part, from beginning to end."""
    with _stamped(part, file):
        PARTS[part](*arguments)
    print(ENDED, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
