"""`weight_decay` and `momentum` of the only optimizer."""

from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor
from torch.optim import Optimizer

from zloom.torch.base import Steer, Undo, Window
from zloom.torch.optimization import Optimization

# Which part of the decay a group has. Kept in the group, and so in a checkpoint and through a change of
# the optimizer, since with the decay at 0 nothing else tells the groups that are never decayed.
_SHARE = "zloom_decay_share"

_MOMENTA = {"momentum", "betas"}


class WeightDecay(Steer[Optimization, Window]):
    """The weight decay of the first group that has one; groups at 0 beside it stay at 0."""

    name = "weight_decay"
    annotation = Annotated[float, Meta(ge=0)]
    description = "Weight decay; groups at 0 beside others stay at 0, and proportions are kept"

    def get(self, subject: Optimization) -> float | None:
        optimizer = subject.optimizer
        if optimizer is None or "weight_decay" not in optimizer.defaults:
            return None
        return _reference(optimizer)

    def unsupported(self, subject: Optimization) -> str | None:
        reason = subject.no_sole_optimizer()
        if reason is None and "weight_decay" not in subject.the_optimizer.defaults:
            return (
                f"{type(subject.the_optimizer).__name__} knows no weight decay; change optimizer_type first"
            )
        return reason

    def change(self, subject: Optimization, value: float) -> Undo:
        groups = subject.the_optimizer.param_groups
        before = [(group, float(group["weight_decay"]), group.get(_SHARE)) for group in groups]
        reference = _reference(subject.the_optimizer)
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


class Momentum(Steer[Optimization, Window]):
    """Momentum where the optimizer has it, else the first of its betas."""

    name = "momentum"
    annotation = Annotated[float, Meta(ge=0, lt=1)]
    description = "Momentum, or the first beta of the Adam family"

    def get(self, subject: Optimization) -> float | None:
        optimizer = subject.optimizer
        if optimizer is None or not _MOMENTA & optimizer.defaults.keys():
            return None
        group = optimizer.param_groups[0]
        return float(group["momentum"] if "momentum" in optimizer.defaults else group["betas"][0])

    def unsupported(self, subject: Optimization) -> str | None:
        reason = subject.no_sole_optimizer()
        if reason is not None:
            return reason
        optimizer = subject.the_optimizer
        if not _MOMENTA & optimizer.defaults.keys():
            return f"{type(optimizer).__name__} has no momentum; change optimizer_type first"
        if cycler := subject.momentum_cycler:
            return f"{cycler} sets the momentum at each of its steps; give it cycle_momentum=False"
        return None

    def refusal(self, subject: Optimization, value: float) -> str | None:
        optimizer = subject.the_optimizer
        if value == 0 and any(group.get("nesterov") for group in optimizer.param_groups):
            return "Nesterov's method needs a momentum above 0; start the optimizer with nesterov=False"
        return None

    def change(self, subject: Optimization, value: float) -> Undo:
        optimizer = subject.the_optimizer
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
