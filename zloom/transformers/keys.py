"""The keys of a Hugging Face Trainer, beside those of its optimizer."""

from typing import Annotated, Any

from msgspec import Meta
from torch import nn
from torch.optim import Optimizer
from transformers import TrainerControl, TrainerState, TrainingArguments

from zloom.torch import loop
from zloom.torch.base import Steer, Undo, set_attributes
from zloom.torch.loop import LoopOptimization


class Training(LoopOptimization):
    """One `train()`: what its callbacks are given, and where its loop stands.

    Args:
        args: The Trainer's arguments, some of which it reads at each step.
        state: Its state, with the steps that it has trained.
        control: The wishes that it looks at after each step.
        optimizer: As Accelerate wrapped it.
        scheduler: On that optimizer.
        model: That it trains.
    """

    window_closed = True
    """Callbacks are called with gradients pending too, but the safe points are not there."""

    def __init__(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Optimizer,
        scheduler: Any,
        model: nn.Module,
    ) -> None:
        super().__init__(optimizer, [] if scheduler is None else [scheduler], model)
        self.args, self.state, self.control = args, state, control
        self.planned_steps: int = state.max_steps
        self.own_type = type(self._optimizer)
        self.step_ended = False
        """The safe point is the end of a step, not its beginning."""

    @property
    def type_changed(self) -> bool:
        """Whether the optimizer is of another class than the Trainer makes."""
        return type(self._optimizer) is not self.own_type

    @property
    def optimizer(self) -> Optimizer | None:
        return None if self.args.deepspeed else self._optimizer

    def no_sole_optimizer(self) -> str | None:
        if self.args.deepspeed:
            return "DeepSpeed owns the optimizer; train with another backend to steer it"
        return None

    def no_other_type(self) -> str | None:
        if self.args.save_strategy != "no" and not self.args.save_only_model:
            return (
                "the Trainer restores an optimizer before any callback can change its class, so it could not "
                'go on from its checkpoints; train with save_only_model=True or save_strategy="no"'
            )
        return super().no_other_type()


class GradientClipVal(Steer[Training, Training]):
    """The bound of the gradients' norm; `max_grad_norm` of the arguments."""

    name = "gradient_clip_val"
    annotation = Annotated[float, Meta(ge=0)]
    description = "Bound of the gradients' norm (max_grad_norm); 0 for none"

    def get(self, subject: Training) -> float | None:
        norm = subject.args.max_grad_norm
        return None if norm is None else float(norm)

    def unsupported(self, subject: Training) -> str | None:
        if subject.args.deepspeed:
            return "DeepSpeed clips by itself; set gradient_clipping in its config"
        return None

    def change(self, subject: Training, value: float) -> Undo:
        return set_attributes(subject.args, max_grad_norm=value)


class MaxSteps(Steer[Training, Training]):
    """Steps after which training ends. Not more than those done ends it with the next."""

    name = "max_steps"
    annotation = Annotated[int, Meta(ge=1)]
    description = "Optimizer steps after which training ends; at most those that it was started for"

    def get(self, subject: Training) -> int:
        return int(subject.state.max_steps)

    def refusal(self, subject: Training, value: int) -> str | None:
        if value > subject.planned_steps:
            return (
                f"expected at most {subject.planned_steps}, got {value}: the Trainer has laid out its epochs "
                "and its schedule for so many; start it again with a larger max_steps"
            )
        return None

    def change(self, subject: Training, value: int) -> Undo:
        return set_attributes(subject.state, max_steps=value)


class LogEveryNSteps(Steer[Training, Training]):
    """Steps between two logs; `logging_steps` of the arguments."""

    name = "log_every_n_steps"
    annotation = Annotated[int, Meta(ge=1)]
    description = "Steps between two logs (logging_steps)"

    def get(self, subject: Training) -> int:
        return int(subject.state.logging_steps)

    def unsupported(self, subject: Training) -> str | None:
        if subject.args.logging_strategy != "steps":
            return 'this training does not log by steps; train with logging_strategy="steps"'
        return None

    def change(self, subject: Training, value: int) -> Undo:
        return set_attributes(subject.state, logging_steps=value)


STEERS: tuple[type[Steer[Any, Any]], ...] = (*loop.STEERS, GradientClipVal, MaxSteps, LogEveryNSteps)
