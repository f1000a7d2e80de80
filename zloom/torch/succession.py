"""One torch optimizer succeeds another over the same parameters: what goes over, and what must not."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from zloom.torch.momenta import SAID, chosen_momenta, has_momentum, momentum_of, with_momentum
from zloom.torch.origins import CARRIED, ORIGIN, copied, origin_of

# What constructors and steps of optimizers raise for parameters that they cannot take.
CANNOT_TAKE = (TypeError, ValueError, RuntimeError, KeyError, AttributeError)

State = dict[str, Any]
Maker = Callable[[list[dict[str, Any]]], Optimizer]
"""An optimizer's class: called with parameter groups."""


@dataclass(frozen=True)
class Kind:
    """What an optimizer's state depends on, apart from sizes."""

    dimensions: int
    dtype: torch.dtype
    device: torch.device
    sparse: bool


@dataclass(frozen=True)
class Rehearsal:
    """What one step of the successor showed on stand-ins of one element.

    Attributes:
        optimizer: The optimizer of the stand-ins.
        states: The state after a step, by the index of the group and the kind of parameter.
    """

    optimizer: Optimizer
    states: dict[tuple[int, Kind], State]


class Succession:
    """The change from an optimizer to one of another class.

    Args:
        old: The optimizer that trains now.
        cls: The class of its successor; its constructor must work with parameter groups alone.
        sparse: Ids of the parameters whose gradients are sparse.
    """

    def __init__(self, old: Optimizer, cls: Maker, sparse: frozenset[int] = frozenset()) -> None:
        self._old = old
        self._cls = cls
        self._sparse = sparse
        self._known = defaults_of(cls, old)
        self._name = getattr(cls, "__name__", "")
        self._momenta = chosen_momenta(old.param_groups, old.defaults)

    @property
    def loses(self) -> str | None:
        """Name what the successor cannot keep to and training depends on, or None."""
        maximizes = any(group.get("maximize") for group in self._old.param_groups)
        return "maximize" if maximizes and "maximize" not in self._known else None

    def rehearse(self) -> Rehearsal:
        """Let the successor take one step on stand-ins of the parameters, and return what it did.

        Raises:
            Exception: One of CANNOT_TAKE: the optimizer's own words on why it cannot train these parameters.
        """
        stand_ins = [
            {kind: _stand_in(kind) for kind in map(self._kind, group["params"])}
            for group in self._old.param_groups
        ]
        groups = [
            options | {"params": list(by_kind.values())}
            for options, by_kind in zip(self._options(), stand_ins, strict=True)
        ]
        optimizer = self._cls(groups)
        # LBFGS needs a closure, and the others allow one.
        optimizer.step(lambda: torch.zeros(()))  # type: ignore[arg-type,return-value]
        states = {
            (index, kind): dict(optimizer.state.get(parameter, {}))
            for index, by_kind in enumerate(stand_ins)
            for kind, parameter in by_kind.items()
        }
        return Rehearsal(optimizer, states)

    def build(self, rehearsal: Rehearsal) -> Optimizer:
        """Return the successor over the same parameters, with what it can use of their state.

        State is shared, not copied: an optimizer's state can be twice the model.
        """
        parameters = map(_parameters, self._old.param_groups)
        new = self._cls([ours | theirs for ours, theirs in zip(self._options(), parameters, strict=True)])
        for index, group in enumerate(new.param_groups):
            for parameter in group["params"]:
                template = rehearsal.states[index, self._kind(parameter)]
                state = _usable(self._old.state.get(parameter, {}), template)
                if state:
                    new.state[parameter] = state
        return new

    def _options(self) -> Iterator[dict[str, Any]]:
        """Yield the successor's options for each group."""
        for group, momentum in zip(self._old.param_groups, self._momenta, strict=True):
            # A key that the successor does not know may be a scheduler's (initial_lr, max_momentum).
            options = {
                key: copied(value)
                for key, value in group.items()
                if key not in ("params", "param_names") and self._goes_over(key, value)
            }
            origin = origin_of(group, self._old)
            options |= {ORIGIN: origin} | (origin["options"] if origin["class"] == self._name else {})
            # A training that knew no decay goes on without one, and not with its class's own.
            decay = {"weight_decay": 0.0} if "weight_decay" in self._known.keys() - group.keys() else {}
            yield options | decay | self._momentum(momentum, self._known | options)

    def _momentum(self, chosen: float | None, options: Mapping[str, Any]) -> dict[str, Any]:
        known = self._known
        if not has_momentum(known):
            return {SAID: (chosen, None)}
        momentum = momentum_of(known, known) if chosen is None else chosen
        return {SAID: (chosen, momentum)} | with_momentum(momentum, options, known)

    def _goes_over(self, key: str, value: Any) -> bool:
        if key not in self._known:
            return True
        if key == "betas":
            return len(value) == len(self._known["betas"])
        return key in CARRIED

    def _kind(self, parameter: Tensor) -> Kind:
        return Kind(parameter.dim(), parameter.dtype, parameter.device, id(parameter) in self._sparse)


def defaults_of(cls: Maker, old: Optimizer) -> dict[str, Any]:
    """Return the options that an optimizer has where its program says nothing but a rate, `old`'s.

    Raises:
        Exception: One of CANNOT_TAKE: its constructor wants more.
    """
    # Two dimensions, since Muon takes nothing else.
    parameter = torch.zeros(1, 1, requires_grad=True)
    return dict(cls([{"params": [parameter], "lr": float(old.param_groups[0]["lr"])}]).defaults)


def _parameters(group: Mapping[str, Any]) -> dict[str, Any]:
    if "param_names" in group:
        return {"params": list(zip(group["param_names"], group["params"], strict=True))}
    return {"params": list(group["params"])}


def _stand_in(kind: Kind) -> Tensor:
    parameter = torch.zeros((1,) * kind.dimensions, dtype=kind.dtype, device=kind.device, requires_grad=True)
    gradient = torch.ones_like(parameter, requires_grad=False)
    parameter.grad = gradient.to_sparse(1) if kind.sparse else gradient
    return parameter


def _usable(state: State, template: State) -> State:
    """Return what of `state` the successor keeps, or nothing unless every part is there in its form."""
    if not all(key in state and _same_form(state[key], value) for key, value in template.items()):
        return {}
    return {key: _beside(state[key], value) for key, value in template.items()}


def _same_form(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        return ours.dim() == theirs.dim()
    return type(ours) is type(theirs)


def _beside(ours: Any, theirs: Any) -> Any:
    # A step count lives on the host or on the device, as the implementation (fused or not) wants it.
    return ours.to(theirs.device) if isinstance(ours, Tensor) and ours.dim() == 0 else ours
