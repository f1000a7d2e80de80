"""The training of `bench.steps_trainer` as a Trainer of Lightning, with zloom's callback, with one that does
nothing, and without."""

import itertools
import logging
import sys
import time
import warnings
from collections import deque
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, IterableDataset

from bench.roles import announce
from bench.steps_trainer import Turn, cpu_of_others
from bench.training import step
from zloom.lightning import WeaveletCallback
from zloom.lightning.reporting import SETTINGS_INTERVAL, epoch_and_rate
from zloom.metrics import UNREAD_POINTS
from zloom.readings import read_in_place

FIRST_WARM_UP, WARM_UP = 1000, 5
"""Batches before the first turn, and before each."""

KEPT_ROWS = 1000
"""Batches whose points wait for who takes them once a second."""


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


class Skeleton(Callback):
    """Does what zloom's callback must do in each batch, in one function for each hook, and nothing else.

    It counts a step, notes where the loop stands, and looks whether something is to be done there or the
    process is to end. It keeps what the batch has logged anew, by name and step, for who takes it once a
    second, reads the numbers of a hundred batches together, and looks ten times a second at what changes
    seldom. Nothing is ever to be done, and nobody takes what it keeps.
    """

    def __init__(self) -> None:
        self.step = self.batches = 0
        self.phase, self.place = "training", ""
        self.waiting = self.ending = self.gradients_pending = False
        self.rows: deque[tuple[int, dict[str, Any]]] = deque(maxlen=KEPT_ROWS)
        self._seldom = 0.0
        self._newest: dict[str, Any] = {}
        self._unread: list[dict[str, Any]] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Count a step."""
        if self.phase == "training":
            self.place = "start"
            self.step += 1
            if self.waiting:
                self.ending = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keep what was logged, and read it with that of others."""
        now, newest = time.monotonic(), self._newest
        self.batches += 1
        row: dict[str, Any] = {}
        if outputs:
            row["loss"] = outputs["loss"]
        results: Any = trainer.fit_loop.epoch_loop._results
        for key, item in results.items():
            value = item._forward_cache
            if value is not newest.get(key) and type(value) is torch.Tensor and value.is_cpu:
                newest[key] = row[key] = value
        if now >= self._seldom:
            self._seldom = now + SETTINGS_INTERVAL
            row |= epoch_and_rate(trainer)
        self.rows.append((self.step, row))
        self._unread.append(row)
        if len(self._unread) * len(row) >= UNREAD_POINTS:
            for each in self._unread:
                read_in_place(each)
            self._unread.clear()
        self.place = "end"
        if (self.waiting and not self.gradients_pending) or self.ending:
            trainer.should_stop = True


class Timed(Callback):
    """Counts the seconds that another callback's hooks take in each step.

    Args:
        callback: Whose hooks it calls.
    """

    def __init__(self, callback: Callback) -> None:
        self._callback = callback
        self.told = 0.0

    def on_train_batch_start(self, *arguments: Any) -> None:
        """Do what is done there, and count it."""
        began = time.perf_counter()
        self._callback.on_train_batch_start(*arguments)
        self.told += time.perf_counter() - began

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Do what is done there, and count it."""
        began = time.perf_counter()
        self._callback.on_train_batch_end(*arguments)
        self.told += time.perf_counter() - began


class Turns(Callback):
    """Takes turns in one fit, as the lines of the input say, and prints a `Turn` for each.

    A line has a number of seconds, and who stands beside this callback: `bare`, nobody; `empty`, a callback
    that does nothing, each hook of which Lightning calls all the same; `skeleton`, a `Skeleton`; `zloom`,
    zloom's;
    `timed`, the same with a stopwatch, which costs some microseconds a step itself. All in one process, as
    where its memory lies makes the steps of one some percent faster; and zloom's weavelet, whose first second
    is not like the others, lives in all turns.

    Args:
        broker: Its endpoint.
    """

    def __init__(self, broker: str) -> None:
        zloom = WeaveletCallback(run="bench", broker=broker)
        self._timed = Timed(zloom)
        self._beside: dict[str, list[Callback]] = {
            "bare": [],
            "empty": [Callback()],
            "skeleton": [Skeleton()],
            "zloom": [zloom],
            "timed": [self._timed],
        }
        self._zloom = zloom
        self._warm_up = FIRST_WARM_UP
        self._seconds = self._began = self._taken = 0.0
        self._count = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have zloom's callback begin, which no turn begins with."""
        self._zloom.setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have zloom's callback connect."""
        self._zloom.on_fit_start(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have zloom's callback declare what it steers."""
        self._zloom.on_train_start(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have zloom's callback say goodbye."""
        self._zloom.teardown(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count one, and wait for the next turn when this one is over."""
        if self._warm_up:
            self._warm_up -= 1
            if not self._warm_up:
                self._count, self._began, self._taken = 0, time.perf_counter(), self._paid()
            return
        self._count += 1
        elapsed = time.perf_counter() - self._began
        if elapsed < self._seconds:
            return
        if self._seconds:
            print(Turn(self._count / elapsed, 100 * (self._paid() - self._taken) / elapsed), flush=True)
        else:
            announce()
        line = sys.stdin.readline()
        if line:
            seconds, kind = line.split()
            self._seconds, self._warm_up = float(seconds), WARM_UP
            trainer.callbacks = [self, *self._beside[kind]]  # type: ignore[attr-defined]
        else:
            trainer.should_stop = True

    def _paid(self) -> float:
        """Return the seconds of the callback, and of CPU of all other threads, until now."""
        return cpu_of_others() + self._timed.told


def main(broker: str, rounds: str) -> None:
    """Train until the input ends.

    Args:
        broker: Its endpoint.
        rounds: Of a step.
    """
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[Turns(broker)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(int(rounds)), DataLoader(Endless(), batch_size=None))


if __name__ == "__main__":
    main(*sys.argv[1:])
