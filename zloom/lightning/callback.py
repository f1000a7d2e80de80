"""`WeaveletCallback`: makes a Lightning training steerable, with no code of the user's."""

from functools import partial
from time import monotonic
from typing import Any, Literal, get_args

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from zloom.errors import SettingsError
from zloom.lightning.data import BatchSize, begin_iteration_again
from zloom.lightning.keys import Commands, keys_of
from zloom.lightning.reporting import (
    SETTINGS_INTERVAL,
    StepMetrics,
    Throughput,
    epoch_and_rate,
    epoch_metrics,
    rates,
)
from zloom.lightning.sigterm import Termination
from zloom.lightning.steer import Place, Position
from zloom.settings import WeaveletSettings
from zloom.steerable import reason_of
from zloom.weavelet import CONFIG_WAIT, Weavelet

Resume = Literal["checkpoint", "newest"]

BATCH_START, BATCH_END = Place.BATCH_START, Place.BATCH_END
"""For the hooks of a batch: Python 3.11 takes long to find a member of an enumeration."""

PhaseName = Literal["training", "validating", "saving"]


class WeaveletCallback(Callback):
    """Lets operators steer the training, and reports how it goes.

    Its keys are `optimizer_type`, `learning_rate`, `weight_decay`, `momentum`, `gradient_clip_val`,
    `accumulate_grad_batches`, `batch_size`, `max_epochs`, `max_steps` and `log_every_n_steps`; its commands
    `pause`, `resume`, `stop`, `checkpoint` and `validate`. A LightningModule adds its own, or replaces one of
    these, by a method marked with `@zloom.on_config(...)` or `@zloom.on_command(...)`. What a training cannot
    do is refused with a reason. Steered values are saved in checkpoints, and come back when `fit` resumes.

    Training never waits for the broker, save for 2 seconds at the start of a fit. Nothing is alive before
    `fit`, so the callback can be pickled; for `validate`, `test` and `predict` it does nothing.

    Args:
        run: Name of the training job, chosen by its user.
        broker: The broker's endpoint; left out, $ZLOOM_BROKER, else the socket in the user's runtime folder.
        attempt: Name of this launch; left out, it is found or made.
        inherit: Begin with the config of the run's last attempt in place of the trainer's own values.
        resume: What holds where `fit` goes on from a checkpoint: `checkpoint`, the values that were steered
            when it was saved, or `newest`, those that operators asked for since, in this attempt or, in a
            new one, in the one before.
        settings: zloom's own options.

    Raises:
        SettingsError: An argument is out of its bounds.
    """

    def __init__(
        self,
        run: str,
        *,
        broker: str | None = None,
        attempt: str | None = None,
        inherit: bool = False,
        resume: Resume = "checkpoint",
        settings: WeaveletSettings | None = None,
    ) -> None:
        if resume not in get_args(Resume):
            raise SettingsError(f"resume is {resume!r}; expected checkpoint or newest")
        self._run = run
        self._broker = broker
        self._attempt = attempt
        self._inherit = inherit
        self._resume = resume
        self._settings = settings
        self._fit: _Fit | None = None
        self._resumed: dict[str, dict[str, Any]] | None = None
        self._last: dict[str, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Spawn pickles the callback, and a Trainer that was fitted is deep-copied by some tools.
        return vars(self) | {"_fit": None}

    @property
    def weavelet(self) -> Weavelet | None:
        """The weavelet of the fit that is running, for `publish`, `report` and more; None outside."""
        return None if self._fit is None else self._fit.weavelet

    # --- life -------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the fit before, where the stage is `fit`."""
        if stage == "fit":
            self._close("replaced by another fit")
            self._last = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Connect, and make the optimizer that a checkpoint's state belongs to before Lightning restores it.

        Not in `setup`: only now it is known whether the fit goes on from a checkpoint. Of FSDP, DeepSpeed and
        ModelParallel it is not known here either.
        """
        goes_on = self._resumed is not None
        weavelet = Weavelet(
            self._run,
            broker=self._broker,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            attempt=self._attempt,
            inherit=self._inherit or (goes_on and self._resume == "newest"),
            resumed=goes_on and self._resume == "checkpoint",
            pause_ready=lambda: self._running.may_pause,
            settings=self._settings,
        )
        weavelet.start()
        self._fit = _Fit(weavelet, Position(trainer))
        self._running.keys.resume_before_restore(self._resumed or {})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Declare what can be steered, now that optimizer, loader and checkpoint are there."""
        self._running.begin(self._resumed or {})
        self._resumed = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say goodbye."""
        self._close("finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say goodbye: Lightning calls no teardown after an exception or Ctrl-C."""
        if isinstance(exception, SIGTERMException):
            self._close("terminated by SIGTERM")
        else:
            self._close(reason_of(exception))

    def state_dict(self) -> dict[str, Any]:
        """Return what was steered, as plain types: anything else would make the checkpoint unloadable."""
        # A checkpoint may also be saved after the fit.
        return {"steered": self._last if self._fit is None else self._fit.keys.steered}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what was steered until the hooks that repeat it."""
        self._resumed = state_dict["steered"]

    # --- the training loop ------------------------------------------------------------------------------
    # What runs in each batch asks for `_fit` first, and spares the call of a property.

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that batches follow."""
        self._running.epoch_starts()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Count a step and carry out what is due."""
        (self._fit or self._running).batch_starts()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Report, and carry out what waits for the end of an accumulation window."""
        (self._fit or self._running).batch_ended(outputs)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report what was logged for the epoch, and carry out what waits for its end."""
        self._running.epoch_ended()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that gradients wait for a step."""
        (self._fit or self._running).position.gradients_pending = True

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Note that the gradients are used."""
        (self._fit or self._running).position.gradients_pending = False

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Note that the gradients are dropped."""
        (self._fit or self._running).position.gradients_pending = False

    # --- phases -----------------------------------------------------------------------------------------

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the phase."""
        self._running.enter("validating")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the phase; `Trainer.validate` runs this too, without a fit."""
        if self._fit is not None:
            self._fit.validation_starts()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report what was logged, and put the rhythm of validations back."""
        if self._fit is not None:
            self._fit.validated()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Tell the phase; the next batch ends it."""
        if self._fit is not None:
            self._fit.enter("saving")

    @property
    def _running(self) -> "_Fit":
        if self._fit is None:
            raise RuntimeError("a hook of fit ran outside of fit: Lightning calls setup first")
        return self._fit

    def _close(self, reason: str) -> None:
        if self._fit is not None:
            fit, self._fit = self._fit, None
            self._last = fit.keys.steered
            fit.close(reason)


class _Fit:
    """What is alive during one fit."""

    def __init__(self, weavelet: Weavelet, position: Position) -> None:
        self.weavelet = weavelet
        self.position = position
        self.keys = keys_of(position)
        self.commands = Commands(position, weavelet)
        self._throughput = Throughput(monotonic())
        self._settings_due = monotonic()
        self._metrics = StepMetrics()
        self._behind_batch = partial(weavelet.safe_point, trained=True)
        self._termination = Termination(weavelet)
        self._phase: PhaseName = "training"
        self._left = monotonic()

    @property
    def may_pause(self) -> bool:
        return (
            self.position.place is Place.BATCH_END
            and self.position.window_closed
            and not self._termination.received
        )

    def begin(self, resumed: dict[str, dict[str, Any]]) -> None:
        trainer = self.position.trainer
        batch_size = BatchSize().get(trainer)
        self.keys.resume(resumed)
        self.keys.declare(self.weavelet)
        self.commands.declare()
        self._termination.install()
        # The config of a restarted attempt: here all keys are ready, the batch size too.
        self.position.place = Place.EPOCH_END
        self._termination.run(lambda: self.weavelet.wait_for_config(CONFIG_WAIT))
        if BatchSize().get(trainer) != batch_size:
            begin_iteration_again(trainer)
        self._left = monotonic()  # a sanity check is over
        self._throughput.restart(self._left)

    def close(self, reason: str) -> None:
        self.commands.validation_ended()
        self.weavelet.close(reason)

    def epoch_starts(self) -> None:
        self._termination.train()

    def batch_starts(self) -> None:
        if self._phase != "training":
            self.enter("training")
            self._throughput.leave_out(monotonic() - self._left)
        self.position.place = BATCH_START
        if self.weavelet.begin_step():
            self._termination.run(self.weavelet.safe_point, batch_follows=True)

    def batch_ended(self, outputs: Any) -> None:
        # What takes least, as everything that runs between two short steps has left the caches.
        now, position, weavelet = monotonic(), self.position, self.weavelet
        self._throughput.batches += 1
        unread, metrics = self._metrics.of(position.trainer, outputs)
        if now >= self._settings_due:
            self._settings_due = now + SETTINGS_INTERVAL
            metrics = self._seldom(now, metrics)
        position.place = BATCH_END
        if metrics:
            weavelet.report(**metrics)
        if weavelet.end_step(unread) or self._termination.kept:
            self._end_of_batch()

    def _end_of_batch(self) -> None:
        if self.position.window_closed:
            self._stand()
        else:
            self._termination.pass_on_kept()

    def _seldom(self, now: float, metrics: dict[str, Any]) -> dict[str, Any]:
        """Return metrics with what need not be told with each batch."""
        trainer = self.position.trainer
        rate = self._throughput.rate(now)
        return epoch_and_rate(trainer) | metrics | ({} if rate is None else rates(trainer, rate))

    def epoch_ended(self) -> None:
        trainer = self.position.trainer
        self.weavelet.report(**(epoch_and_rate(trainer) | epoch_metrics(trainer)))
        self.position.place = Place.EPOCH_END
        self._stand()
        self._termination.leave_off()

    def validation_starts(self) -> None:
        self.enter("validating")
        self._termination.leave_off()

    def validated(self) -> None:
        self.commands.validation_ended()
        self._termination.train()
        if not self.position.trainer.sanity_checking:
            self.weavelet.report(**epoch_metrics(self.position.trainer))

    def enter(self, phase: PhaseName) -> None:
        if phase != self._phase:
            self._left = monotonic() if self._phase == "training" else self._left
            self._phase = phase
            self.weavelet.phase(phase)

    def _stand(self) -> None:
        trained, before = self._phase == "training", monotonic()
        self._termination.run(self._behind_batch)
        if self._phase == "training":
            self._throughput.leave_out(monotonic() - before)
        elif trained:  # a checkpoint was saved here; the next batch leaves out all since then
            self._left = before
