"""A trainer with zloom in it: idle while it is paused, busy otherwise."""

import sys
from typing import Annotated

import zloom
from bench.roles import DEADLINE, Ready, announce
from bench.training import step
from zloom.socket_options import Context

RUN = "bench"
KEY = "learning_rate"


def train(endpoint: str, context: Context | None, ready: Ready) -> None:
    """Train until the command `stop`. A paused training waits in `tick`, and takes changes there.

    Raises:
        TimeoutError: No broker.
    """
    going = True
    weavelet = zloom.Weavelet(RUN, broker=endpoint, context=context, rank=0, world_size=1)

    @weavelet.on_config(KEY, initial=0.1)
    def set_learning_rate(value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> None:
        """Do nothing: what is measured is the way here and back."""

    @weavelet.on_command("stop")
    def stop() -> None:
        nonlocal going
        going = False

    with weavelet:
        if not weavelet.wait_until_active(DEADLINE):
            raise TimeoutError(f"no broker at {endpoint}")
        ready()
        while going:
            weavelet.tick()
            step()


if __name__ == "__main__":
    train(sys.argv[1], None, announce)
