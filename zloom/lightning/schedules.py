"""The learning-rate schedulers of a training, nested ones included, and how far they reach."""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch import Trainer
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, OneCycleLR, SequentialLR

from zloom.lightning.surroundings import is_automatic
from zloom.torch.optimization import flatten


def schedulers(trainer: Trainer) -> list[LRScheduler]:
    """Return every scheduler that `configure_optimizers` named, each before those nested in it."""
    return list(flatten(config.scheduler for config in trainer.lr_scheduler_configs))


@dataclass(frozen=True)
class Plan:
    """What decides how many optimizer steps are still to come.

    Attributes:
        max_epochs: Epochs, -1 for no limit.
        max_steps: Optimizer steps, -1 for no limit.
        accumulate: Batches per optimizer step.
        batches: Batches per epoch; infinite where the loader has no length.
    """

    max_epochs: int
    max_steps: int
    accumulate: int
    batches: float


def current_plan(trainer: Trainer) -> Plan:
    """Return the plan that the Trainer follows now."""
    loop = trainer.fit_loop
    epochs = -1 if loop.max_epochs is None else loop.max_epochs
    return Plan(epochs, loop.max_steps, trainer.accumulate_grad_batches, trainer.num_training_batches)


def outrun(trainer: Trainer, **changes: float) -> str | None:
    """Return why a changed plan would run past the end of a OneCycleLR, which raises there, or None.

    Args:
        trainer: The Trainer, inside `fit`.
        changes: Fields of `Plan` with their new values.
    """
    # In manual optimization the module steps its schedulers itself: nothing says how often.
    if not is_automatic(trainer):
        return None
    now = current_plan(trainer)
    then = replace(now, **changes)  # type: ignore[arg-type]
    for config in trainer.lr_scheduler_configs:
        before, after = (_scheduler_steps(trainer, plan, config) for plan in (now, then))
        end = _outrun_end(config.scheduler, _now(config.scheduler), after) if after > before else None
        if end is not None:
            return (
                f"{after:g} more scheduler steps would run past the end of OneCycleLR (total_steps={end}), "
                "which raises there; choose a value that ends earlier, or a schedule without an end"
            )
    return None


def _scheduler_steps(trainer: Trainer, plan: Plan, config: Any) -> float:
    steps = _optimizer_steps(trainer, plan)
    if config.interval == "epoch":
        by_steps = steps / max(1, math.ceil(plan.batches / plan.accumulate)) if plan.batches < math.inf else 1
        steps = min(_epochs_left(trainer, plan), by_steps)
    return math.ceil(steps / config.frequency) if steps < math.inf else steps


def _optimizer_steps(trainer: Trainer, plan: Plan) -> float:
    by_steps = math.inf if plan.max_steps == -1 else max(0, plan.max_steps - trainer.global_step)
    epochs = _epochs_left(trainer, plan)
    if math.inf in (epochs, plan.batches):
        return by_steps
    per_epoch = math.ceil(plan.batches / plan.accumulate)
    return min(by_steps, epochs * per_epoch - _steps_behind(trainer, plan))


def _epochs_left(trainer: Trainer, plan: Plan) -> float:
    progress: Any = trainer.fit_loop.epoch_progress.current
    return math.inf if plan.max_epochs == -1 else max(0, plan.max_epochs - progress.processed)


def _steps_behind(trainer: Trainer, plan: Plan) -> int:
    """Return the steps that the epoch in progress has taken; 0 between epochs."""
    epoch: Any = trainer.fit_loop.epoch_progress.current
    batch: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return 0 if epoch.started == epoch.processed else batch.processed // plan.accumulate


def _outrun_end(scheduler: Any, at: int, steps: float) -> int | None:
    """Return the `total_steps` of a OneCycleLR that `steps` more from `at` outrun, or None."""
    if isinstance(scheduler, OneCycleLR):
        return scheduler.total_steps if at + steps > scheduler.total_steps else None
    if isinstance(scheduler, ChainedScheduler):
        ends = (_outrun_end(nested, _now(nested), steps) for nested in scheduler._schedulers)
    elif isinstance(scheduler, SequentialLR):
        ends = (_outrun_end(*nested) for nested in _sequence(scheduler, at, steps))
    else:
        return None
    return next((end for end in ends if end is not None), None)


def _sequence(scheduler: SequentialLR, at: int, steps: float) -> Iterator[tuple[Any, int, float]]:
    """Yield each scheduler that is still to run, where it stands, and the steps that it will see."""
    last = at + steps
    starts, ends = [0, *scheduler._milestones], [*scheduler._milestones, math.inf]
    active = bisect_right(scheduler._milestones, at)
    for index in range(active, len(scheduler._schedulers)):
        # At its milestone a scheduler is put to 0 and the one before it is not stepped any more.
        begin = at if index == active else starts[index]
        seen = max(0, min(last, ends[index] - 1) - begin)
        nested = scheduler._schedulers[index]
        yield nested, _now(nested) if index == active else 0, seen


def _now(scheduler: Any) -> int:
    # A ChainedScheduler counts nothing itself.
    return int(getattr(scheduler, "last_epoch", 0))
