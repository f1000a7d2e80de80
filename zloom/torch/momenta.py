"""The momentum of an optimizer: an option of some classes, the first of the betas of others, none of more."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

SAID = "zloom_momentum"
"""The option of a parameter group that says which momentum somebody chose, and which was written for it. The
first is None where each optimizer is to have its class's own, the second where the class has none. Kept in
the group, and so in a checkpoint and through optimizers without momentum; the program's own has none."""

Options = Mapping[str, Any]
"""Of a parameter group, or those that an optimizer was made with (`defaults`)."""


def has_momentum(known: Options) -> bool:
    """Tell whether an optimizer that was made with these options has a momentum."""
    return known.get("momentum") is not None or bool(known.get("betas"))


def momentum_of(group: Options, known: Options) -> float:
    """Return the momentum that trains.

    Args:
        group: Its options, where those of optimizers before may still be.
        known: Those that its optimizer was made with, which has a momentum.
    """
    return float(group["momentum"] if "momentum" in known else group["betas"][0])


def chosen_momenta(groups: Sequence[Options], known: Options) -> list[float | None]:
    """Return the momentum that somebody chose for each group, None where it is the class's own.

    A `momentum` of 0 everywhere, which SGD and RMSprop have by themselves, is no choice: it would take from
    Adam or Muon what makes them so.

    Args:
        groups: Of one optimizer.
        known: The options that it was made with.
    """
    if not has_momentum(known):
        return [group[SAID][0] if SAID in group else None for group in groups]
    momenta = [momentum_of(group, known) for group in groups]
    by_itself = known.get("momentum") == 0 and not any(momenta)
    return [
        group[SAID][0] if _is_said(group, momentum) else None if by_itself else momentum
        for group, momentum in zip(groups, momenta, strict=True)
    ]


def _is_said(group: Options, momentum: float) -> bool:
    # What a schedule or the program has written since then is the newer word.
    _, written = group.get(SAID, (None, None))
    return written is not None and is_same(written, momentum)


def is_same(one: float, other: float) -> bool:
    """Tell whether two momenta are one, which a tensor may have rounded."""
    return math.isclose(one, other, rel_tol=1e-6)


def with_momentum(momentum: float, options: Options, known: Options) -> dict[str, Any]:
    """Return the option that makes this the momentum of a group.

    Args:
        momentum: It.
        options: Of the group, with its betas.
        known: Those that its optimizer was made with, which has a momentum.
    """
    if "momentum" in known:
        return {"momentum": momentum}
    first, *others = options["betas"]
    return {"betas": (torch.full_like(first, momentum) if isinstance(first, Tensor) else momentum, *others)}


def write_momentum(momentum: float, group: dict[str, Any], known: Options) -> None:
    """Make this the momentum of a group, in place where it is a tensor: a captured graph reads it there."""
    now = group["momentum"] if "momentum" in known else group["betas"][0]
    if isinstance(now, Tensor):
        now.fill_(momentum)
    else:
        group.update(with_momentum(momentum, group, known))
