"""What a fit reports by itself: loss, logged metrics, epoch, learning rate and throughput."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from zloom.lightning.data import BatchSize
from zloom.lightning.surroundings import sole_optimizer
from zloom.torch.learning_rate import effective_rate

RATE_INTERVAL = 1.0
"""Seconds over which a rate is averaged: as fine as people look, and coarse against one step's jitter."""

SETTINGS_INTERVAL = 0.1
"""Seconds between two reports of epoch and learning rate, which seldom change: to look them up takes 5 µs."""


class Throughput:
    """Turns a count of batches into a rate once a second; times are of one clock, in seconds.

    Attributes:
        batches: Those since it began; whoever trains one adds it.
    """

    def __init__(self, now: float) -> None:
        self.restart(now)

    def restart(self, now: float) -> None:
        """Begin anew."""
        self._since, self.batches = now, 0

    def leave_out(self, seconds: float) -> None:
        """Leave out time that was not the training's: a pause, a validation, a checkpoint."""
        self._since += seconds

    def rate(self, now: float) -> float | None:
        """Return batches per second once an interval is over, else None."""
        elapsed = now - self._since
        if elapsed < RATE_INTERVAL:
            return None
        rate = self.batches / elapsed
        self.restart(now)
        return rate


class _Logged:
    """What a module logs under one of Lightning's keys.

    Args:
        results: Has the item, which says of itself what does not change from batch to batch.
        item: Under that key.
    """

    __slots__ = ("each_batch", "is_tensor", "item", "names", "newest")

    def __init__(self, results: Any, item: Any) -> None:
        self.item = item
        self.each_batch: bool = item.meta.on_step
        self.is_tensor: bool = item.is_tensor
        """Else a metric of torchmetrics, which returns what it likes."""
        # As Lightning names it for callbacks: `loss`, and `loss_step` where the epoch has it too.
        self.names = tuple(dict.fromkeys(results._forked_name(item, True)))
        self.newest: Any = None
        """The newest value that was reported, which `log` never changes in place."""


class StepMetrics:
    """Collects what trained batches have to tell, each value once.

    Lightning keeps what was logged until it is logged anew. Reported with each batch, an old value would be
    a new point, and a guard could judge a change by what was before it.
    """

    def __init__(self) -> None:
        self._logged: dict[str, _Logged] = {}
        """By Lightning's key."""

    def of(self, trainer: Trainer, outputs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the metrics of a batch, by name: those that may be read later, and those that may not.

        Tensors stay tensors: nobody waits for a device here.

        Args:
            trainer: The Trainer, in `on_train_batch_end`.
            outputs: What that hook was given. Its loss was divided by the batches of the accumulation window.
        """
        unread: dict[str, Any] = {}
        metrics: dict[str, Any] = {}
        if outputs and isinstance(outputs, Mapping) and outputs.get("loss") is not None:
            window = trainer.accumulate_grad_batches
            loss = outputs["loss"] * window if window > 1 else outputs["loss"]
            # Of an automatic optimization it is Lightning's own copy, else what the module returned.
            own = trainer.lightning_module.automatic_optimization
            (unread if own and _is_number_on_cpu(loss) else metrics)["loss"] = loss
        # A metric that was logged as `loss` stands for the batch's.
        results: Any = trainer.fit_loop.epoch_loop._results
        for key, item in results.items():
            logged = self._logged.get(key)
            if logged is None or logged.item is not item:
                logged = self._logged[key] = _Logged(results, item)
            value = item._forward_cache
            if value is logged.newest or not logged.each_batch or not isinstance(value, Tensor):
                continue
            logged.newest = value
            # `log` has cloned it and detached it, and takes one number only.
            later = logged.is_tensor and type(value) is Tensor and value.is_cpu
            of_these, others = (unread, metrics) if later else (metrics, unread)
            for name in logged.names:
                others.pop(name, None)
                of_these[name] = value
        return unread, metrics


def _is_number_on_cpu(value: Any) -> bool:
    """Whether a value is a tensor that another thread may read, later and without a wait."""
    return type(value) is Tensor and value.is_cpu and not value.requires_grad and value.numel() == 1


def epoch_and_rate(trainer: Trainer) -> dict[str, Any]:
    """Return the epoch, and the learning rate where there is one optimizer."""
    optimizer = sole_optimizer(trainer)
    rate = {} if optimizer is None else {"effective_learning_rate": effective_rate(optimizer)}
    return {"epoch": trainer.current_epoch} | rate


def epoch_metrics(trainer: Trainer) -> dict[str, Any]:
    """Return what was logged in the epoch, or the validation, that ends in this hook.

    Not `trainer.callback_metrics`, which also holds what earlier validations and epochs have left.
    """
    results: Any = trainer._results
    found: dict[str, Any] = {}
    # Of several loaders each has its own, and the results tell those of one at a time.
    current = results.dataloader_idx
    others = {item.meta.dataloader_idx for item in results.values()} - {None, current}
    try:
        for loader in (current, *sorted(others)):
            results.dataloader_idx = loader
            found |= trainer._logger_connector.metrics["callback"]
    finally:
        results.dataloader_idx = current
    return found


def rates(trainer: Trainer, batches_per_second: float) -> dict[str, float]:
    """Return the throughput of this process, in samples too where the batch size is known."""
    found = {"batches_per_second": batches_per_second}
    batch_size = BatchSize().get(trainer)
    if batch_size is not None:
        found["samples_per_second"] = batches_per_second * batch_size
    return found
