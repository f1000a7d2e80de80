"""Two ranks that take each step together, of which the second comes to each safe point late.

The process of the first serves the store that both decide in. Argument: the run's name.
"""

import sys
import time

import torch
from torch import distributed

import zloom

LATE = 0.8
"""Seconds: more than a process of Python takes to end."""


def main() -> None:
    (run,) = sys.argv[1:]
    distributed.init_process_group("gloo")
    stopped: list[bool] = []
    with zloom.Weavelet(run) as weavelet:
        weavelet.on_command("stop")(lambda: stopped.append(True))
        while not stopped:
            distributed.all_reduce(torch.zeros(1))
            time.sleep(LATE * distributed.get_rank())
            weavelet.tick()


if __name__ == "__main__":
    main()
