"""What a status says: the trainer's step, its pace, its metrics and its devices."""

import time
from collections.abc import Callable

from zloom.digests import digest
from zloom.messages import Status
from zloom.model import DeviceStatus
from zloom.pace import Pace
from zloom.stack_source import in_collective
from zloom.training import Training

UNTICKED = 10.0
"""Seconds of reports, from the first on, until a trainer without a safe point is thought to have none."""

NO_SAFE_POINT = (
    f"this trainer has reported for {UNTICKED:g} s without a call of tick(), where changes are applied; "
    "they wait until it calls that at each step"
)


class StatusSource:
    """Collects statuses of one trainer; belongs to the loop's thread.

    Args:
        training: Whose.
        points: How many points of metrics go into one status.
        together: It is one of several ranks, which may wait for each other.
        clock: The one whose times `Training.enter`, and the pause, are told.
    """

    def __init__(
        self,
        training: Training,
        points: int,
        *,
        together: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._together = together and not training.elsewhere
        self.devices: list[DeviceStatus] = []
        """The newest reading, until a status has told it."""
        self._training = training
        self._points = points
        self._pace = Pace()
        self._reporting_since: float | None = None
        self.lacks_safe_points = False
        """Whether the trainer has reported for a while, and changes have no place to be applied at."""

    def collect(self, now: float, *, look: bool = True) -> Status:
        """Take what there is to report; its number is for the session to fill in.

        Args:
            now: Seconds on the loop's clock.
            look: Look at the step and at what the training thread does; else that is not known.
        """
        training, mailbox = self._training, self._training.mailbox
        waits = self._look() if look else None
        devices, self.devices = self.devices, []
        # Looked at first, as points of it may be reported while others are taken.
        step = training.step
        metrics = training.metrics.drain(self._points)
        left = training.metrics.oldest
        if metrics and training.phase == "training":
            self._look_for_safe_points(now)
        return Status(
            seq=0,
            step=training.step,
            phase=training.phase,
            paused=mailbox.pause.active,
            pause_left=mailbox.pause.left(self._clock()),
            holding=mailbox.holding,
            waits=waits,
            lacks_config=mailbox.lacks_config,
            step_time=self._pace.step_time,
            metrics=metrics,
            awaited=step if left is None else min(step, left),
            ramps=mailbox.ramps.states,
            devices=devices,
            values={name: digest(value) for name, value in training.registry.values.items()},
            at=time.time(),
            dropped=training.metrics.dropped,
        )

    def _look(self) -> bool | None:
        training, mailbox, moment = self._training, self._training.mailbox, self._clock()
        trained = moment - training.away(moment)
        self._pace.look(training.step, trained, waits=mailbox.pause.active or mailbox.holding)
        return in_collective(training.thread) if self._together else None

    def _look_for_safe_points(self, now: float) -> None:
        if self._reporting_since is None:
            self._reporting_since = now
        reached = self._training.step > 0 or self._training.stood
        self.lacks_safe_points = not reached and now - self._reporting_since >= UNTICKED
