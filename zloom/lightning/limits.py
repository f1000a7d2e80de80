"""Limits and rhythms of the loop: epochs, steps, logging, clipping, accumulation."""

import math
from typing import Annotated, Any

from lightning.pytorch import Trainer
from msgspec import Meta

from zloom.lightning.schedules import outrun
from zloom.lightning.steer import Position, Steer
from zloom.lightning.surroundings import (
    calls,
    find_callback,
    has_scaler,
    is_automatic,
    overrides,
    strategy_is,
)
from zloom.torch.base import Undo, set_attributes


class MaxEpochs(Steer):
    """Epochs after which training ends. Lower than those done ends it with the epoch in progress."""

    name = "max_epochs"
    annotation = Annotated[int, Meta(ge=-1)]
    description = "Epochs after which training ends; -1 for no limit"

    def get(self, trainer: Trainer) -> int | None:
        return trainer.fit_loop.max_epochs

    def refusal(self, trainer: Trainer, value: int) -> str | None:
        return outrun(trainer, max_epochs=value)

    def change(self, trainer: Trainer, value: int) -> Undo:
        return set_attributes(trainer.fit_loop, max_epochs=value)


class MaxSteps(Steer):
    """Optimizer steps after which training ends. Not more than those done ends it after this batch."""

    name = "max_steps"
    annotation = Annotated[int, Meta(ge=-1)]
    description = "Optimizer steps after which training ends; -1 for no limit"

    def get(self, trainer: Trainer) -> int:
        return trainer.fit_loop.epoch_loop.max_steps

    def refusal(self, trainer: Trainer, value: int) -> str | None:
        return outrun(trainer, max_steps=value)

    def change(self, trainer: Trainer, value: int) -> Undo:
        return set_attributes(trainer.fit_loop.epoch_loop, max_steps=value)


class LogEveryNSteps(Steer):
    """Steps between two rows of the loggers."""

    name = "log_every_n_steps"
    annotation = Annotated[int, Meta(ge=0)]
    description = "Steps between two rows of the loggers; 0 for none"

    def get(self, trainer: Any) -> int | None:
        return trainer.log_every_n_steps  # type: ignore[no-any-return]

    def change(self, trainer: Trainer, value: int) -> Undo:
        return set_attributes(trainer, log_every_n_steps=value)


class GradientClipVal(Steer):
    """The bound to which Lightning clips gradients, of their norm or value as the Trainer was told."""

    name = "gradient_clip_val"
    annotation = Annotated[float, Meta(ge=0)] | None
    nullable = True
    description = "Bound of the gradients' norm (or value, as the Trainer was told); null or 0 for none"

    def get(self, trainer: Trainer) -> float | None:
        return trainer.gradient_clip_val

    def unsupported(self, trainer: Trainer) -> str | None:
        return _strategy_clips(trainer) or _module_clips(trainer)

    def refusal(self, trainer: Trainer, value: float | None) -> str | None:
        if value and has_scaler(trainer) and _unscales_itself(trainer):
            return (
                "the optimizer is fused and unscales gradients in its step, after clipping; "
                "make it with fused=False, or train in bf16-mixed"
            )
        return None

    def change(self, trainer: Trainer, value: float | None) -> Undo:
        return set_attributes(trainer, gradient_clip_val=value)


class AccumulateGradBatches(Steer):
    """Batches per optimizer step.

    Lightning closes a window where the number of batches done in the epoch divides by it, so it changes
    where the old and the new windows both begin: else one step would see too few or too many batches.
    """

    name = "accumulate_grad_batches"
    annotation = Annotated[int, Meta(ge=1)]
    description = "Batches per optimizer step; applies where the old and the new window both begin"

    def get(self, trainer: Trainer) -> int:
        return trainer.accumulate_grad_batches

    def unsupported(self, trainer: Trainer) -> str | None:
        scheduler = find_callback(trainer, "GradientAccumulationScheduler")
        if scheduler is not None:
            return f"the callback {scheduler} sets it at each epoch; remove it to steer accumulation"
        if strategy_is(trainer, "DeepSpeedStrategy"):
            return "DeepSpeed accumulates by itself; set gradient_accumulation_steps in its config"
        if not is_automatic(trainer):
            return (
                "in manual optimization the module accumulates by itself; mark a method with @zloom.on_config"
            )
        return None

    def refusal(self, trainer: Trainer, value: int) -> str | None:
        if value < 1:
            return f"expected 1 or more, got {value}"
        if value > 1 and any(type(one).__name__ == "LBFGS" for one in trainer.optimizers):
            return "LBFGS runs its batch several times a step; change optimizer_type first"
        return outrun(trainer, accumulate=value)

    def ready(self, position: Position, value: Any) -> bool:
        # A module's own key of this name may be of another type; where an epoch begins, every window does.
        window = value if isinstance(value, int) and value > 0 else math.inf
        return position.window_closed and position.batches_done % window == 0

    def change(self, trainer: Trainer, value: int) -> Undo:
        return set_attributes(trainer, accumulate_grad_batches=value)


def _strategy_clips(trainer: Trainer) -> str | None:
    if strategy_is(trainer, "DeepSpeedStrategy"):
        return "DeepSpeed clips by itself; set gradient_clipping in its config"
    if strategy_is(trainer, "FSDPStrategy") and trainer.gradient_clip_algorithm != "value":
        return 'FSDP cannot clip by norm from here; train with gradient_clip_algorithm="value"'
    return None


def _module_clips(trainer: Trainer) -> str | None:
    module = trainer.lightning_module
    if not is_automatic(trainer):
        return "in manual optimization the module clips by itself; mark a method with @zloom.on_config"
    if overrides(module, "configure_gradient_clipping"):
        return "the module overrides configure_gradient_clipping; mark a method with @zloom.on_config instead"
    caller = calls(module, "clip_gradients")
    if caller is not None:
        return (
            f"{caller}() of the module calls clip_gradients, which raises once the Trainer clips too; "
            "mark a method with @zloom.on_config instead"
        )
    return None


def _unscales_itself(trainer: Trainer) -> bool:
    return any(getattr(one, "_step_supports_amp_scaling", False) for one in trainer.optimizers)
