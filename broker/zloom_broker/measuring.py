"""The broker's numbers: what its sockets and journal counted, how long its queues are, how busy it is."""

from dataclasses import asdict

from zloom_broker.admission import Admission
from zloom_broker.core import Core
from zloom_broker.disk_watch import DiskWatch
from zloom_broker.journal import Journal
from zloom_broker.load import Load, Numbers
from zloom_broker.ports import Ports

INTERVAL = 0.9
"""Seconds between two looks at all numbers: about a beat, however often the timer rings."""


class Measuring:
    """Belongs to the broker's loop, but for `newest`.

    Args:
        ports: Of control and updates.
        admission: Of peers, where they need keys.
        journal: Where commits go.
    """

    def __init__(self, ports: Ports, admission: Admission | None, journal: Journal) -> None:
        self._ports = ports
        self._admission = admission
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
        control, updates = asdict(self._ports.control.counters), asdict(self._ports.updates)
        parts = {"control": control, "updates": updates, "journal": asdict(self._journal.counters)}
        counted = {f"{name}_{key}": value for name, part in parts.items() for key, value in part.items()}
        # What is held now is no count of what was, and a reason is no number.
        held = {"control_outbox_len", "updates_outbox_len"}
        counts = {n: v for n, v in counted.items() if isinstance(v, int) and n not in held}
        refused = self._admission.refused if self._admission is not None else 0
        return counts | {
            "updates_too_long": self.unpublished,
            "updates_while_cut_off": self._ports.unpublished,
            "handshakes_refused": refused,
        }

    def gauges(self, now: float) -> dict[str, float]:
        """Return the length of the queues, and what else is as it is now."""
        queues = {"control_queue": self._ports.control.counters, "updates_queue": self._ports.updates}
        lengths = {name: float(counters.outbox_len) for name, counters in queues.items()}
        return {**self.load.gauges(now), **lengths, **self._disk.gauges}
