"""The keys and commands of one fit."""

from collections.abc import Callable
from functools import partial

from zloom.lightning.actions import SaveCheckpoint, Stop, Validate
from zloom.lightning.data import BatchSize
from zloom.lightning.limits import AccumulateGradBatches, GradientClipVal, LogEveryNSteps, MaxEpochs, MaxSteps
from zloom.lightning.optimizer import LearningRate, Momentum, OptimizerType, WeightDecay
from zloom.lightning.steer import Position, Steer
from zloom.torch.keys import Keys, declare_marked_commands
from zloom.weavelet import Weavelet

STEERS: tuple[type[Steer], ...] = (
    # In the order in which the keys of one update run: a rate is meant for the new optimizer.
    OptimizerType,
    LearningRate,
    WeightDecay,
    Momentum,
    GradientClipVal,
    AccumulateGradBatches,
    BatchSize,
    MaxEpochs,
    MaxSteps,
    LogEveryNSteps,
)


def keys_of(position: Position) -> Keys:
    """Return every key of a Trainer: Lightning's, and those that the module's methods are marked for."""
    trainer = position.trainer
    return Keys(trainer, position, [cls() for cls in STEERS], trainer.lightning_module)


class Commands:
    """Stop, checkpoint and validate, and those that the module's methods are marked for.

    Args:
        position: Where the loop stands, kept by the callback.
        weavelet: Where the commands are declared, and which holds the training in a pause.
    """

    def __init__(self, position: Position, weavelet: Weavelet) -> None:
        self._weavelet = weavelet
        self._position = position
        self._trainer = position.trainer
        self._stop, self._save, self._validate = Stop(), SaveCheckpoint(), Validate()
        self._actions: dict[str, Stop | SaveCheckpoint | Validate] = {
            action.name: action for action in (self._stop, self._save, self._validate)
        }

    def declare(self) -> None:
        """Declare all commands; a marked method takes the place of Lightning's of the same name."""
        methods: dict[str, Callable[..., str]] = {
            "stop": self.stop,
            "checkpoint": self.checkpoint,
            "validate": self.validate,
        }
        for name, action in self._actions.items():
            ready = partial(action.ready, self._position)
            self._weavelet.on_command(name, description=action.description, ready=ready)(methods[name])
        declare_marked_commands(self._weavelet, self._trainer.lightning_module)

    def stop(self, force: bool = False) -> str:
        """End the training after this batch, and a pause that it came in."""
        answer = self._stop.run(self._trainer, force=force)
        return f"{answer}; the pause is over" if self._weavelet.paused else answer

    def checkpoint(self, filename: str = "") -> str:
        """Save a checkpoint and answer with its path."""
        return self._save.run(self._trainer, filename=filename)

    def validate(self) -> str:
        """Run a validation after this batch; a pause is waited for."""
        answer = self._validate.run(self._trainer)
        return f"{answer}, when the pause is over" if self._weavelet.paused else answer

    def validation_ended(self) -> None:
        """Put the Trainer's own rhythm of validations back."""
        self._validate.validation_ended()
