"""The keys of a Trainer's optimizer: its type, learning rate, weight decay and momentum."""

from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zloom.lightning.schedules import schedulers
from zloom.lightning.steer import Position, Steer
from zloom.lightning.surroundings import (
    find_callback,
    has_scaler,
    is_automatic,
    no_sole_optimizer,
    sole_optimizer,
    strategy_is,
)
from zloom.torch import hyperparameters, learning_rate, optimizer_type
from zloom.torch.base import Steer as AnySteer
from zloom.torch.base import Undo, Window, undo_all
from zloom.torch.optimization import Optimization, rebind, step_watch


class TrainerOptimization(Optimization):
    """The optimizer of a Trainer, inside `fit`."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    @property
    def optimizer(self) -> Optimizer | None:
        return sole_optimizer(self._trainer)

    @property
    def schedulers(self) -> list[LRScheduler]:
        return schedulers(self._trainer)

    @property
    def module(self) -> LightningModule:
        return self._trainer.lightning_module

    def no_sole_optimizer(self) -> str | None:
        return no_sole_optimizer(self._trainer)

    def no_other_type(self) -> str | None:
        if strategy_is(self._trainer, "DeepSpeedStrategy"):
            return "DeepSpeed owns the optimizer; use another strategy, or restart with another optimizer"
        rival = find_callback(self._trainer, "StochasticWeightAveraging", "BaseFinetuning")
        if rival is not None:
            return f"the callback {rival} changes optimizers too; remove it to steer the type"
        return None

    def no_lbfgs(self) -> str | None:
        if has_scaler(self._trainer):
            return "LBFGS cannot be combined with a gradient scaler; train in bf16-mixed or 32-true"
        if not is_automatic(self._trainer):
            return "LBFGS needs a closure, and in manual optimization the module calls step() by itself"
        if self._trainer.accumulate_grad_batches > 1:
            return "LBFGS runs its batch several times a step; set accumulate_grad_batches to 1 first"
        return None

    def clash(self, optimizer: Optimizer) -> str | None:
        unscales = getattr(optimizer, "_step_supports_amp_scaling", False)
        if unscales and has_scaler(self._trainer) and self._trainer.gradient_clip_val:
            return "it unscales gradients in its step, after clipping; set gradient_clip_val to null first"
        return None

    def install(self, new: Optimizer) -> Undo:
        trainer, old = self._trainer, self.the_optimizer
        step_watch(old)(new)
        # Assigned, not put into the list: Lightning wraps optimizers when they are assigned.
        trainer.optimizers = [new]
        rebound = [rebind(one, new) for one in self.schedulers if one.optimizer is old]

        def put_back() -> None:
            trainer.optimizers = [old]

        return undo_all([*rebound, put_back])


class OptimizerSteer(Steer):
    """A key of the optimizer, for a Trainer."""

    key: ClassVar[type[AnySteer[Optimization, Window]]]

    def __init_subclass__(cls) -> None:
        if "key" in vars(cls):
            for name in ("name", "annotation", "description", "nullable"):
                setattr(cls, name, getattr(cls.key, name))

    def __init__(self) -> None:
        self._key = self.key()

    def get(self, trainer: Trainer) -> Any:
        return self._key.get(TrainerOptimization(trainer))

    def declared_type(self, trainer: Trainer) -> Any:
        return self._key.declared_type(TrainerOptimization(trainer))

    def unsupported(self, trainer: Trainer) -> str | None:
        return self._key.unsupported(TrainerOptimization(trainer))

    def note(self, trainer: Trainer) -> str:
        return self._key.note(TrainerOptimization(trainer))

    def refusal(self, trainer: Trainer, value: Any) -> str | None:
        return self._key.refusal(TrainerOptimization(trainer), value)

    def ready(self, position: Position, value: Any) -> bool:
        return self._key.ready(position, value)

    def change(self, trainer: Trainer, value: Any) -> Undo:
        return self._key.change(TrainerOptimization(trainer), value)


class OptimizerType(OptimizerSteer):
    """The class of the only optimizer."""

    key = optimizer_type.OptimizerType


class LearningRate(OptimizerSteer):
    """The base learning rate of the first group."""

    key = learning_rate.LearningRate


class WeightDecay(OptimizerSteer):
    """The weight decay of the first group that has one."""

    key = hyperparameters.WeightDecay


class Momentum(OptimizerSteer):
    """Momentum where the optimizer has it, else the first of its betas."""

    key = hyperparameters.Momentum
