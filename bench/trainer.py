"""A trainer with zloom in it: idle while it is paused, busy otherwise."""

import sys
from typing import Annotated

import zloom
from bench.results import Load
from bench.roles import DEADLINE, Ready, announce
from bench.training import Step, step_of
from zloom.socket_options import Context

RUN = "bench"
ATTEMPT = "one"
KEY = "learning_rate"
END = "end"
"""The command to leave. Two others, `busy` and `torch`, say what the steps are from now on."""


class Trainer:
    """What commands change: the steps that are made, and whether another is."""

    def __init__(self, weavelet: zloom.Weavelet) -> None:
        self.going = True
        self.step: Step = step_of("busy")
        weavelet.on_config(KEY, initial=0.1)(self.set_learning_rate)
        weavelet.on_command("busy")(lambda: self.switch("busy"))
        weavelet.on_command("torch")(lambda: self.switch("torch"))
        weavelet.on_command(END)(self.end)

    def set_learning_rate(self, value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> None:
        """Do nothing: what is measured is the way here and back."""

    def switch(self, load: Load) -> None:
        """Make such steps."""
        self.step = step_of(load)

    def end(self) -> None:
        """Make no other step."""
        self.going = False


def train(endpoint: str, context: Context | None, ready: Ready) -> None:
    """Train until the command `end`. A paused training waits in `tick`, and takes changes there.

    Raises:
        TimeoutError: No broker.
    """
    weavelet = zloom.Weavelet(RUN, broker=endpoint, context=context, rank=0, world_size=1)
    trainer = Trainer(weavelet)
    with weavelet:
        if not weavelet.wait_until_active(DEADLINE):
            raise TimeoutError(f"no broker at {endpoint}")
        ready()
        while trainer.going:
            weavelet.tick()
            trainer.step()


if __name__ == "__main__":
    train(sys.argv[1], None, announce)
