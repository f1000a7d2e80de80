"""What the program made its optimizer with, kept in the parameter groups while operators change it.

Who goes back to the program's own values, or is restarted and begins with them, is to train as all others do.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from zloom.torch.momenta import has_momentum, momentum_of

ORIGIN = "zloom_origin"
"""The option of a group that has it, from the first change on."""

CARRIED = frozenset({"lr", "weight_decay", "betas", "maximize"})
"""Hyper-parameters that mean the same wherever they exist, so that they go over to any class. Others (eps,
alpha) share a name at most, and the momentum has several names. `maximize` is no choice of an optimizer but
of the loss. Implementations (foreach, fused, capturable) are a class's own."""


def origin_of(group: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return what the program made this group of an optimizer with.

    Returns:
        `class`, the name of the optimizer's; `options` that do not go over to other classes; `momentum`, None
        where the class has none.
    """
    if ORIGIN in group:
        kept: dict[str, Any] = group[ORIGIN]
        return kept
    known = optimizer.defaults
    own = known.keys() & group.keys() - CARRIED - {"momentum"}
    return {
        "class": type(optimizer).__name__,
        "options": {name: copied(group[name]) for name in own},
        "momentum": momentum_of(group, known) if has_momentum(known) else None,
    }


def copied(value: Any) -> Any:
    """Return an option's value, which nobody changes in place."""
    if isinstance(value, tuple):
        return tuple(map(copied, value))  # betas
    return value.clone() if isinstance(value, Tensor) else value
