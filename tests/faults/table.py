"""The fault matrix as a table: a row for each fault, a column for each guarantee, a count in each cell.

A test of a fault is marked `fault(name, *guarantees)`. What it sees held it tells `Tally`; the guarantees in
the marker count once each, for tests elsewhere in the suite that know nothing of this.
"""

import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

Guarantee = Literal[
    "kept", "consecutive", "converged", "once", "bounded", "served", "counted", "told", "detected", "left"
]

MEANINGS: dict[Guarantee, str] = {
    "kept": "no acknowledged update was lost",
    "consecutive": "revisions are 1, 2, 3 … without a gap",
    "converged": "each survivor came to one (epoch, revision, config) in time",
    "once": "a request id had one effect, however often it was sent",
    "bounded": "memory and descriptors stayed within the stated bound",
    "served": "a healthy peer's p99 round trip stayed within 3 times that of calm (or below 50 ms)",
    "counted": "what was dropped, refused or sent again stands in a counter",
    "told": "whoever was wrong or could not be served was told why",
    "detected": "who was dead, hung or back was known as such in time",
    "left": "a process was gone within 2 s of being told",
}

HELD, FAULT = "held", "fault"
"""Names of the properties that travel from a test to the table."""


class Tally:
    """Counts for one test what it saw held."""

    def __init__(self, node: pytest.Item) -> None:
        self._node = node
        self._held: dict[Guarantee, tuple[int, int]] = {}
        """Of each guarantee its place in the node's properties, one however often it held, and its count."""

    def held(self, guarantee: Guarantee, count: int = 1) -> None:
        """A guarantee was checked so many times, and held each time."""
        properties = self._node.user_properties
        place, before = self._held.get(guarantee, (len(properties), 0))
        self._held[guarantee] = place, before + count
        properties[place:] = [(HELD, (guarantee, before + count)), *properties[place + 1 :]]


def mark(items: Iterable[pytest.Item]) -> None:
    """Let each test of a fault carry its row, and the guarantees that its marker names."""
    for item in items:
        marker = item.get_closest_marker(FAULT)
        if marker is not None:
            name, *guarantees = marker.args
            item.user_properties.append((FAULT, name))
            item.user_properties.extend((HELD, (guarantee, 1)) for guarantee in guarantees)


class FaultTable:
    """Collects what tests of faults report, and writes the table at the end.

    Args:
        path: Where it goes.
        form: `short` or `long`.
    """

    def __init__(self, path: Path, form: str) -> None:
        self._path = path
        self._form = form
        self._rows: dict[str, Counter[str]] = {}
        self._failed: Counter[str] = Counter()
        self._skipped: dict[str, str] = {}
        self._seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in the report of one phase of one test."""
        properties: list[tuple[str, Any]] = [(name, value) for name, value in report.user_properties]
        names = [str(value) for name, value in properties if name == FAULT]
        if not names:
            return
        row = self._rows.setdefault(names[0], Counter())
        if report.failed:
            self._failed[names[0]] += 1
        elif report.skipped:
            self._skipped[names[0]] = str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else "")
        elif report.when == "call":
            self._seconds[names[0]] += round(report.duration)
            for name, value in properties:
                if name == HELD:
                    guarantee, count = value
                    row[guarantee] += count

    def pytest_sessionfinish(self) -> None:
        """Write the table."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text("\n".join(self._lines()) + "\n")

    def _lines(self) -> Iterable[str]:
        guarantees: Sequence[Guarantee] = get_args(Guarantee)
        yield f"Form: {self._form}. Written {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} by"
        yield f"`pytest {' '.join(sys.argv[1:])}` on {platform.system()} {platform.machine()}, Python"
        yield f"{platform.python_version()}. A cell says how often the guarantee was checked, and held."
        yield ""
        yield f"| fault | {' | '.join(guarantees)} | result | s |"
        yield f"| --- |{' ---: |' * len(guarantees)} --- | ---: |"
        for name, row in sorted(self._rows.items()):
            cells = [f"{row[guarantee]:,}" if row[guarantee] else "" for guarantee in guarantees]
            yield f"| {name} | {' | '.join(cells)} | {self._result(name)} | {self._seconds[name]} |"
        yield ""
        for guarantee, meaning in MEANINGS.items():
            yield f"- {guarantee}: {meaning}"

    def _result(self, name: str) -> str:
        if self._failed[name]:
            return f"**{self._failed[name]} failed**"
        return f"skipped: {self._skipped[name]}" if name in self._skipped else "held"
