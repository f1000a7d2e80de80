"""Steering of the optimizer in a loop that its user wrote: a plain one, or with Fabric or Accelerate."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zloom.errors import SettingsError
from zloom.torch.base import Steer, Undo, undo_all
from zloom.torch.hyperparameters import Momentum, WeightDecay
from zloom.torch.keys import Keys
from zloom.torch.learning_rate import LearningRate
from zloom.torch.optimization import Optimization, flatten, rebind, step_watch
from zloom.torch.optimizer_type import OptimizerType
from zloom.weavelet import Weavelet

STEERS: tuple[type[Steer[Any, Any]], ...] = (OptimizerType, LearningRate, WeightDecay, Momentum)
"""In the order in which the keys of one update run: a rate is meant for the new optimizer."""


class LoopOptimization(Optimization):
    """An optimizer that a loop holds on to, so it changes its class and stays the same object.

    Args:
        optimizer: As the loop steps it; wrappers of Fabric and Accelerate may be around it.
        schedulers: Those on it; wrappers of Accelerate may be around them.
        module: The model, by which parameters with sparse gradients are known.

    Raises:
        SettingsError: There is no optimizer of torch in it.
    """

    def __init__(self, optimizer: Any, schedulers: Iterable[Any], module: nn.Module | None) -> None:
        *self._wrappers, unwrapped = _unwrap(optimizer)
        if not isinstance(unwrapped, Optimizer):
            raise SettingsError(f"expected an optimizer of torch, got {type(optimizer).__name__}")
        self._optimizer = unwrapped
        self._schedulers = [getattr(scheduler, "scheduler", scheduler) for scheduler in schedulers]
        self._module = module

    @property
    def optimizer(self) -> Optimizer | None:
        return self._optimizer

    @property
    def schedulers(self) -> list[LRScheduler]:
        return list(flatten(self._schedulers))

    @property
    def module(self) -> nn.Module | None:
        return self._module

    @property
    def has_other_schedulers(self) -> bool:
        """Whether a scheduler is, or was, on the optimizer, though none was given."""
        steps = [each.step for each in (*self._wrappers, self._optimizer)]
        return not self._schedulers and any(hasattr(step, "_wrapped_by_lr_sched") for step in steps)

    def no_sole_optimizer(self) -> str | None:
        return None

    def no_other_type(self) -> str | None:
        if any(getattr(wrapper, "scaler", None) is not None for wrapper in self._wrappers):
            return "Accelerate's gradient scaler holds on to the optimizer's step; train in bf16 or 32 bits"
        return None

    def no_lbfgs(self) -> str | None:
        return "LBFGS needs a closure, and this loop calls step() by itself"

    def clash(self, optimizer: Optimizer) -> str | None:
        old, new = type(self._optimizer), type(optimizer)
        try:
            object.__new__(old).__class__ = new
        except TypeError as error:
            return f"a {old.__name__} cannot become a {new.__name__} in place: {error}"
        return None

    def install(self, new: Optimizer) -> Undo:
        optimizer, before = self._optimizer, (type(self._optimizer), vars(self._optimizer))
        watch = step_watch(optimizer)
        # Hooks were registered on the object, which remains.
        vars(new).update({name: value for name, value in vars(optimizer).items() if name.endswith("_hooks")})
        _become(optimizer, type(new), vars(new))
        watch(optimizer)
        rebound = [rebind(scheduler, scheduler.optimizer) for scheduler in self.schedulers]
        return undo_all([lambda: _become(optimizer, *before), *rebound])


class Steering:
    """Makes `optimizer_type`, `learning_rate`, `weight_decay` and `momentum` of a loop steerable.

    The optimizer stays the same object, whatever class it changes to: the loop, schedulers, Fabric and a
    gradient scaler go on with what they have. All is called on the training thread.

    Args:
        optimizer: As the loop steps it; wrappers of Fabric and Accelerate may be around it.
        schedulers: Every scheduler on it. One that is missing takes a changed rate back at its next step.
        model: By which parameters with sparse gradients are known; only optimizer_type asks.

    Raises:
        SettingsError: There is no optimizer of torch in it.
    """

    def __init__(self, optimizer: Any, *schedulers: Any, model: nn.Module | None = None) -> None:
        self._optimization = LoopOptimization(optimizer, schedulers, model)
        self._keys = Keys(self._optimization, _Open(), [cls() for cls in STEERS])
        self._resumed: Mapping[str, Mapping[str, Any]] = {}
        self._declared = False
        if self._optimization.has_other_schedulers:
            warnings.warn(
                "a scheduler was made for this optimizer and none is given here, so it would take a steered "
                "learning rate back; give it after the optimizer",
                RuntimeWarning,
                stacklevel=2,
            )

    def declare(self, weavelet: Weavelet) -> None:
        """Declare the keys, with the values now as baselines."""
        self._keys.resume(self._resumed)
        self._keys.declare(weavelet)
        self._declared = True

    def state_dict(self) -> dict[str, Any]:
        """Return what was steered, as plain types, to be saved beside the optimizer's state."""
        return {"steered": self._keys.steered}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the optimizer of the class that it had, *before* its own state is loaded, and the schedulers'.

        Raises:
            SettingsError: The keys are declared already.
            CannotSteer: The optimizer cannot be of that class again.
        """
        if self._declared:
            raise SettingsError("load the state of a Steering before it declares its keys")
        self._resumed = state["steered"]
        self._keys.resume_before_restore(self._resumed)


def steer(weavelet: Weavelet, optimizer: Any, *schedulers: Any, model: nn.Module | None = None) -> Steering:
    """Make the optimizer of a loop steerable; see `Steering`, whose arguments and errors these are."""
    steering = Steering(optimizer, *schedulers, model=model)
    steering.declare(weavelet)
    return steering


class _Open:
    """A safe point of a loop is where it says so, between two steps of the optimizer."""

    window_closed = True


def _unwrap(optimizer: Any) -> Iterator[Any]:
    yield optimizer
    # Fabric's and Accelerate's wrappers both call it that.
    if isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        yield from _unwrap(inner)


def _become(optimizer: Any, cls: type[Optimizer], attributes: dict[str, Any]) -> None:
    optimizer.__class__, optimizer.__dict__ = cls, attributes
