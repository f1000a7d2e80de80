"""Steps of a training a second: bare, with zloom whatever its broker does, and with its peers."""

import importlib.util
from collections.abc import Callable, Set
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from bench import nats_server, roles, steps_trainer
from bench.collected import Collected
from bench.extent import Extent
from bench.goals import Goal
from bench.results import Absence
from bench.training import rounds_of

NAME = "trainer"
BARE, ALIVE, DEAD, ABSENT = "bare loop", "zloom", "zloom, broker killed", "zloom, no broker"
AGAIN = "bare loop, again"
"""The same once more: how far two turns differ by chance."""

COPY = "torch's copy alone"
"""Of a loss on a GPU, into memory of the host, and the event behind it: no zloom."""

LIGHTNING, STEERED = "Lightning", "Lightning, zloom"
EMPTY, SKELETON = "Lightning, empty callback", "Lightning, skeleton callback"
"""One that does nothing, and one that counts a step and reads what was logged."""

IN_TRAINER = (LIGHTNING, EMPTY, SKELETON, STEERED)
NATS, TENSORBOARD = "NATS publish", "TensorBoard add_scalar"
WHAT = "steps"
TAKEN = "taken from it"
"""Of a turn's time, in percent; see `bench.steps_trainer.Turn`."""

MILLIS = (1, 10)
"""Of a step, about: pure Python, which never lets go of the interpreter."""

SECONDS, QUICK_SECONDS = 0.3, 0.05
"""Of a turn."""

TURNS = 5
"""Of each in a round, one after the other's: a mood of the machine that lasts a second meets all of them."""

LIGHTNING_TURNS, LIGHTNING_SECONDS = 80, 0.03
"""Of those in a Trainer, in a round: more and shorter ones, as nothing is started for each, and what they
differ by is less than what a machine's moods of half a second make of it."""

GOALS = (
    *(
        Goal(f"{millis} ms a step", WHAT, ours, BARE, 0.99, at_most=False)
        for millis in MILLIS
        for ours in (ALIVE, DEAD, ABSENT)
    ),
    *(
        Goal(f"{millis} ms a step", WHAT, peer, BARE)
        for millis in MILLIS
        for peer in (AGAIN, NATS, TENSORBOARD)
    ),
    *(
        Goal(f"{millis} ms a step", TAKEN, ours, NATS, 1.0, by="itself")
        for millis in MILLIS
        for ours in (ALIVE, DEAD, ABSENT)
    ),
    Goal(f"{MILLIS[0]} ms a step", TAKEN, STEERED, NATS, 1.0, by="itself"),
    Goal(f"{MILLIS[0]} ms a step", WHAT, STEERED, LIGHTNING, 0.99, at_most=False),
    Goal(f"{MILLIS[0]} ms a step", WHAT, SKELETON, LIGHTNING),
    Goal(f"{MILLIS[0]} ms a step", WHAT, EMPTY, LIGHTNING),
)


def measure(extent: Extent, collected: Collected) -> None:
    """Count steps, in turns."""
    for millis in MILLIS:
        named = {AGAIN, ALIVE, DEAD, ABSENT, NATS, TENSORBOARD} | (set(IN_TRAINER) if millis == 1 else set())
        take_turns(extent, collected, f"{millis} ms a step", str(rounds_of(millis)), named)


def take_turns(extent: Extent, collected: Collected, case: str, work: str, named: Set[str]) -> None:
    """Count the steps of a bare loop and of others.

    Args:
        extent: How much.
        collected: Takes the steps a second, and what is taken from them.
        case: Of which they are.
        work: Of a step, as `bench.steps_trainer` takes it.
        named: The others; whom this machine lacks is left out.
    """
    with ExitStack() as stack:
        begun = _Trainings(extent.folder, work, stack)
        missing = _lacking()
        trainings = {
            name: begin(begun)
            for name, begin in _STARTS.items()
            if name not in missing and name in {BARE} | named
        }
        in_trainer = {name: trainings.pop(name) for name in IN_TRAINER if name in trainings}
        for number in range(extent.rounds):
            extent.say(f"{case}: round {number + 1} of {extent.rounds}")
            turns = [_turn_of_each(trainings, extent, SECONDS) for _ in range(TURNS)]
            _collect(collected, case, turns)
            count = TURNS if extent.quick else LIGHTNING_TURNS
            turns = [_turn_of_each(in_trainer, extent, LIGHTNING_SECONDS) for _ in range(count)]
            _collect(collected, case, turns)


