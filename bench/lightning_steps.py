"""The training of `bench.steps_trainer` as a Trainer of Lightning, with zloom's callback, with one that does
nothing, or without."""

import itertools
import logging
import sys
import time
import warnings
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, IterableDataset

from bench.roles import announce
from bench.steps_trainer import Turn, cpu_of_others
from bench.training import step
from zloom.lightning import WeaveletCallback

WARM_UP = 20
"""Batches before the first turn."""


class Endless(IterableDataset[int]):
    """Batches as long as they are wanted."""

    def __iter__(self) -> Any:
        return itertools.repeat(0)


class Module(LightningModule):
    """Whose step is the same as everywhere else; the parameter is only there to have an optimizer.

    Args:
        rounds: Of a step.
    """

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self._rounds = rounds
        self._weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, number: int) -> None:
        """Compute, and log a metric, which zloom reports when it is there."""
        step(self._rounds)
        self.log("loss", 0.5)

    def configure_optimizers(self) -> Any:
        """Return an optimizer, whose learning rate zloom steers."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Timed(WeaveletCallback):
    """Counts the seconds that its hooks take in each step."""

    told = 0.0

    def on_train_batch_start(self, *arguments: Any) -> None:
        """Do what is done there, and count it."""
        began = time.perf_counter()
        WeaveletCallback.on_train_batch_start(self, *arguments)  # `super()` takes a tenth of it
        self.told += time.perf_counter() - began

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Do what is done there, and count it."""
        began = time.perf_counter()
        WeaveletCallback.on_train_batch_end(self, *arguments)
        self.told += time.perf_counter() - began


class Turns(Callback):
    """Counts the steps of as many seconds as each line of the input says, and prints a `Turn`.

    Args:
        timed: The callback whose part is told; None: there is none.
    """

    def __init__(self, timed: Timed | None) -> None:
        self._timed = timed
        self._began = self._end = self._taken = 0.0
        self._count = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count one, and wait for the next turn when this one is over."""
        if batch_idx < WARM_UP:
            return
        self._count += 1
        now = time.perf_counter()
        if now < self._end:
            return
        if self._end:
            elapsed, taken = now - self._began, self._paid() - self._taken
            print(Turn(self._count / elapsed, 100 * taken / elapsed), flush=True)
        else:
            announce()
        line = sys.stdin.readline()
        trainer.should_stop = not line
        self._count, self._began, self._taken = 0, time.perf_counter(), self._paid()
        self._end = self._began + float(line or 1)

    def _paid(self) -> float:
        """Return the seconds of the callback, and of CPU of all other threads, until now."""
        return cpu_of_others() + (0.0 if self._timed is None else self._timed.told)


def main(kind: str, address: str, rounds: str) -> None:
    """Train until the input ends; `kind` is bare, empty or zloom, and `address` the broker's."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    timed = Timed(run="bench", broker=address) if kind == "zloom" else None
    callbacks: list[Callback] = [Turns(timed)]
    if timed is not None:
        callbacks.insert(0, timed)
    elif kind == "empty":
        callbacks.insert(0, Callback())  # Lightning calls each of its hooks, whatever they do
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(int(rounds)), DataLoader(Endless(), batch_size=None))


if __name__ == "__main__":
    main(*sys.argv[1:])
