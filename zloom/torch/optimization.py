"""What the keys of an optimizer read and change, whoever owns it: a Trainer or a loop."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zloom.errors import CannotSteer
from zloom.torch.base import Undo


class Optimization(ABC):
    """The optimizer of a training, with its schedulers."""

    @property
    @abstractmethod
    def optimizer(self) -> Optimizer | None:
        """The only optimizer; None where there is none, or several."""

    @property
    @abstractmethod
    def schedulers(self) -> list[LRScheduler]:
        """Every scheduler, each before those nested in it."""

    @property
    @abstractmethod
    def module(self) -> nn.Module | None:
        """The model, where it is known."""

    @abstractmethod
    def no_sole_optimizer(self) -> str | None:
        """Return why one value cannot mean one optimizer, or None when there is exactly one."""

    @abstractmethod
    def no_other_type(self) -> str | None:
        """Return why the optimizer's class can never change, or None."""

    @abstractmethod
    def no_lbfgs(self) -> str | None:
        """Return why the training cannot go on with LBFGS, which needs a closure, or None."""

    @abstractmethod
    def clash(self, optimizer: Optimizer) -> str | None:
        """Return why the training cannot go on with an optimizer like this one, or None."""

    @abstractmethod
    def install(self, new: Optimizer) -> Undo:
        """Let the training go on with this optimizer, and its schedulers on it."""

    @property
    def the_optimizer(self) -> Optimizer:
        """The only optimizer.

        Raises:
            CannotSteer: There is none, or several.
        """
        if self.optimizer is None:
            raise CannotSteer(self.no_sole_optimizer() or "this training has no optimizer")
        return self.optimizer

    @property
    def momentum_cycler(self) -> str | None:
        """The class name of the first scheduler that sets the momentum too, or None."""
        cyclers = (one for one in self.schedulers if getattr(one, "cycle_momentum", False))
        return next((type(one).__name__ for one in cyclers), None)

    @property
    def sparse_parameters(self) -> frozenset[int]:
        """Ids of the parameters whose gradients are sparse."""
        modules = () if self.module is None else self.module.modules()
        embeddings = (part for part in modules if isinstance(part, nn.Embedding | nn.EmbeddingBag))
        return frozenset(id(part.weight) for part in embeddings if part.sparse)


def flatten(schedulers: Iterable[Any]) -> Iterator[LRScheduler]:
    """Yield these schedulers, each before those nested in it."""
    for scheduler in schedulers:
        yield scheduler
        yield from flatten(getattr(scheduler, "_schedulers", ()))


def rebind(scheduler: Any, new: Optimizer) -> Undo:
    """Let a scheduler go on with this optimizer."""
    before = {key: vars(scheduler)[key] for key in ("optimizer", "use_beta1") if key in vars(scheduler)}
    scheduler.optimizer = new
    # A schedule that cycles momentum writes it where its optimizer reads it.
    if "use_beta1" in before and {"betas", "momentum"} & new.defaults.keys():
        scheduler.use_beta1 = "betas" in new.defaults
    return lambda: vars(scheduler).update(before)


def step_watch(optimizer: Any) -> Callable[[Any], None]:
    """Return what lets the schedulers see another optimizer's steps as they see those of this one."""
    watched, called = (
        hasattr(optimizer.step, "_wrapped_by_lr_sched"),
        getattr(optimizer, "_opt_called", False),
    )

    def watch(new: Any) -> None:
        if not watched:
            return
        # A scheduler's constructor wraps `step`, and the first scheduler step warns where the wrapper is
        # missing. This one multiplies by 1, so that it leaves the learning rate alone, and is thrown away.
        torch.optim.lr_scheduler.MultiplicativeLR(new, lambda _: 1.0)
        # It also warns when no step came before it, and a step of the old optimizer is one.
        new._opt_called = called

    return watch
