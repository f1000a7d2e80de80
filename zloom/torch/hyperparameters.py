"""`weight_decay` and `momentum` of the only optimizer."""

from collections.abc import Iterable
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor
from torch.optim import Optimizer

from zloom.torch.base import Steer, Undo, Window
from zloom.torch.momenta import SAID, chosen_momenta, has_momentum, is_same, momentum_of, write_momentum
from zloom.torch.optimization import Optimization
from zloom.torch.origins import ORIGIN, origin_of
from zloom.torch.succession import CANNOT_TAKE, defaults_of

# Which part of the decay a group has. Kept in the group, and so in a checkpoint and through a change of
# the optimizer, since with the decay at 0 nothing else tells the groups that are never decayed.
_SHARE = "zloom_decay_share"

_ABSENT = object()


class WeightDecay(Steer[Optimization, Window]):
    """The weight decay of the first group that has one; groups at 0 beside it stay at 0."""

    name = "weight_decay"
    annotation = Annotated[float, Meta(ge=0)] | None
    description = (
        "Weight decay; null or 0 for none; groups at 0 beside others stay at 0, and proportions are kept"
    )
    nullable = True

    def get(self, subject: Optimization) -> float | None:
        optimizer = subject.optimizer
        # Also one that is kept for the next class that knows it.
        if optimizer is None or not any("weight_decay" in group for group in optimizer.param_groups):
            return None
        return _reference(optimizer)

    def unsupported(self, subject: Optimization) -> str | None:
        return subject.no_sole_optimizer()

    def note(self, subject: Optimization) -> str:
        optimizer = subject.the_optimizer
        if "weight_decay" in optimizer.defaults:
            return ""
        return f"{type(optimizer).__name__} knows no weight decay; it is kept for the next that does"

    def change(self, subject: Optimization, value: float | None) -> Undo:
        optimizer = subject.the_optimizer
        groups = optimizer.param_groups
        undo = _remember(groups, "weight_decay", _SHARE)
        if value is None and "weight_decay" not in optimizer.defaults:
            for group in groups:
                group.pop("weight_decay", None)
                group.pop(_SHARE, None)
            return undo
        reference = _reference(optimizer)
        for group in groups:
            if reference:
                group[_SHARE] = _decay(group) / reference
            share = group.setdefault(_SHARE, 1.0)
            _put(group, "weight_decay", (value or 0.0) * share)
        return undo


class Momentum(Steer[Optimization, Window]):
    """Momentum where the optimizer has it, else the first of its betas.

    None is the one that a class has by itself, of whatever class the optimizer comes to be.
    """

    name = "momentum"
    annotation = Annotated[float, Meta(ge=0, lt=1)] | None
    description = "Momentum, or the first beta of the Adam family; null for that of the class itself"
    nullable = True

    def get(self, subject: Optimization) -> float | None:
        optimizer = subject.optimizer
        if optimizer is None:
            return None
        return chosen_momenta(optimizer.param_groups, optimizer.defaults)[0]

    def unsupported(self, subject: Optimization) -> str | None:
        reason = subject.no_sole_optimizer()
        if reason is None and (cycler := subject.momentum_cycler):
            return f"{cycler} sets the momentum at each of its steps; give it cycle_momentum=False"
        return reason

    def note(self, subject: Optimization) -> str:
        optimizer = subject.the_optimizer
        if has_momentum(optimizer.defaults):
            return ""
        return f"{type(optimizer).__name__} has no momentum; it is kept for the next that has"

    def change(self, subject: Optimization, value: float | None) -> Undo:
        optimizer = subject.the_optimizer
        known, groups = optimizer.defaults, optimizer.param_groups
        forget = _remember(groups, SAID, ORIGIN)
        chosen = _of_groups(optimizer, value)
        if not has_momentum(known):
            for group, momentum in zip(groups, chosen, strict=True):
                group[SAID] = (momentum, None)
            return forget
        before = [momentum_of(group, known) for group in groups]
        own = _of_class(optimizer) if value is None else value
        for group, momentum in zip(groups, chosen, strict=True):
            written = own if momentum is None else momentum
            write_momentum(written, group, known)
            group[SAID] = (momentum, written)
        put_buffers_back = _fit_buffers(optimizer, momentum_of(groups[0], known))

        def undo() -> None:
            for group, old in zip(groups, before, strict=True):
                write_momentum(old, group, known)
            forget()
            put_buffers_back()

        return undo


def _of_groups(optimizer: Optimizer, momentum: float | None) -> list[float | None]:
    """Return the momentum of each group, and note in each what the program made it with.

    All have the same, but where the first gets that of the program: then all do.
    """
    origins = []
    for group in optimizer.param_groups:
        group[ORIGIN] = origin_of(group, optimizer)
        origins.append(group[ORIGIN]["momentum"])
    if momentum is None or origins[0] is None or not is_same(momentum, origins[0]):
        return [momentum] * len(origins)
    return origins


def _of_class(optimizer: Optimizer) -> float:
    try:
        known = defaults_of(type(optimizer), optimizer)
    except CANNOT_TAKE:  # so the program's is the only one that can be known
        known = optimizer.defaults
    return momentum_of(known, known)


def _reference(optimizer: Optimizer) -> float:
    decays = (_decay(group) for group in optimizer.param_groups)
    return next((decay for decay in decays if decay > 0), 0.0)


def _decay(group: dict[str, Any]) -> float:
    return float(group.get("weight_decay", 0.0))


def _remember(groups: Iterable[dict[str, Any]], *options: str) -> Undo:
    """Return how to put these options of the groups back."""
    before = [
        (group, option, float(value) if isinstance(value := group.get(option, _ABSENT), Tensor) else value)
        for group in groups
        for option in options
    ]

    def undo() -> None:
        for group, option, value in before:
            if value is _ABSENT:
                group.pop(option, None)
            else:
                _put(group, option, value)

    return undo


def _put(group: dict[str, Any], option: str, value: Any) -> None:
    if isinstance(group.get(option), Tensor):
        group[option].fill_(value)
    else:
        group[option] = value


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
