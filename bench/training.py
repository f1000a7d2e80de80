"""The training that keeps a trainer's process busy, the same for every contender."""

import importlib.util
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from statistics import median
from typing import Any

from bench.orders import SWITCHES
from bench.results import Load

STEP_ROUNDS = 10_000
"""Iterations of one step: half a millisecond to a millisecond of bytecode, a short step of training."""

WIDTH, SAMPLES = 256, 64
"""Of the model of PyTorch and of its batches: about a millisecond a step on one core."""

STEPS_TIMED = 21
"""Steps of which the median is told."""

Step = Callable[[], object]


def step(rounds: int = STEP_ROUNDS) -> int:
    """Compute in pure Python.

    It never gives the GIL away, while PyTorch lets go of it in every larger operation: whatever shares the
    process waits for the interpreter's switch interval (5 ms by default) each time it wants to run.
    """
    total = 0
    for number in range(rounds):
        total += number * number
    return total


def torch_step() -> Step:
    """Return a step of a small model of PyTorch, on one thread: forward, backward, optimizer."""
    import torch

    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = torch.randn(SAMPLES, WIDTH)

    def train() -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()

    train()  # the first allocates
    return train


CUDA_WIDTH, CUDA_SAMPLES = 4096, 512
"""Of the model on a GPU and of its batches: about a millisecond a step on a data-center GPU."""


def cuda_step() -> Callable[[], Any]:
    """Return a step of a model on a GPU, which returns the loss there.

    Each fourth waits for the GPU, as a loop that reads something from it does: a step is over when it is over
    there.
    """
    import torch

    model = torch.nn.Sequential(
        torch.nn.Linear(CUDA_WIDTH, CUDA_WIDTH), torch.nn.ReLU(), torch.nn.Linear(CUDA_WIDTH, CUDA_WIDTH)
    ).to("cuda", torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = torch.randn(CUDA_SAMPLES, CUDA_WIDTH, device="cuda", dtype=torch.bfloat16)
    steps = itertools.count(1)

    def train() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = (model(batch) - batch).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if next(steps) % 4 == 0:
            torch.cuda.synchronize()
        return loss.detach()

    for _ in range(20):  # the first choose kernels and allocate
        train()
    return train


def has_cuda() -> bool:
    """Tell whether PyTorch sees a GPU; imports it where there is one."""
    if not has_torch():
        return False
    import torch

    return torch.cuda.is_available()


def has_torch() -> bool:
    """Tell whether there is PyTorch, without importing it."""
    return importlib.util.find_spec("torch") is not None


def step_of(load: Load) -> Step:
    """Return the step of a training that is busy in this way."""
    return torch_step() if load == "torch" else step


def step_ms(load: Load) -> float:
    """Return the median milliseconds of such a step."""
    train, durations = step_of(load), []
    for _ in range(STEPS_TIMED):
        started = time.perf_counter()
        train()
        durations.append(time.perf_counter() - started)
    return round(median(durations) * 1000, 3)


def rounds_of(millis: float) -> int:
    """Return the `rounds` with which a step takes about so many milliseconds here."""
    return max(1, round(STEP_ROUNDS * millis / step_ms("busy")))


class Training:
    """Steps that another thread switches on and off, for the contenders that have no pause of their own."""

    def __init__(self) -> None:
        self._ended = False
        self._wanted = threading.Event()
        self._step: Step = step
        self._handlers: SimpleQueue[Future[None]] = SimpleQueue()

    def run(self) -> None:
        """Train whenever it is switched on, until `end`."""
        while not self._ended:
            self._wanted.wait()
            self._step()
            self._serve()

    def obey(self, order: bytes) -> None:
        """Train as an order says, if it is one of `SWITCHES`: from the next step on, which is made first."""
        load = SWITCHES.get(order)
        if load is None:
            return
        if load == "idle":
            self._wanted.clear()
        else:
            self._step = step_of(load)
            self._wanted.set()

    def safe_point(self) -> Future[None]:
        """Return what is done between two steps; at once where the training waits."""
        reached: Future[None] = Future()
        if self._wanted.is_set():
            self._handlers.put(reached)
        else:
            reached.set_result(None)
        return reached

    def _serve(self) -> None:
        try:
            while True:
                self._handlers.get_nowait().set_result(None)
        except Empty:
            return

    def end(self) -> None:
        """Have `run` return."""
        self._ended = True
        self._wanted.set()
