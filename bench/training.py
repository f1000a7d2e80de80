"""The training that keeps a trainer's process busy, the same for every contender."""

import threading
import time
from statistics import median

STEP_ROUNDS = 10_000
"""Iterations of one step: half a millisecond to a millisecond of bytecode, a short step of training."""

STEPS_TIMED = 21
"""Steps of which the median is told."""


def step() -> int:
    """Compute in pure Python.

    It never gives the GIL away, while PyTorch lets go of it in every larger operation: whatever shares the
    process waits for the interpreter's switch interval (5 ms by default) each time it wants to run.
    """
    total = 0
    for number in range(STEP_ROUNDS):
        total += number * number
    return total


def step_ms() -> float:
    """Return the median milliseconds of a step."""
    durations = []
    for _ in range(STEPS_TIMED):
        started = time.perf_counter()
        step()
        durations.append(time.perf_counter() - started)
    return round(median(durations) * 1000, 3)


class Training:
    """Steps that another thread switches on and off, for the contenders that have no pause of their own."""

    def __init__(self) -> None:
        self._ended = False
        self._wanted = threading.Event()

    def run(self) -> None:
        """Train whenever it is switched on, until `end`."""
        while not self._ended:
            self._wanted.wait()
            step()

    def switch(self, on: bool) -> None:
        """Go on, or wait from the next step on."""
        if on:
            self._wanted.set()
        else:
            self._wanted.clear()

    def end(self) -> None:
        """Have `run` return."""
        self._ended = True
        self._wanted.set()
