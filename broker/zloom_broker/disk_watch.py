"""How much room the journal's disk has, looked at on a thread of its own: a file system may hang."""

import contextlib
import shutil
import threading
from pathlib import Path

INTERVAL = 10.0
"""Seconds between two looks: a disk fills in minutes."""


class DiskWatch:
    """One daemon thread; nobody waits for it.

    Args:
        folder: On the file system that is looked at.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stopped = threading.Event()
        self.gauges: dict[str, float] = {}
        """Bytes, by name; empty before the first look has succeeded. Replaced, never changed."""

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="zloom-disk", daemon=True).start()

    def stop(self) -> None:
        """End, without waiting for a look that is under way."""
        self._stopped.set()

    def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                usage = shutil.disk_usage(self._folder)
                self.gauges = {"disk_free_bytes": float(usage.free), "disk_total_bytes": float(usage.total)}
            if self._stopped.wait(INTERVAL):
                return
