"""The keys and commands of one fit: declared on a weavelet, remembered in the checkpoint."""

from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any

from lightning.pytorch import Trainer

from zloom.errors import CannotSteer
from zloom.lightning.actions import SaveCheckpoint, Stop, Validate
from zloom.lightning.data import BatchSize
from zloom.lightning.hyperparameters import Momentum, WeightDecay
from zloom.lightning.learning_rate import LearningRate
from zloom.lightning.limits import AccumulateGradBatches, GradientClipVal, LogEveryNSteps, MaxEpochs, MaxSteps
from zloom.lightning.optimizer import OptimizerType
from zloom.lightning.steer import Position, Steer, Undo
from zloom.markers import CommandMarker, ConfigMarker, find_marked
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

# Kept by Lightning itself in a checkpoint, with the optimizer and its schedulers.
_IN_THE_OPTIMIZER = frozenset({"learning_rate", "weight_decay", "momentum"})

# What must be as it was before Lightning restores the optimizer, or checks the epoch.
_BEFORE_RESTORE = frozenset({"optimizer_type", "max_epochs", "max_steps"})


class Keys:
    """Every key that a training can steer: Lightning's, and those that the module's methods are marked for.

    A marked method takes the place of Lightning's key of the same name.

    Args:
        position: Where the loop stands, kept by the callback.
    """

    def __init__(self, position: Position) -> None:
        self._position = position
        self._trainer = position.trainer
        self._steers = {cls.name: cls() for cls in STEERS}
        self._marked = _marked_keys(self._trainer)
        self._steered: dict[str, dict[str, Any]] = {}

    def declare(self, weavelet: Weavelet) -> None:
        """Declare all keys, with the values now as baselines. Call when optimizer and loader are there."""
        for name, steer in self._steers.items():
            weavelet.on_config(
                name,
                get=partial(steer.get, self._trainer),
                type=steer.declared_type(self._trainer),
                description=steer.description,
                ready=partial(self._is_ready, steer),
            )(partial(self._apply, name))
        # One that is declared again keeps its place: a module's own optimizer_type runs before the rate too.
        for name, (marker, method) in self._marked.items():
            weavelet.on_config(
                name,
                get=partial(self._baseline, name),
                description=marker.description,
                ready=partial(self._is_marked_ready, name),
            )(self._like(method, name))

    @property
    def steered(self) -> dict[str, dict[str, Any]]:
        """What was steered, for a checkpoint: by key, the value and the one that stood in its place."""
        return {name: dict(entry) for name, entry in self._steered.items()}

    def resume_before_restore(self, steered: Mapping[str, Mapping[str, Any]]) -> None:
        """Repeat what a checkpoint's optimizer depends on; in `on_fit_start`.

        Raises:
            CannotSteer: A value of the checkpoint is impossible now; the optimizer could not be restored.
        """
        self._steers["optimizer_type"].get(self._trainer)
        self._repeat({name: entry for name, entry in steered.items() if name in _BEFORE_RESTORE})

    def resume(self, steered: Mapping[str, Mapping[str, Any]]) -> None:
        """Repeat the rest, save for what Lightning has restored with the optimizer; in `on_train_start`.

        Raises:
            CannotSteer: A value of the checkpoint is impossible now.
        """
        rest = {name: entry for name, entry in steered.items() if name not in _BEFORE_RESTORE}
        restored = {name: dict(entry) for name, entry in rest.items() if name in self._restored_by_lightning}
        self._steered.update(restored)
        self._repeat({name: entry for name, entry in rest.items() if name not in restored})

    @property
    def _restored_by_lightning(self) -> frozenset[str]:
        return _IN_THE_OPTIMIZER - self._marked.keys()

    def _repeat(self, steered: Mapping[str, Mapping[str, Any]]) -> None:
        for name, entry in steered.items():
            known = name in self._steers or name in self._marked
            # Where the program now says something else than it did, its author has the last word. The type of
            # the optimizer is no such choice: the checkpoint's state is of the type that was steered to.
            if known and (name == "optimizer_type" or self._value(name) == entry["before"]):
                self._apply_again(name, entry["value"])
                self._steered[name] = dict(entry)

    def _apply_again(self, name: str, value: Any) -> None:
        try:
            self._apply(name, value)
        except CannotSteer as error:
            raise CannotSteer(f"{name} cannot be {value!r} again, as in the checkpoint: {error}") from error

    def _value(self, name: str) -> Any:
        if name not in self._marked:
            return self._steers[name].get(self._trainer)
        marker, method = self._marked[name]
        owner = method.__self__  # type: ignore[attr-defined]
        return marker.get(owner) if marker.get is not None else marker.initial

    def _baseline(self, name: str) -> Any:
        # What `initial` says was true when the program began; a checkpoint may have repeated another value.
        resumed = self._steered.get(name)
        return self._value(name) if resumed is None else resumed["value"]

    def _apply(self, name: str, value: Any) -> Undo | None:
        before = self._steered.get(name, {"before": self._value(name)})["before"]
        undo = self._change(name, value)
        noted = self._steered.get(name)
        self._steered[name] = {"value": value, "before": before}
        if undo is None:
            return None

        def take_back() -> None:
            undo()
            self._steered.pop(name)
            if noted is not None:
                self._steered[name] = noted

        return take_back

    def _like(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        # Its annotation, from which the key's type is read, is the method's.
        @wraps(method)
        def handler(value: Any) -> Undo | None:
            return self._apply(name, value)

        return handler

    def _change(self, name: str, value: Any) -> Undo | None:
        if name not in self._marked:
            return self._steers[name].apply(self._trainer, value)
        undo = self._marked[name][1](value)
        return undo if callable(undo) else None

    def _is_ready(self, steer: Steer, value: Any) -> bool:
        # What will be refused need not wait for its place.
        return steer.unsupported(self._trainer) is not None or steer.ready(self._position, value)

    def _is_marked_ready(self, name: str, value: Any) -> bool:
        marker, method = self._marked[name]
        if marker.ready is not None:
            return marker.ready(method.__self__, value)  # type: ignore[attr-defined]
        steer = self._steers.get(name)
        return steer is None or steer.ready(self._position, value)


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
        for marker, method in _marked(self._trainer):
            if isinstance(marker, CommandMarker):
                self._weavelet.on_command(marker.name, description=marker.description)(method)

    def stop(self, force: bool = False) -> str:
        """End the training after this batch, and a pause that it came in."""
        answer = self._stop.run(self._trainer, force=force)
        if not self._weavelet.paused:
            return answer
        self._weavelet.end_pause()
        return f"{answer}; the pause is over"

    def checkpoint(self, filename: str = "") -> str:
        """Save a checkpoint and answer with its path."""
        return self._save.run(self._trainer, filename=filename)

    def validate(self) -> str:
        """Run a validation after this batch."""
        return self._validate.run(self._trainer)

    def validation_ended(self) -> None:
        """Put the Trainer's own rhythm of validations back."""
        self._validate.validation_ended()


def _marked(trainer: Trainer) -> list[tuple[Any, Callable[..., Any]]]:
    return find_marked(trainer.lightning_module)


def _marked_keys(trainer: Trainer) -> dict[str, tuple[ConfigMarker, Callable[..., Any]]]:
    return {
        marker.key: (marker, method)
        for marker, method in _marked(trainer)
        if isinstance(marker, ConfigMarker)
    }
