"""`optimizer_type`: another optimizer over the same parameters, while the schedule goes on."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

from zloom.lightning.schedules import schedulers
from zloom.lightning.steer import Position, Steer, Undo
from zloom.lightning.succession import CANNOT_TAKE, Rehearsal, Succession
from zloom.lightning.surroundings import (
    find_callback,
    has_scaler,
    is_automatic,
    no_sole_optimizer,
    sole_optimizer,
    strategy_is,
)


def torch_optimizers() -> dict[str, type[Optimizer]]:
    """Return the optimizers of the installed torch by name: the class's in lower case."""
    found = (thing for thing in vars(torch.optim).values() if isinstance(thing, type))
    return {cls.__name__.lower(): cls for cls in found if issubclass(cls, Optimizer) and cls is not Optimizer}


class OptimizerType(Steer):
    """The class of the only optimizer.

    A class that is not torch's is a choice too, under its lower-case name, once it was seen in `get`.
    """

    name = "optimizer_type"
    annotation: ClassVar[Any] = Literal[tuple(torch_optimizers())]
    description = "Class of the optimizer; parameters, learning rate, weight decay and schedule go over"

    def __init__(self) -> None:
        self._choices = torch_optimizers()

    def get(self, trainer: Trainer) -> str | None:
        optimizer = sole_optimizer(trainer)
        if optimizer is None:
            return None
        cls = type(optimizer)
        self._choices[cls.__name__.lower()] = cls
        return cls.__name__.lower()

    def declared_type(self, trainer: Trainer) -> Any:
        now = self.get(trainer)
        names: Any = Literal[tuple(self._choices)]
        return names if now is not None else names | None

    def unsupported(self, trainer: Trainer) -> str | None:
        if strategy_is(trainer, "DeepSpeedStrategy"):
            return "DeepSpeed owns the optimizer; use another strategy, or restart with another optimizer"
        rival = find_callback(trainer, "StochasticWeightAveraging", "BaseFinetuning")
        if rival is not None:
            return f"the callback {rival} changes optimizers too; remove it to steer the type"
        return no_sole_optimizer(trainer)

    def refusal(self, trainer: Trainer, value: str) -> str | None:
        if value not in self._choices:
            return f"{value!r} is none of {', '.join(self._choices)}"
        old, cls = trainer.optimizers[0], self._choices[value]
        if cls is type(old):
            return None
        if issubclass(cls, torch.optim.LBFGS) and (reason := _no_lbfgs(trainer)):
            return reason
        try:
            succession = _succession(trainer, cls)
            if succession.loses:
                return f"{cls.__name__} does not know {succession.loses}=True, which {type(old).__name__} has"
            return _clashes(trainer, succession.rehearse())
        except CANNOT_TAKE as error:
            return f"{cls.__name__} cannot train these parameters: {error}"

    def ready(self, position: Position, value: Any) -> bool:
        return position.window_closed

    def change(self, trainer: Trainer, value: str) -> Undo:
        old, cls = trainer.optimizers[0], self._choices[value]
        if cls is type(old):
            return lambda: None
        succession = _succession(trainer, cls)
        return _install(trainer, succession.build(succession.rehearse()))


def _succession(trainer: Trainer, cls: type[Optimizer]) -> Succession:
    return Succession(trainer.optimizers[0], cls, _sparse_parameters(trainer.lightning_module))


def _sparse_parameters(module: LightningModule) -> frozenset[int]:
    embeddings = (part for part in module.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag))
    return frozenset(id(part.weight) for part in embeddings if part.sparse)


def _no_lbfgs(trainer: Trainer) -> str | None:
    if has_scaler(trainer):
        return "LBFGS cannot be combined with a gradient scaler; train in bf16-mixed or 32-true"
    if not is_automatic(trainer):
        return "LBFGS needs a closure, and in manual optimization the module calls step() by itself"
    if trainer.accumulate_grad_batches > 1:
        return "LBFGS runs its batch several times a step; set accumulate_grad_batches to 1 first"
    return None


def _clashes(trainer: Trainer, rehearsal: Rehearsal) -> str | None:
    unscales = getattr(rehearsal.optimizer, "_step_supports_amp_scaling", False)
    if unscales and has_scaler(trainer) and trainer.gradient_clip_val:
        return "it unscales gradients in its step, after clipping; set gradient_clip_val to null first"
    return None


def _install(trainer: Trainer, new: Optimizer) -> Undo:
    old = trainer.optimizers[0]
    # Assigned, not put into the list: Lightning wraps optimizers when they are assigned.
    trainer.optimizers = [new]
    rebound = [_rebind(one, new) for one in schedulers(trainer) if one.optimizer is old]

    def undo() -> None:
        trainer.optimizers = [old]
        for put_back in rebound:
            put_back()

    return undo


def _rebind(scheduler: Any, new: Optimizer) -> Callable[[], None]:
    before = {key: vars(scheduler)[key] for key in ("optimizer", "use_beta1") if key in vars(scheduler)}
    scheduler.optimizer = new
    # A schedule that cycles momentum writes it where its optimizer reads it.
    if "use_beta1" in before and {"betas", "momentum"} & new.defaults.keys():
        scheduler.use_beta1 = "betas" in new.defaults
    return lambda: vars(scheduler).update(before)
