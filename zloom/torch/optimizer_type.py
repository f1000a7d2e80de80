"""`optimizer_type`: another optimizer over the same parameters, while the schedule goes on."""

from typing import Any, ClassVar, Literal

import torch
from torch.optim import Optimizer

from zloom.torch.base import Steer, Undo, Window
from zloom.torch.optimization import Optimization
from zloom.torch.succession import CANNOT_TAKE, Succession


def torch_optimizers() -> dict[str, type[Optimizer]]:
    """Return the optimizers of the installed torch by name: the class's in lower case."""
    found = (thing for thing in vars(torch.optim).values() if isinstance(thing, type))
    return {cls.__name__.lower(): cls for cls in found if issubclass(cls, Optimizer) and cls is not Optimizer}


class OptimizerType(Steer[Optimization, Window]):
    """The class of the only optimizer.

    A class that is not torch's is a choice too, under its lower-case name, once it was seen in `get`.
    """

    name = "optimizer_type"
    annotation: ClassVar[Any] = Literal[tuple(torch_optimizers())]
    description = (
        "Class of the optimizer; parameters, learning rate, weight decay, momentum and schedule go over"
    )

    def __init__(self) -> None:
        self._choices = torch_optimizers()

    def get(self, subject: Optimization) -> str | None:
        optimizer = subject.optimizer
        if optimizer is None:
            return None
        cls = type(optimizer)
        self._choices[cls.__name__.lower()] = cls
        return cls.__name__.lower()

    def declared_type(self, subject: Optimization) -> Any:
        now = self.get(subject)
        names: Any = Literal[tuple(self._choices)]
        return names if now is not None else names | None

    def unsupported(self, subject: Optimization) -> str | None:
        return subject.no_other_type() or subject.no_sole_optimizer()

    def refusal(self, subject: Optimization, value: str) -> str | None:
        if value not in self._choices:
            return f"{value!r} is none of {', '.join(self._choices)}"
        old, cls = subject.the_optimizer, self._choices[value]
        if cls is type(old):
            return None
        if issubclass(cls, torch.optim.LBFGS) and (reason := subject.no_lbfgs()):
            return reason
        if issubclass(cls, torch.optim.RMSprop) and (cycling := subject.momentum_cycler):
            # It makes them at its first step and only where the momentum is not 0 then.
            reason = f"{cycling} would set a momentum that RMSprop has no buffers for"
            return f"{reason}; give it cycle_momentum=False"
        try:
            succession = _succession(subject, cls)
            if succession.loses:
                return f"{cls.__name__} does not know {succession.loses}=True, which {type(old).__name__} has"
            return subject.clash(succession.rehearse().optimizer)
        except CANNOT_TAKE as error:
            return f"{cls.__name__} cannot train these parameters: {error}"

    def ready(self, position: Window, value: Any) -> bool:
        return position.window_closed

    def change(self, subject: Optimization, value: str) -> Undo:
        old, cls = subject.the_optimizer, self._choices[value]
        if cls is type(old):
            return lambda: None
        succession = _succession(subject, cls)
        return subject.install(succession.build(succession.rehearse()))


def _succession(subject: Optimization, cls: type[Optimizer]) -> Succession:
    return Succession(subject.the_optimizer, cls, subject.sparse_parameters)
