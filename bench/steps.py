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
from bench.results import Absence
from bench.training import rounds_of

NAME = "trainer"
BARE, ALIVE, DEAD, ABSENT = "bare loop", "zloom", "zloom, broker killed", "zloom, no broker"
LIGHTNING, STEERED = "Lightning", "Lightning, zloom"
NATS, TENSORBOARD = "NATS publish", "TensorBoard add_scalar"
WHAT = "steps"

MILLIS = (1, 10)
"""Of a step, about: pure Python, which never lets go of the interpreter."""

SECONDS, QUICK_SECONDS = 1.5, 0.2
"""Of a turn."""

GOALS = (
    *(
        Goal(f"{millis} ms a step", WHAT, ours, BARE, 0.99, at_most=False)
        for millis in MILLIS
        for ours in (ALIVE, DEAD, ABSENT)
    ),
    *(Goal(f"{millis} ms a step", WHAT, peer, BARE) for millis in MILLIS for peer in (NATS, TENSORBOARD)),
    Goal(f"{MILLIS[0]} ms a step", WHAT, STEERED, LIGHTNING, 0.99, at_most=False),
)


def measure(extent: Extent, collected: Collected) -> None:
    """Count steps, in turns."""
    for millis in MILLIS:
        case = f"{millis} ms a step"
        with ExitStack() as stack:
            trainings = _trainings(extent, rounds_of(millis), millis == MILLIS[0], stack)
            for number in range(extent.rounds):
                extent.say(f"{NAME}, {case}: round {number + 1} of {extent.rounds}")
                for name, training in trainings.items():
                    seconds = QUICK_SECONDS if extent.quick else SECONDS
                    collected.add(case, WHAT, "1/s", name, float(training(str(seconds))))


def absent() -> list[Absence]:
    """Return whom this machine lacks."""
    lacking = {NATS: nats_server.missing()}
    if not _has("lightning"):
        lacking[LIGHTNING] = "no lightning found: pip install torch lightning"
    if not _has("torch", "tensorboard"):
        lacking[TENSORBOARD] = "no tensorboard, or no torch, found: pip install torch tensorboard"
    return [Absence(NAME, name, why) for name, why in lacking.items() if why]


def _has(*packages: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in packages)


Training = Callable[[str], str]
"""Takes seconds, returns steps a second."""


def _trainings(extent: Extent, rounds: int, lightning: bool, stack: ExitStack) -> dict[str, Training]:
    """Start all of them, those of Lightning if they are wanted; whose turn it is not waits."""
    sockets = stack.enter_context(TemporaryDirectory(prefix="zloom-"))

    def start(contender: str, address: str, module: str = "bench.steps_trainer") -> Training:
        started = stack.enter_context(roles.conversation(module, contender, address, str(rounds)))
        return started.ask

    trainings = {BARE: start("bare", "-")}
    alive = stack.enter_context(_broker(extent, f"{sockets}/alive"))
    trainings[ALIVE] = start("zloom", alive.endpoint)
    killed = stack.enter_context(_broker(extent, f"{sockets}/killed"))
    trainings[DEAD] = start("zloom", killed.endpoint)
    os.kill(killed.pid, signal.SIGKILL)
    trainings[ABSENT] = start("zloom", f"!ipc://{sockets}/nobody")
    if lightning and _has("lightning"):
        trainings[LIGHTNING] = start("bare", "-", "bench.lightning_steps")
        beside = stack.enter_context(_broker(extent, f"{sockets}/lightning"))
        trainings[STEERED] = start("zloom", beside.endpoint, "bench.lightning_steps")
    if not nats_server.missing():
        server = stack.enter_context(nats_server.running(extent.folder))
        trainings[NATS] = start("nats", server.endpoint)
    if _has("torch", "tensorboard"):
        trainings[TENSORBOARD] = start("tensorboard", str(extent.folder))
    return trainings


@contextlib.contextmanager
def _broker(extent: Extent, path: str) -> Iterator[roles.Running]:
    data_dir = extent.folder / secrets.token_hex(4)
    options = ["--log-level", "error", "--bind", f"ipc://{path}", "--data-dir", str(data_dir)]
    with roles.running("zloom", "broker", *options) as running:
        yield running
