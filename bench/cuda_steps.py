"""Steps of a training on a GPU a second: bare, with zloom, and with its peers, each told of each loss."""

from bench.collected import Collected
from bench.extent import Extent
from bench.goals import Goal
from bench.results import Absence
from bench.steps import AGAIN, ALIVE, BARE, COPY, NATS, TENSORBOARD, WHAT, take_turns
from bench.training import has_cuda

NAME = "gpu"
CASE = "a step on a GPU"

GOALS = (
    Goal(CASE, WHAT, ALIVE, BARE, 0.99, at_most=False),
    Goal(CASE, WHAT, ALIVE, COPY),
    *(Goal(CASE, WHAT, peer, BARE) for peer in (AGAIN, COPY, NATS, TENSORBOARD)),
)


def measure(extent: Extent, collected: Collected) -> None:
    """Count steps, in turns, where there is a GPU."""
    if has_cuda():
        take_turns(extent, collected, CASE, "cuda", {AGAIN, ALIVE, COPY, NATS, TENSORBOARD})


def absent() -> list[Absence]:
    """Return what this machine lacks."""
    return [] if has_cuda() else [Absence(NAME, CASE, "no NVIDIA GPU that torch can use")]
