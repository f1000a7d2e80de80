"""A trainer in a plain loop, run as a process of its own by the end-to-end tests.

It appends what happens to a file, one JSON object a line: `{"step", "key", "value"}` for each handler that
ran, and `{"steps"}` when it ends.
"""

import argparse
import ctypes
import json
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import zloom


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("broker")
    parser.add_argument("log", type=Path)
    parser.add_argument("--run", default="loop")
    parser.add_argument("--attempt", default="one")
    parser.add_argument("--step-seconds", type=float, default=0.002)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(0)))
    with arguments.log.open("a", buffering=1) as log:
        train(arguments, log)


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

    with weavelet:
        while going:
            weavelet.tick()
            weavelet.report(loss=1.0 / weavelet.step)
            time.sleep(arguments.step_seconds)  # the step's work
    log.write(json.dumps({"steps": weavelet.step}) + "\n")


if __name__ == "__main__":
    main()
