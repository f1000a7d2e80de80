"""Two ranks that take each step together, of which the second comes to each safe point after the first.

The process of the first serves the store that both decide in. To the last safe point the second comes when
the first, which has left it, asks whether its store is still needed; or when that has ended, by "late".
Arguments: the run's name, the path of a pipe (FIFO) that only these two have, and "soon" or "late".
"""

import os
import sys
from unittest import mock

import torch
from torch import distributed

import zloom
from zloom.store_register import StoreRegister


def main() -> None:
    run, pipe, when = sys.argv[1:]
    distributed.init_process_group("gloo")
    if distributed.get_rank() == 0:
        lead(run, os.open(pipe, os.O_WRONLY), soon=when == "soon")
    else:
        with mock.patch("zloom.parting.PATIENCE", 0.1):  # for a store that answers no more
            lag(run, os.open(pipe, os.O_RDONLY))


def lead(run: str, pipe: int, *, soon: bool) -> None:
    """Tell at each safe point that it was left, and at the end that the other is waited for."""
    is_needed = StoreRegister.is_needed

    def asked(register: StoreRegister, meeting: str) -> bool:
        needed = is_needed(register, meeting)
        os.write(pipe, b"." if needed and soon else b"")
        return needed

    stopped: list[bool] = []
    settings = zloom.WeaveletSettings(close_timeout=1.5 if soon else 0.2)
    with (
        mock.patch.object(StoreRegister, "is_needed", asked),
        zloom.Weavelet(run, settings=settings) as weavelet,
    ):
        weavelet.on_command("stop")(lambda: stopped.append(True))
        while True:
            distributed.all_reduce(torch.zeros(1))
            weavelet.tick()
            if stopped:
                break
            os.write(pipe, b".")


def lag(run: str, pipe: int) -> None:
    """Come to each safe point once the other has told something, or is gone."""
    stopped: list[bool] = []
    with zloom.Weavelet(run) as weavelet:
        weavelet.on_command("stop")(lambda: stopped.append(True))
        while not stopped:
            distributed.all_reduce(torch.zeros(1))
            os.read(pipe, 1)
            weavelet.tick()


if __name__ == "__main__":
    main()
