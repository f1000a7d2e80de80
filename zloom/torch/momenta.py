"""The momentum of an optimizer: an option of some classes, the first of the betas of others, none of more."""

from collections.abc import Container, Mapping
from typing import Any

SAID = "zloom_momentum"
"""The option of a parameter group that holds the momentum that somebody chose, an operator or the program, or
None where each optimizer is to have its class's own. Kept in the group, and so in a checkpoint and through
optimizers that have none; one that the program made has no such option."""

Options = Mapping[str, Any]
"""Of a parameter group, or of an optimizer where a group says nothing."""


def has_momentum(options: Container[str]) -> bool:
    """Tell whether an optimizer with these options has a momentum."""
    return "momentum" in options or "betas" in options


def momentum_of(options: Options, known: Container[str]) -> float:
    """Return the momentum that these options say.

    Args:
        options: Of a group, where those of optimizers before may still be.
        known: The names of the options of its optimizer, which has a momentum.
    """
    return float(options["momentum"] if "momentum" in known else options["betas"][0])


def chosen_momentum(group: Options, known: Container[str]) -> float | None:
    """Return the momentum that somebody chose for this group, None where it is the class's own.

    A `momentum` of 0, which SGD and RMSprop have by themselves, is no choice: it would take from Adam or Muon
    what makes them so.
    """
    if SAID in group:
        chosen: float | None = group[SAID]
        return chosen
    if not has_momentum(known):
        return None
    momentum = momentum_of(group, known)
    return None if momentum == 0 and "momentum" in known else momentum


def with_momentum(momentum: float, options: Options, known: Container[str]) -> dict[str, Any]:
    """Return the option that makes this the momentum of a group, beside its other options.

    Args:
        momentum: It.
        options: What the group says of its betas.
        known: The names of the options of its optimizer, which has a momentum.
    """
    if "momentum" in known:
        return {"momentum": momentum}
    return {"betas": (momentum, *options["betas"][1:])}
