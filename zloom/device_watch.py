"""Reads the devices on a thread of its own, because a driver in trouble can hold a caller for seconds."""

import os
import threading
from collections.abc import Callable

from zloom.devices import DeviceProbe
from zloom.model import Device, DeviceStatus
from zloom.stack_source import DEVICES_THREAD


class DeviceWatch:
    """One daemon thread; nobody waits for it.

    Args:
        probe: Made on the thread when it is None.
        interval: Seconds between two readings.
        found: Called once, on the thread, with the devices.
        seen: Called on the thread with each reading. There is none of a host.
    """

    def __init__(
        self,
        probe: DeviceProbe | None,
        interval: float,
        found: Callable[[list[Device]], None],
        seen: Callable[[list[DeviceStatus]], None],
    ) -> None:
        self._probe = probe
        self._interval = interval
        self._found = found
        self._seen = seen
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin. Where there is no thread to be had, none are found: steering does without them."""
        try:
            threading.Thread(target=self._run, name=DEVICES_THREAD, daemon=True).start()
        except RuntimeError:
            self._found([])

    def stop(self) -> None:
        """End after the reading that is under way, without waiting for it."""
        self._stopped.set()

    def _run(self) -> None:
        probe = self._probe or DeviceProbe(os.environ)
        self._found(probe.devices())
        while status := probe.status():
            self._seen(status)
            if self._stopped.wait(self._interval):
                break
        probe.close()
