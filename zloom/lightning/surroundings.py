"""What stands around the training: its strategy, callbacks, precision, module and optimizer.

Strategies and precision plugins are known by class name, subclasses included, so that none of them
needs to be installed to be recognised.
"""

from collections.abc import Iterator
from functools import lru_cache
from types import FunctionType

from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer


def strategy_is(trainer: Trainer, *names: str) -> bool:
    """Return True when the strategy's class, or one that it derives from, has one of these names."""
    return _is_a(trainer.strategy, names)


def find_callback(trainer: Trainer, *names: str) -> str | None:
    """Return the class name of the first callback that is one of these, or None."""
    found = (callback for callback in trainer.callbacks if _is_a(callback, names))  # type: ignore[attr-defined]
    return next((type(callback).__name__ for callback in found), None)


def has_scaler(trainer: Trainer) -> bool:
    """Return True when a gradient scaler stands between loss and step (precision 16-mixed)."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def is_automatic(trainer: Trainer) -> bool:
    """Return True when Lightning calls backward and step, False when the module does."""
    return trainer.lightning_module.automatic_optimization


def overrides(module: LightningModule, name: str) -> bool:
    """Return True when the module's class defines a method that LightningModule defines too."""
    return getattr(type(module), name) is not getattr(LightningModule, name)


def calls(module: LightningModule, name: str) -> str | None:
    """Return the name of the first method of the module's own classes that calls `name`, or None."""
    return next(
        (method.__name__ for method in _own_methods(module) if name in method.__code__.co_names), None
    )


def optimizers(trainer: Trainer) -> list[Optimizer]:
    """Return the optimizers; none where `configure_optimizers` returned None."""
    # Lightning puts a `_MockOptimizer` over no parameters in the place of None.
    return [optimizer for optimizer in trainer.optimizers if not _is_a(optimizer, ("_MockOptimizer",))]


def no_sole_optimizer(trainer: Trainer) -> str | None:
    """Return why one value cannot mean one optimizer, or None when there is exactly one."""
    found = optimizers(trainer)
    if len(found) == 1:
        return None
    if not found:
        return "this training has no optimizer; return one from configure_optimizers"
    names = ", ".join(type(optimizer).__name__ for optimizer in found)
    return (
        f"this training has {len(found)} optimizers ({names}) and one value cannot say which is meant; "
        "mark a method of the module with @zloom.on_config for each"
    )


def sole_optimizer(trainer: Trainer) -> Optimizer | None:
    """Return the optimizer where there is exactly one, else None."""
    found = optimizers(trainer)
    return found[0] if len(found) == 1 else None


def _is_a(thing: object, names: tuple[str, ...]) -> bool:
    return _derives(type(thing), names)  # type: ignore[arg-type]  # a class is hashable: mypy issue 11470


@lru_cache
def _derives(kind: type, names: tuple[str, ...]) -> bool:
    # Asked in each step, of few classes.
    return any(base.__name__ in names for base in kind.__mro__)


def _own_methods(module: LightningModule) -> Iterator[FunctionType]:
    for base in type(module).__mro__:
        if base is LightningModule:
            return
        yield from (member for member in vars(base).values() if isinstance(member, FunctionType))
