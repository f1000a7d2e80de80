"""The broker's numbers: what its sockets and journal counted, how long its queues are, how busy it is."""

from dataclasses import asdict

from zloom.sockets import DrainSocket
from zloom_broker.core import Core
from zloom_broker.disk_watch import DiskWatch
from zloom_broker.journal import Journal
from zloom_broker.load import Load, Numbers

INTERVAL = 0.9
"""Seconds between two looks at all numbers: about a beat, however often the timer rings."""


class Measuring:
    """Belongs to the broker's loop, but for `newest`.

    Args:
        control: The socket of control.
        updates: The socket of updates.
        journal: Where commits go.
    """

    def __init__(self, control: DrainSocket, updates: DrainSocket, journal: Journal) -> None:
        self._control = control
        self._updates = updates
        self._journal = journal
        self._disk = DiskWatch(journal.data_dir)
        self.load = Load()
        self.unpublished = 0
        """Publications that were too long."""
        self.newest = Numbers({}, {}, 0.0)
        """About a beat old. Any thread may read it: it is replaced, never changed."""

    def start(self) -> None:
        """Begin to look at the disk."""
        self._disk.start()

    def stop(self) -> None:
        """End."""
        self._disk.stop()

    def look(self, core: Core, now: float) -> None:
        """Take all numbers, unless that was done a moment ago."""
        if now - self.newest.at >= INTERVAL:
            counters, gauges = core.numbers(now)
            self.load.count(counters, now)
            self.newest = Numbers(counters, gauges, now)

    def counters(self) -> dict[str, int]:
        """Return what sockets and journal counted since the broker began."""
        control, updates = asdict(self._control.counters), asdict(self._updates.counters)
        parts = {"control": control, "updates": updates, "journal": asdict(self._journal.counters)}
        counted = {f"{name}_{key}": value for name, part in parts.items() for key, value in part.items()}
        # What is held now is no count of what was, and a reason is no number.
        held = {"control_outbox_len", "updates_outbox_len"}
        counts = {n: v for n, v in counted.items() if isinstance(v, int) and n not in held}
        return counts | {"updates_too_long": self.unpublished}

    def gauges(self, now: float) -> dict[str, float]:
        """Return the length of the queues, and what else is as it is now."""
        queues = {"control_queue": self._control, "updates_queue": self._updates}
        lengths = {name: float(socket.counters.outbox_len) for name, socket in queues.items()}
        return {**self.load.gauges(now), **lengths, **self._disk.gauges}
