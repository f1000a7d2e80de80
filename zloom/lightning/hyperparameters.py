"""`weight_decay` and `momentum` of the only optimizer."""

from typing import Annotated, Any

import torch
from lightning.pytorch import Trainer
from msgspec import Meta
from torch import Tensor
from torch.optim import Optimizer

from zloom.lightning.schedules import schedulers
from zloom.lightning.steer import Steer, Undo
from zloom.lightning.surroundings import no_sole_optimizer, sole_optimizer

# Which part of the decay a group has. Kept in the group, and so in a checkpoint and through a change of
# the optimizer, since with the decay at 0 nothing else tells the groups that are never decayed.
_SHARE = "zloom_decay_share"

_MOMENTA = {"momentum", "betas"}


class WeightDecay(Steer):
    """The weight decay of the first group that has one; groups at 0 beside it stay at 0."""

    name = "weight_decay"
    annotation = Annotated[float, Meta(ge=0)]
    description = "Weight decay; groups at 0 beside others stay at 0, and proportions are kept"

    def get(self, trainer: Trainer) -> float | None:
        optimizer = sole_optimizer(trainer)
        if optimizer is None or "weight_decay" not in optimizer.defaults:
            return None
        return _reference(optimizer)

    def unsupported(self, trainer: Trainer) -> str | None:
        reason = no_sole_optimizer(trainer)
        if reason is None and "weight_decay" not in trainer.optimizers[0].defaults:
            return (
                f"{type(trainer.optimizers[0]).__name__} knows no weight decay; change optimizer_type first"
            )
        return reason

    def change(self, trainer: Trainer, value: float) -> Undo:
        groups = trainer.optimizers[0].param_groups
        before = [(group, float(group["weight_decay"]), group.get(_SHARE)) for group in groups]
        reference = _reference(trainer.optimizers[0])
        for group, decay, share in before:
            if reference:
                group[_SHARE] = decay / reference
            elif share is None:
                group[_SHARE] = 1.0
            _put(group, "weight_decay", value * group[_SHARE])

        def undo() -> None:
            for group, decay, share in before:
                _put(group, "weight_decay", decay)
                if share is None:
                    del group[_SHARE]
                else:
                    group[_SHARE] = share

        return undo


class Momentum(Steer):
    """Momentum where the optimizer has it, else the first of its betas."""

    name = "momentum"
    annotation = Annotated[float, Meta(ge=0, lt=1)]
    description = "Momentum, or the first beta of the Adam family"

    def get(self, trainer: Trainer) -> float | None:
        optimizer = sole_optimizer(trainer)
        if optimizer is None or not _MOMENTA & optimizer.defaults.keys():
            return None
        group = optimizer.param_groups[0]
        return float(group["momentum"] if "momentum" in optimizer.defaults else group["betas"][0])

    def unsupported(self, trainer: Trainer) -> str | None:
        reason = no_sole_optimizer(trainer)
        if reason is not None:
            return reason
        optimizer = trainer.optimizers[0]
        if not _MOMENTA & optimizer.defaults.keys():
            return f"{type(optimizer).__name__} has no momentum; change optimizer_type first"
        for scheduler in schedulers(trainer):
            if getattr(scheduler, "cycle_momentum", False):
                kind = type(scheduler).__name__
                return f"{kind} sets the momentum at each of its steps; give it cycle_momentum=False"
        return None

    def refusal(self, trainer: Trainer, value: float) -> str | None:
        optimizer = trainer.optimizers[0]
        if value == 0 and any(group.get("nesterov") for group in optimizer.param_groups):
            return "Nesterov's method needs a momentum above 0; start the optimizer with nesterov=False"
        return None

    def change(self, trainer: Trainer, value: float) -> Undo:
        optimizer = trainer.optimizers[0]
        key = "momentum" if "momentum" in optimizer.defaults else "betas"
        before = [(group, group[key]) for group in optimizer.param_groups]
        for group, old in before:
            group[key] = value if key == "momentum" else (value, *old[1:])
        put_buffers_back = _fit_buffers(optimizer, value)

        def undo() -> None:
            for group, old in before:
                group[key] = old
            put_buffers_back()

        return undo


def _reference(optimizer: Optimizer) -> float:
    decays = (float(group["weight_decay"]) for group in optimizer.param_groups)
    return next((decay for decay in decays if decay > 0), 0.0)


def _put(group: dict[str, Any], key: str, value: float) -> None:
    if isinstance(group[key], Tensor):
        group[key].fill_(value)
    else:
        group[key] = value


def _fit_buffers(optimizer: Optimizer, momentum: float) -> Undo:
    """Drop buffers that momentum 0 would leave to grow stale, add those that RMSprop makes only at first."""
    if not isinstance(optimizer, torch.optim.SGD | torch.optim.RMSprop):
        return lambda: None
    before = [(state, dict(state)) for state in optimizer.state.values()]
    for parameter, state in optimizer.state.items():
        if momentum == 0:
            state.pop("momentum_buffer", None)
        elif isinstance(optimizer, torch.optim.RMSprop) and state and "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)

    def undo() -> None:
        for state, old in before:
            state.clear()
            state.update(old)

    return undo
