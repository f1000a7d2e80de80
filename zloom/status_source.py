"""What a status says: the trainer's step, its pace, its metrics and its devices."""

import time

from zloom.digests import digest
from zloom.messages import Status
from zloom.model import DeviceStatus
from zloom.pace import Pace
from zloom.stack_source import in_collective
from zloom.training import Training


class StatusSource:
    """Collects statuses of one trainer; belongs to the loop's thread.

    Args:
        training: Whose.
        points: How many points of metrics go into one status.
        together: It is one of several ranks, which may wait for each other.
    """

    def __init__(self, training: Training, points: int, *, together: bool) -> None:
        self._together = together and not training.elsewhere
        self.devices: list[DeviceStatus] = []
        """The newest reading, until a status has told it."""
        self._training = training
        self._points = points
        self._pace = Pace()

    def collect(self, now: float) -> Status:
        """Take what there is to report; its number is for the session to fill in."""
        training, mailbox = self._training, self._training.mailbox
        trains = training.phase == "training" and not (mailbox.pause.active or mailbox.holding)
        self._pace.look(training.step, now, training=trains)
        devices, self.devices = self.devices, []
        return Status(
            seq=0,
            step=training.step,
            phase=training.phase,
            paused=mailbox.pause.active,
            holding=mailbox.holding,
            waits=in_collective(training.thread) if self._together else None,
            lacks_config=mailbox.lacks_config,
            step_time=self._pace.step_time,
            metrics=training.metrics.drain(self._points),
            ramps=mailbox.ramps.states,
            devices=devices,
            values={name: digest(value) for name, value in training.registry.values.items()},
            at=time.time(),
            dropped=training.metrics.dropped,
        )
