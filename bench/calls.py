"""What the training thread pays for one call of zloom, beside what any call of Python costs."""

import contextlib
import secrets
import timeit
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import zloom
from bench import roles, training
from bench.results import Cost
from zloom.cuda_copies import streams_and_events

BATCH = 400
"""Calls that are timed together: a hundred of such batches stay below the points that a weavelet keeps, so
that nothing has to be dropped, which would be measured too."""

NUMBER, TENSOR, ON_GPU = "report(loss=0.5)", "report(loss=tensor)", "report(loss=tensor on a GPU)"
EMPTY = "an empty method with a keyword"
COPY = "torch's copy of it alone"
EVENT = "torch's event behind a copy, on the current stream"
CAPTURE = "torch's look whether a CUDA graph is being captured"
STATEMENTS: dict[str, tuple[str, float | None]] = {
    "an empty method": ("empty.tick()", None),
    "tick()": ("weavelet.tick()", 200.0),
    EMPTY: ("empty.report(loss=0.5)", None),
    NUMBER: ("weavelet.report(loss=0.5)", 1000.0),
    TENSOR: ("weavelet.report(loss=tensor)", 5000.0),
    ON_GPU: ("weavelet.report(loss=on_gpu)", 5000.0),
    COPY: ("pinned.copy_(on_gpu, non_blocking=True)", None),
    EVENT: ("event.record(current_stream(0))", None),
    CAPTURE: ("capturing()", None),
}
"""By name: what is timed, and the nanoseconds that it should stay below."""

NEEDS = {TENSOR: "tensor", ON_GPU: "on_gpu", COPY: "pinned", EVENT: "event", CAPTURE: "capturing"}
"""What some of them use that not every machine has."""

NEEDED_ON_GPU = (EMPTY, COPY, EVENT, CAPTURE)
"""What a report of a tensor on a GPU must take: to be called, and torch's own part of it."""


def out_of_reach(costs: Sequence[Cost]) -> str:
    """Say whether the goal for a tensor on a GPU lies below what it must take; empty without a GPU."""
    medians = {each.call: each.median for each in costs}
    if not medians.keys() >= {ON_GPU, *NEEDED_ON_GPU}:
        return ""
    needed, goal = sum(medians[name] for name in NEEDED_ON_GPU), STATEMENTS[ON_GPU][1]
    assert goal is not None
    verdict = "more than the goal, which is out of reach" if needed >= goal else "less than the goal"
    return (
        "For a tensor on a GPU, to be called with it, to copy it, to record the event that tells when the "
        "copy is done, and to see that no graph is being captured take "
        f"{needed:.0f} ns by themselves: {verdict}."
    )


class Empty:
    """Methods that do nothing, called as a weavelet's are."""

    def tick(self, step: int | None = None) -> None:
        """Do nothing."""

    def report(self, **metrics: Any) -> None:
        """Do nothing."""


def measure(batches: int, folder: Path) -> list[Cost]:
    """Time each call on this thread, in turns, with a weavelet that a broker takes the points from.

    Without torch there is no tensor, and no such line; likewise without a GPU.

    Args:
        batches: Of 400 calls, up to 100.
        folder: For the broker's journal.
    """
    with _active_weavelet(folder) as weavelet:
        names = {"weavelet": weavelet, "empty": Empty()}
        statements = dict(STATEMENTS)
        if training.has_torch():
            import torch

            names["tensor"] = torch.tensor(0.5)
        if training.has_cuda():
            names["on_gpu"] = torch.tensor(0.5, device="cuda")
            names["pinned"] = torch.empty((), pin_memory=True)
            names["current_stream"], make_event = streams_and_events(torch)
            names["event"] = make_event()
            names["capturing"] = torch.cuda.is_current_stream_capturing
        for name, needed in NEEDS.items():
            if needed not in names:
                del statements[name]
        timers = {name: timeit.Timer(code, globals=names) for name, (code, _) in statements.items()}
        durations: dict[str, list[float]] = {name: [] for name in timers}
        for _ in range(batches):
            for name, timer in timers.items():
                durations[name].append(timer.timeit(BATCH) / BATCH * 1e9)
        counters = weavelet.counters
    assert counters is not None
    assert counters.points_dropped == counters.points_refused == 0, counters
    return [
        Cost(name, round(min(each), 1), round(median(each), 1), statements[name][1])
        for name, each in durations.items()
    ]


@contextlib.contextmanager
def _active_weavelet(folder: Path) -> Iterator[zloom.Weavelet]:
    with TemporaryDirectory(prefix="zloom-") as sockets:
        options = ["--bind", f"ipc://{sockets}/control", "--data-dir", str(folder / secrets.token_hex(4))]
        with (
            roles.process("zloom", "broker", "--log-level", "error", *options) as endpoint,
            zloom.Weavelet("bench-calls", broker=endpoint, rank=0, world_size=1) as weavelet,
        ):
            if not weavelet.wait_until_active(roles.DEADLINE):
                raise TimeoutError(f"no broker at {endpoint}")
            weavelet.tick()  # takes what came with the welcome
            yield weavelet
