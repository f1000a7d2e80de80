"""A trainer in a plain loop, run as a process of its own by the end-to-end tests.

It appends what happens to a file, one JSON object a line: `{"step", "key", "value"}` for each handler that
ran, and `{"steps"}` when it ends. In `--progress` it writes over and over how far it is, as `Progress`: no
broker is needed to see that.
"""

import argparse
import ctypes
import json
import os
import signal
import struct
import time
from pathlib import Path
from typing import Annotated, Any

import zloom

PROGRESS = struct.Struct("<qd")
"""The step that was begun last, and the longest that any call of the weavelet took, in seconds."""


class Progress:
    """Tells a test how far the training is, by way of a file of 16 bytes."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY)
        self._longest = 0.0

    def tell(self, step: int, took: float) -> None:
        self._longest = max(self._longest, took)
        os.pwrite(self._file, PROGRESS.pack(step, self._longest), 0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("broker")
    parser.add_argument("log", type=Path)
    parser.add_argument("--run", default="loop")
    parser.add_argument("--attempt", default="one")
    parser.add_argument("--step-seconds", type=float, default=0.002)
    parser.add_argument("--fork", action="store_true", help="Have a child that outlives this process.")
    parser.add_argument("--progress", type=Path, default=Path(os.devnull))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(0)))
    with arguments.log.open("a", buffering=1) as log:
        train(arguments, log)


def fork() -> int:
    """Return the id of a child that waits until it is killed, as a DataLoader's worker may."""
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    return child


def train(arguments: argparse.Namespace, log: Any) -> None:
    going = True
    weavelet = zloom.Weavelet(arguments.run, broker=arguments.broker, attempt=arguments.attempt)

    def note(key: str, value: object) -> None:
        log.write(json.dumps({"step": weavelet.step, "key": key, "value": value}) + "\n")

    @weavelet.on_config("learning_rate", initial=0.1)
    def set_learning_rate(value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> None:
        note("learning_rate", value)

    @weavelet.on_config("count", initial=0)
    def set_count(value: Annotated[int, zloom.Meta(ge=0)]) -> None:
        note("count", value)

    @weavelet.on_command("stop")
    def stop() -> None:
        nonlocal going
        going = False

    @weavelet.on_command("hold_gil")
    def hold_gil(seconds: int) -> None:
        ctypes.PyDLL(None).sleep(seconds)  # PyDLL keeps the GIL during the call

    @weavelet.on_failure
    def failed(failure: Any) -> None:
        note("failure", failure.kind)

    progress = Progress(arguments.progress)
    with weavelet:
        if arguments.fork:
            weavelet.wait_until_active(60)  # so that the child inherits the open connection
            note("child", fork())
        while going:
            begun = time.monotonic()
            weavelet.tick()
            weavelet.report(loss=1.0 / weavelet.step)
            progress.tell(weavelet.step, time.monotonic() - begun)
            time.sleep(arguments.step_seconds)  # the step's work
    log.write(json.dumps({"steps": weavelet.step}) + "\n")


if __name__ == "__main__":
    main()
