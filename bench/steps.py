"""Steps of a training a second: bare, with zloom whatever its broker does, and with its peers."""

import contextlib
import importlib.util
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from tempfile import TemporaryDirectory

from bench import nats_server, roles
from bench.collected import Collected
from bench.extent import Extent
from bench.goals import Goal
from bench.results import Absence, Figure
from bench.training import rounds_of

NAME = "trainer"
BARE, ALIVE, DEAD, ABSENT = "bare loop", "zloom", "zloom, broker killed", "zloom, no broker"
NATS, TENSORBOARD = "NATS publish", "TensorBoard add_scalar"
WHAT = "steps"

MILLIS = (1, 10)
"""Of a step, about: pure Python, which never lets go of the interpreter."""

SECONDS, QUICK_SECONDS = 2.0, 0.2
"""Of a turn."""

GOALS = tuple(
    goal
    for case in (f"{millis} ms a step" for millis in MILLIS)
    for goal in (
        *(Goal(case, WHAT, ours, BARE, 0.99, at_most=False) for ours in (ALIVE, DEAD, ABSENT)),
        Goal(case, WHAT, NATS, BARE),
        Goal(case, WHAT, TENSORBOARD, BARE),
    )
)


def measure(extent: Extent) -> list[Figure]:
    """Count steps, in turns."""
    collected = Collected(NAME)
    for millis in MILLIS:
        case = f"{millis} ms a step"
        with ExitStack() as stack:
            trainings = _trainings(extent, rounds_of(millis), stack)
            for number in range(extent.rounds):
                extent.say(f"{NAME}, {case}: round {number + 1} of {extent.rounds}")
                for name, training in trainings.items():
                    seconds = QUICK_SECONDS if extent.quick else SECONDS
                    collected.add(case, WHAT, "1/s", name, float(training(str(seconds))))
    return collected.figures()


def absent() -> list[Absence]:
    """Return whom this machine lacks."""
    lacking = {NATS: nats_server.missing()}
    if not _has_tensorboard():
        lacking[TENSORBOARD] = "no tensorboard, or no torch, found: pip install torch tensorboard"
    return [Absence(NAME, name, why) for name, why in lacking.items() if why]


def _has_tensorboard() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "tensorboard"))


Training = Callable[[str], str]
"""Takes seconds, returns steps a second."""


def _trainings(extent: Extent, rounds: int, stack: ExitStack) -> dict[str, Training]:
    """Start all of them; whose turn it is not waits."""
    sockets = stack.enter_context(TemporaryDirectory(prefix="zloom-"))

    def start(contender: str, address: str) -> Training:
        started = stack.enter_context(
            roles.conversation("bench.steps_trainer", contender, address, str(rounds))
        )
        return started.ask

    trainings = {BARE: start("bare", "-")}
    alive = stack.enter_context(_broker(extent, f"{sockets}/alive"))
    trainings[ALIVE] = start("zloom", alive.endpoint)
    killed = stack.enter_context(_broker(extent, f"{sockets}/killed"))
    trainings[DEAD] = start("zloom", killed.endpoint)
    os.kill(killed.pid, signal.SIGKILL)
    trainings[ABSENT] = start("zloom", f"!ipc://{sockets}/nobody")
    if not nats_server.missing():
        server = stack.enter_context(nats_server.running(extent.folder))
        trainings[NATS] = start("nats", server.endpoint)
    if _has_tensorboard():
        trainings[TENSORBOARD] = start("tensorboard", str(extent.folder))
    return trainings


@contextlib.contextmanager
def _broker(extent: Extent, path: str) -> Iterator[roles.Running]:
    data_dir = extent.folder / secrets.token_hex(4)
    options = ["--log-level", "error", "--bind", f"ipc://{path}", "--data-dir", str(data_dir)]
    with roles.running("zloom", "broker", *options) as running:
        yield running
