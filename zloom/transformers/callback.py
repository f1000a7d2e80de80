"""`WeaveletCallback`: makes the training of a Hugging Face Trainer steerable."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from zloom.errors import CannotSteer
from zloom.model import Phase
from zloom.settings import WeaveletSettings
from zloom.torch.keys import Keys, declare_marked_commands
from zloom.torch.learning_rate import effective_rate
from zloom.transformers.keys import STEERS, Training
from zloom.weavelet import CONFIG_WAIT, Weavelet

# Beside the states of callbacks in `trainer_state.json`. Not the class's name, under which the Trainer would
# look for arguments to make another callback with.
_STATE = "zloom"

_NOT_IN_THE_MODEL = ("learning_rate", "weight_decay", "momentum")
"""Restored with the optimizer, which a checkpoint of `save_only_model` lacks."""


class WeaveletCallback(TrainerCallback):
    """Lets operators steer the training, and reports what the Trainer logs.

    Its keys are `optimizer_type`, `learning_rate`, `weight_decay`, `momentum`, `gradient_clip_val`,
    `max_steps` and `log_every_n_steps`; its commands `pause`, `resume`, `stop`, `checkpoint` and
    `validate`. A model adds its own, or replaces one of these, by a method marked with
    `@zloom.on_config(...)` or `@zloom.on_command(...)`. What was steered is kept in checkpoints, and holds
    again when `train` resumes.

    Training never waits for the broker, save for 2 seconds at its start. Nothing is alive before `train`.
    The Trainer tells no callback of an exception: one that nobody catches is told when the process ends, and
    after one that was caught, call `close`.

    Args:
        run: Name of the training job, chosen by its user.
        broker: The broker's endpoint; left out, $ZLOOM_BROKER, else the socket in the user's runtime folder.
        attempt: Name of this launch; left out, it is found or made.
        inherit: Begin with the newest config of the run's last attempt in place of the trainer's own values,
            or of those that a checkpoint holds.
        settings: zloom's own options.
    """

    def __init__(
        self,
        run: str,
        *,
        broker: str | None = None,
        attempt: str | None = None,
        inherit: bool = False,
        settings: WeaveletSettings | None = None,
    ) -> None:
        self._run = run
        self._broker = broker
        self._attempt = attempt
        self._inherit = inherit
        self._settings = settings
        self._steering: _Steering | None = None

    @property
    def weavelet(self) -> Weavelet | None:
        """The weavelet of the training that is under way, for `publish`, `report` and more; None outside."""
        return None if self._steering is None else self._steering.weavelet

    def close(self, reason: str = "finished") -> None:
        """Say goodbye, where the Trainer does not call `on_train_end`; a second call does nothing."""
        if self._steering is not None:
            steering, self._steering = self._steering, None
            steering.weavelet.close(reason)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: Any,
        optimizer: Any,
        lr_scheduler: Any,
        **_: Any,
    ) -> None:
        """Connect, and declare what can be steered."""
        self.close("replaced by another training")
        training = Training(args, state, control, optimizer, lr_scheduler, model)
        weavelet = Weavelet(
            self._run,
            broker=self._broker,
            rank=args.process_index,
            world_size=args.world_size,
            attempt=self._attempt,
            inherit=self._inherit,
            resumed=state.global_step > 0 and not self._inherit,
            pause_ready=lambda: training.step_ended,
            settings=self._settings,
        )
        self._steering = _Steering(weavelet, training)
        self._steering.begin()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Count a step and carry out what is due."""
        if self._steering is not None:
            self._steering.step_begins()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Carry out what waits for the end of a step; the Trainer then stops, saves or evaluates."""
        if self._steering is not None:
            self._steering.step_ended(control)
        return control

    def on_log(self, *_: Any, logs: Mapping[str, Any], **__: Any) -> None:
        """Report what is logged."""
        if self._steering is not None:
            numbers = {name: value for name, value in logs.items() if isinstance(value, int | float)}
            self._steering.weavelet.report(**numbers)

    def on_prediction_step(self, *_: Any, **__: Any) -> None:
        """Tell the phase: nothing says that an evaluation begins."""
        if self._steering is not None:
            self._steering.enter("validating")

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell the phase."""
        if self._steering is not None:
            self._steering.enter("saving" if control.should_save else "training")

    def on_save(self, *_: Any, **__: Any) -> None:
        """Tell the phase."""
        if self._steering is not None:
            self._steering.enter("training")

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Say goodbye."""
        self.close()


class _Steering:
    """What is alive during one training."""

    def __init__(self, weavelet: Weavelet, training: Training) -> None:
        self.weavelet = weavelet
        self._training = training
        self._keys = Keys(training, training, [cls() for cls in STEERS], training.module)
        self._phase: Phase = "training"

    def begin(self) -> None:
        self.weavelet.start()
        resumed = self._resumed()
        self._keys.resume_before_restore(resumed)
        self._keys.resume(resumed)
        self._keys.declare(self.weavelet)
        self._declare_commands()
        self.weavelet.wait_for_config(CONFIG_WAIT)

    def step_begins(self) -> None:
        self.enter("training")
        self._training.step_ended = False
        self.weavelet.tick(self._training.state.global_step + 1)

    def step_ended(self, control: TrainerControl) -> None:
        training = self._training
        rate = (
            {}
            if training.optimizer is None
            else {"effective_learning_rate": effective_rate(training.optimizer)}
        )
        self.weavelet.report(**rate)
        training.control, training.step_ended = control, True
        self.weavelet.safe_point(trained=True)
        if self._keys.steered:
            training.state.stateful_callbacks[_STATE] = {"attributes": {"steered": self._keys.steered}}
        if control.should_evaluate or control.should_save:
            self.enter("validating" if control.should_evaluate else "saving")

    def enter(self, phase: Phase) -> None:
        if phase != self._phase:
            self._phase = phase
            self.weavelet.phase(phase)

    # --- commands -------------------------------------------------------------------------------------

    def stop(self) -> str:
        """End the training after this step, and a pause that it came in."""
        self._training.control.should_training_stop = True
        return "stops after this step" + ("; the pause is over" if self.weavelet.paused else "")

    def checkpoint(self) -> str:
        """Save a checkpoint after this step, and answer with its path; a pause is waited for."""
        args, state = self._training.args, self._training.state
        if self._training.type_changed and not args.save_only_model:
            raise CannotSteer(
                "the Trainer could not go on from it, since it makes an optimizer of another type; "
                "train with save_only_model=True"
            )
        self._training.control.should_save = True
        return os.path.abspath(os.path.join(args.output_dir, f"checkpoint-{state.global_step}"))

    def validate(self) -> str:
        """Evaluate after this step; a pause is waited for."""
        if self._training.args.eval_strategy == "no":
            raise CannotSteer(
                "this training has no evaluation; give the Trainer an eval_dataset, and an eval_strategy"
            )
        self._training.control.should_evaluate = True
        return "evaluates after this step"

    def _declare_commands(self) -> None:
        # The Trainer looks at its control after a step only, and would end a window early before it.
        ends: Callable[[], bool] = lambda: self._training.step_ended  # noqa: E731
        self.weavelet.on_command("stop", ready=ends)(self.stop)
        for name, method in ("checkpoint", self.checkpoint), ("validate", self.validate):
            self.weavelet.on_command(name, ready=lambda: ends() and not self.weavelet.paused)(method)
        declare_marked_commands(self.weavelet, self._training.module)

    def _resumed(self) -> dict[str, dict[str, Any]]:
        noted = (self._training.state.stateful_callbacks or {}).get(_STATE)
        steered = {} if noted is None else noted["attributes"]["steered"]
        if self._training.args.save_only_model:
            return {name: entry for name, entry in steered.items() if name not in _NOT_IN_THE_MODEL}
        return dict(steered)
