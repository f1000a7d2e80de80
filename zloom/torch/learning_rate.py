"""`learning_rate`: the base rate, on which the schedule goes on as if it had always been that."""

from typing import Annotated, Any

from msgspec import Meta
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from zloom.torch.base import Steer, Undo, Window, undo_all
from zloom.torch.optimization import Optimization

# Where torch keeps rates: in a group (swa_lr is SWALR's) and in a scheduler, as a number or one per group.
_GROUP_RATES = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")
_SCHEDULER_RATES = ("base_lrs", "max_lrs", "min_lrs", "default_min_lr", "eta_min", "_last_lr")


class LearningRate(Steer[Optimization, Window]):
    """The base learning rate of the first group; other groups and the schedule keep their proportions.

    It is the peak of a OneCycleLR, the rate that the optimizer was made with under another scheduler, and
    else the rate itself.
    """

    name = "learning_rate"
    annotation = Annotated[float, Meta(gt=0)]
    description = "Base learning rate; the schedule and the proportions of the groups are kept"

    def get(self, subject: Optimization) -> float | None:
        optimizer = subject.optimizer
        if optimizer is None:
            return None
        return _number(optimizer.param_groups[0][_base_key(subject, optimizer)])

    def declared_type(self, subject: Optimization) -> Any:
        # A rate of 0 (all frozen) is a fact, though none that can be set.
        return self.annotation if self.get(subject) else float | None

    def unsupported(self, subject: Optimization) -> str | None:
        return subject.no_sole_optimizer()

    def refusal(self, subject: Optimization, value: float) -> str | None:
        if not self.get(subject):
            return "the base rate is 0, so no ratio leads from it; start with a rate above 0"
        return None

    def change(self, subject: Optimization, value: float) -> Undo:
        optimizer = subject.the_optimizer
        key = _base_key(subject, optimizer)
        base = _number(optimizer.param_groups[0][key])
        owners: list[tuple[dict[str, Any], tuple[str, ...]]] = [
            (group, _GROUP_RATES) for group in optimizer.param_groups
        ]
        owners += [(vars(scheduler), _SCHEDULER_RATES) for scheduler in subject.schedulers]
        undos = [_scale(owner, names, base, value) for owner, names in owners]
        return undo_all(undos)


def effective_rate(optimizer: Optimizer) -> float | Tensor:
    """Return the rate that the first group's next step uses; a tensor is not waited for."""
    rate: float | Tensor = optimizer.param_groups[0]["lr"]
    return rate


def _base_key(subject: Optimization, optimizer: Optimizer) -> str:
    found = subject.schedulers
    if any(isinstance(scheduler, OneCycleLR) for scheduler in found):
        return "max_lr"
    if not found:
        return "lr"
    # ReduceLROnPlateau alone notes no base, and after its first reduction nothing tells it any more.
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", _copy(group["lr"]))
    return "initial_lr"


def _scale(owner: dict[str, Any], names: tuple[str, ...], base: float, rate: float) -> Undo:
    before = {name: _copy(owner[name]) for name in names if owner.get(name) is not None}
    _write(owner, {name: _scaled(value, base, rate) for name, value in before.items()})
    return lambda: _write(owner, before)


def _write(owner: dict[str, Any], values: dict[str, Any]) -> None:
    for name, value in values.items():
        # A list may be shared (SequentialLR's last rates are its child's): replaced, not written into.
        if isinstance(value, list):
            owner[name] = [_put(old, new) for old, new in zip(owner[name], value, strict=True)]
        else:
            owner[name] = _put(owner[name], value)


def _put(old: Any, new: Any) -> Any:
    # A captured graph reads the tensor that it has seen.
    return old.fill_(_number(new)) if isinstance(old, Tensor) else new


def _copy(value: Any) -> Any:
    if isinstance(value, list):
        return [_copy(one) for one in value]
    return value.clone() if isinstance(value, Tensor) else value


def _scaled(value: Any, base: float, rate: float) -> Any:
    if isinstance(value, list):
        return [_scaled(one, base, rate) for one in value]
    # Rounding would leave the base itself beside the rate that was asked for, and operators are told that.
    return rate if _number(value) == base else value * (rate / base)


def _number(value: float | Tensor) -> float:
    return float(value)
