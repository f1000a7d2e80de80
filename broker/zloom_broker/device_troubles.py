"""Trouble of devices: it becomes an event, a failure, and what a failure is to make of the run."""

from collections.abc import Mapping
from typing import Literal

from zloom.errors import Refused
from zloom.messages import FailDevice, SendCommand, Status
from zloom.model import Device, DeviceStatus, Event, Replica
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.changes import Changes
from zloom_broker.device_rules import Trouble, happened, lasting
from zloom_broker.errands import Errands
from zloom_broker.hub import BROKER, Hub
from zloom_broker.records import DeviceFailed
from zloom_broker.requests import own_id

QUIET = 60.0
"""Seconds in which an attempt is sent one command for failures: devices often fail together."""


class Reactions:
    """What a run is made to do when a device fails that it computes on."""

    def __init__(self, hub: Hub, changes: Changes) -> None:
        self._hub = hub
        self._changes = changes
        self._reacted: dict[AttemptKey, float] = {}

    def failed(self, record: DeviceFailed, now: float) -> None:
        """A failure of a device is on disk."""
        command = self._hub.settings.on_device_failure
        if command == "notify":
            return
        for key in {self._hub.state.homes[each] for each in record.replicas if each in self._hub.state.homes}:
            if now - self._reacted.get(key, -QUIET) >= QUIET:
                self._reacted[key] = now
                self._send(key, command, record, now)

    def _send(self, key: AttemptKey, command: str, record: DeviceFailed, now: float) -> None:
        request = SendCommand(
            id=own_id("on-failure", *key, record.by, record.request_id),
            run=key[0],
            attempt=key[1],
            command=command,
            note=f"{record.device} failed: {record.reason or 'no reason given'}"[:500],
        )
        try:
            self._changes.receive(BROKER, request, now)
        except Refused as refused:
            text = f"{command} because of {record.device} is refused: {refused}"
            self._hub.event(Event("reaction_failed", *key, text=text, device=record.device), now)


class Troubles:
    """Looks at the readings of devices as they come."""

    def __init__(self, hub: Hub, errands: Errands) -> None:
        self._hub = hub
        self._errands = errands

    def status(
        self,
        attempt: Attempt,
        replica: Replica,
        before: Mapping[str, DeviceStatus],
        status: Status,
        now: float,
    ) -> None:
        """A replica reported.

        Args:
            attempt: Of the replica.
            replica: Who.
            before: Its readings until then, by device.
            status: What it reported.
            now: Seconds on the monotonic clock.
        """
        devices = {device.id: device for device in replica.devices}
        # One of each device, or a status could have thousands of failures written down.
        for reading in {each.id: each for each in status.devices}.values():
            if reading.id in devices:
                # It hears of XIDs from its start on; the memory errors of before are not its own.
                first = DeviceStatus(reading.id, ecc_errors=reading.ecc_errors)
                self._look_back(attempt, replica, before.get(reading.id, first), reading, now)
                self._look(attempt, replica, devices[reading.id], reading, now)

    def _look_back(
        self, attempt: Attempt, replica: Replica, before: DeviceStatus, reading: DeviceStatus, now: float
    ) -> None:
        for trouble in happened(before, reading):
            if trouble.failed:
                self._fail(replica, reading.id, trouble, reading, now)
            else:
                self._tell("device_trouble", attempt, replica, reading.id, trouble.text, now)

    def _look(
        self, attempt: Attempt, replica: Replica, device: Device, reading: DeviceStatus, now: float
    ) -> None:
        troubled = self._hub.vitals[replica.id].troubled
        known = troubled.get(device.id, frozenset())
        troubles = {trouble.kind: trouble.text for trouble in lasting(device, reading, known)}
        troubled[device.id] = frozenset(troubles)
        for kind, text in troubles.items():
            if kind not in known:
                self._tell("device_trouble", attempt, replica, device.id, text, now)
        for ended in sorted(known - troubles.keys()):
            text = "it has cooled down" if ended == "hot" else "its memory has room again"
            self._tell("device_recovered", attempt, replica, device.id, text, now)

    def _fail(
        self, replica: Replica, device: str, trouble: Trouble, reading: DeviceStatus, now: float
    ) -> None:
        what = f"{trouble.kind} {reading.xid if trouble.kind == 'xid' else reading.ecc_errors}"
        request_id = own_id("trouble", replica.id, device, what)
        request = FailDevice(id=request_id, device=device, reason=trouble.text)
        # A replica names its devices itself: what it reads of one that others name too is for the runs of its
        # key, or it could stop any run.
        concerns = self._hub.weavelets[replica.id].access
        try:
            self._errands.fail_device(BROKER, request, now, concerns)
        except Refused:
            self._hub.counters["failures_refused"] += 1

    def _tell(
        self,
        kind: Literal["device_trouble", "device_recovered"],
        attempt: Attempt,
        replica: Replica,
        device: str,
        text: str,
        now: float,
    ) -> None:
        told = f"{device} on {replica.host}: {text}"
        self._hub.event(Event(kind, attempt.run, attempt.id, 0.0, told, [replica.id], device), now)
