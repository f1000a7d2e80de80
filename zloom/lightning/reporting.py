"""What a fit reports by itself: loss, logged metrics, epoch, learning rate and throughput."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from zloom.lightning.data import BatchSize
from zloom.lightning.surroundings import sole_optimizer
from zloom.torch.learning_rate import effective_rate

RATE_INTERVAL = 1.0
"""Seconds over which a rate is averaged: as fine as people look, and coarse against one step's jitter."""


class Throughput:
    """Counts batches, and turns them into a rate once a second; times are of one clock, in seconds."""

    def __init__(self, now: float) -> None:
        self.restart(now)

    def restart(self, now: float) -> None:
        """Begin anew."""
        self._since, self._batches = now, 0

    def leave_out(self, seconds: float) -> None:
        """Leave out time that was not the training's: a pause, a validation, a checkpoint."""
        self._since += seconds

    def count(self, now: float) -> float | None:
        """Count a batch; return batches per second once an interval is over, else None."""
        self._batches += 1
        elapsed = now - self._since
        if elapsed < RATE_INTERVAL:
            return None
        rate = self._batches / elapsed
        self.restart(now)
        return rate


def step_metrics(trainer: Trainer, outputs: Any) -> dict[str, Any]:
    """Return what a trained batch has to tell. Tensors stay tensors: nothing waits for a device.

    Args:
        trainer: The Trainer, in `on_train_batch_end`.
        outputs: What that hook was given. Its loss was divided by the batches of the accumulation window.
    """
    metrics: dict[str, Any] = {"epoch": trainer.current_epoch}
    optimizer = sole_optimizer(trainer)
    if optimizer is not None:
        metrics["effective_learning_rate"] = effective_rate(optimizer)
    if isinstance(outputs, Mapping) and outputs.get("loss") is not None:
        window = trainer.accumulate_grad_batches
        metrics["loss"] = outputs["loss"] * window if window > 1 else outputs["loss"]
    return metrics | fresh_metrics(trainer)


def fresh_metrics(trainer: Trainer) -> dict[str, Any]:
    """Return what was logged in this hook's step or epoch.

    Not `trainer.callback_metrics`, which also holds what earlier validations and epochs have left.
    """
    return dict(trainer._logger_connector.metrics["callback"])


def rates(trainer: Trainer, batches_per_second: float) -> dict[str, float]:
    """Return the throughput of this process, in samples too where the batch size is known."""
    found = {"batches_per_second": batches_per_second}
    batch_size = BatchSize().get(trainer)
    if batch_size is not None:
        found["samples_per_second"] = batches_per_second * batch_size
    return found
