"""A trainer whose handlers do what they should not; run as a process of its own by the tests of faults.

Each value that a handler was given is a line of the file that it is told, as JSON.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import zloom


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("broker")
    parser.add_argument("log", type=Path)
    parser.add_argument("--workers", choices=["fork", "forkserver", "spawn"])
    arguments = parser.parse_args()
    with arguments.log.open("a", buffering=1) as log, make(arguments, log) as weavelet:
        for _ in steps(arguments.workers):
            weavelet.tick()
            weavelet.report(loss=1.0)
            time.sleep(0.002)  # the step's work


def make(arguments: argparse.Namespace, log: IO[str]) -> zloom.Weavelet:
    weavelet = zloom.Weavelet("run", broker=arguments.broker, attempt="one")

    def note(key: str, value: object) -> None:
        log.write(json.dumps({"key": key, "value": value, "pid": os.getpid()}) + "\n")

    @weavelet.on_config("learning_rate", initial=0.1)
    def set_learning_rate(value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> None:
        note("learning_rate", value)

    @weavelet.on_config("again", initial=0)
    def set_again(value: Annotated[int, zloom.Meta(ge=0)]) -> None:
        """Change the config again, from inside a handler, until it is 0."""
        note("again", value)
        if value:
            with zloom.connect_sync(arguments.broker) as operator:
                operator.set("run", {"again": value - 1, "learning_rate": 1 / (value + 1)}, wait=False)

    @weavelet.on_command("hang")
    def hang() -> None:
        note("hang", True)
        while True:
            time.sleep(0.1)

    @weavelet.on_command("hold_gil")
    def hold_gil(seconds: int) -> None:
        note("hold_gil", seconds)
        ctypes.PyDLL(None).sleep(seconds)  # PyDLL keeps the GIL during the call

    @weavelet.on_command("die")
    def die() -> None:
        os.kill(os.getpid(), 9)

    return weavelet


class Numbers:
    """A data set of which each sample says which process loaded it."""

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> int:
        return os.getpid()


def steps(workers: str | None) -> Iterator[Any]:
    """Yield for ever, from a DataLoader with two workers where these are asked for."""
    if workers is None:
        while True:
            yield None
    from torch.utils.data import DataLoader

    context = multiprocessing.get_context(workers)
    yield from DataLoader(Numbers(), num_workers=2, multiprocessing_context=context)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