def _turn_of_each(trainings: dict[str, "Training"], extent: Extent, seconds: float) -> dict[str, str]:
    seconds = QUICK_SECONDS if extent.quick else seconds
    return {name: training(str(seconds)) for name, training in trainings.items()}


def _collect(collected: Collected, case: str, turns: list[dict[str, str]]) -> None:
    for name in turns[0]:
        rate, *taken = map(mean, zip(*(map(float, turn[name].split()) for turn in turns), strict=True))
        collected.add(case, WHAT, "1/s", name, rate)
        for percent in taken:
            collected.add(case, TAKEN, "%", name, percent)


def absent() -> list[Absence]:
    """Return whom this machine lacks."""
    return [Absence(NAME, name, why) for name, why in _lacking().items()]


def _lacking() -> dict[str, str]:
    lacking = {NATS: nats_server.missing()}
    if not _has("lightning"):
        lacking |= dict.fromkeys(IN_TRAINER, "no lightning found: pip install torch lightning")
    if not _has("torch", "tensorboard"):
        lacking[TENSORBOARD] = "no tensorboard, or no torch, found: pip install torch tensorboard"
    return {name: why for name, why in lacking.items() if why}


def _has(*packages: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in packages)


Training = Callable[[str], str]
"""Takes seconds, returns steps a second, and what is taken from them. Whose turn it is not waits."""


class _Trainings:
    """Two processes in which all take their turns, one with Lightning, and what they need beside them.

    Args:
        folder: For journals and logs.
        work: Of a step.
        stack: Ends all of them.
    """

    def __init__(self, folder: Path, work: str, stack: ExitStack) -> None:
        self.folder = folder
        self._work = work
        self._stack = stack

    @cached_property
    def broker(self) -> str:
        """Endpoint of a broker that lives."""
        folder = self._stack.enter_context(TemporaryDirectory(dir=self.folder))
        return self._stack.enter_context(steps_trainer.broker(Path(folder))).endpoint

    @cached_property
    def nats(self) -> str:
        """Address of a server of NATS."""
        return self._stack.enter_context(nats_server.running(self.folder)).endpoint

    @cached_property
    def _raw(self) -> Training:
        return self._begin("bench.steps_trainer")

    @cached_property
    def _lightning(self) -> Training:
        return self._begin("bench.lightning_steps", self.broker)

    def _begin(self, module: str, *arguments: str) -> Training:
        return self._stack.enter_context(roles.conversation(module, *arguments, self._work)).ask

    def raw(self, contender: str, address: str) -> Training:
        """Return what takes a turn of a contender of `bench.steps_trainer`."""
        return lambda seconds: self._raw(f"{seconds} {contender} {address}")

    def lightning(self, kind: str) -> Training:
        """Return what takes a turn of a kind of `bench.lightning_steps`."""
        return lambda seconds: self._lightning(f"{seconds} {kind}")

    def steered(self) -> Training:
        """Return what takes a turn with zloom, and one with a stopwatch for what is taken."""

        def train(seconds: str) -> str:
            rate, _ = self._lightning(f"{seconds} zloom").split()
            _, taken = self._lightning(f"{seconds} timed").split()
            return f"{rate} {taken}"

        return train


_STARTS: dict[str, Callable[[_Trainings], Training]] = {
    BARE: lambda trainings: trainings.raw("bare", "-"),
    AGAIN: lambda trainings: trainings.raw("bare", "-"),
    COPY: lambda trainings: trainings.raw("copy", "-"),
    ALIVE: lambda trainings: trainings.raw("zloom", trainings.broker),
    DEAD: lambda trainings: trainings.raw("killed", str(trainings.folder)),
    ABSENT: lambda trainings: trainings.raw("zloom", "!ipc:///nobody/is/here"),
    LIGHTNING: lambda trainings: trainings.lightning("bare"),
    EMPTY: lambda trainings: trainings.lightning("empty"),
    SKELETON: lambda trainings: trainings.lightning("skeleton"),
    STEERED: _Trainings.steered,
    NATS: lambda trainings: trainings.raw("nats", trainings.nats),
    TENSORBOARD: lambda trainings: trainings.raw("tensorboard", str(trainings.folder)),
}
