"""What must hold whatever goes wrong, as checks; and what is measured for them."""

import asyncio
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from tests.shell.scripted_peer import Peer, first
from tests.support import DEADLINE
from zloom import messages as m
from zloom.model import HistoryEntry

SLOWDOWN = 3.0
"""By which a healthy peer's p99 may grow under abuse …"""

UNNOTICED = 0.05
"""… or up to which, in seconds, it does not matter: a machine with two cores has such pauses in calm too."""

HELD_UP = 1.0
"""Seconds that no test beside this one takes from a round trip, and a broker that is stuck does."""

LEAVE = 2.0
"""Seconds in which a process is gone once it is told."""


async def until(
    condition: Callable[[], Awaitable[bool] | bool], what: str, deadline: float = DEADLINE
) -> float:
    """Ask again until it holds; return the seconds that it took."""
    begun = time.monotonic()
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return time.monotonic() - begun
        assert time.monotonic() - begun < deadline, f"not within {deadline:g} s: {what}"
        await asyncio.sleep(0.02)


async def query(operator: Peer, request: m.Request) -> Any:
    """Ask a question as an operator does, again each second and with a new hello where the broker wants one.

    On a machine under load a connection may be given up though nothing is wrong with either end.
    """

    def found(peer: Peer) -> Any:
        return next((each for each in peer.inbox if getattr(each, "id", None) == request.id), None)

    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if first(operator.inbox, m.HelloRequired) is not None:
            operator.inbox.clear()
            await operator.hello()
        operator.send(request)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                return await operator.until(found)
    raise AssertionError(f"no answer within {DEADLINE:g} s to {request}")


# --- history ---------------------------------------------------------------------------------------


async def whole_history(operator: Peer, run: str = "run") -> list[HistoryEntry]:
    """Return all revisions of a run, oldest first."""
    entries: list[HistoryEntry] = []
    before: int | None = None
    while True:
        name = f"history-{time.monotonic_ns()}"
        page = await query(operator, m.GetHistory(id=name, run=run, before=before, limit=1000))
        assert isinstance(page, m.History), page
        entries += page.entries
        if not page.more:
            return entries[::-1]
        before = page.entries[-1].revision.revision


def assert_kept(entries: Sequence[HistoryEntry], accepted: Mapping[str, int]) -> None:
    """Each request that was acknowledged is there, under the revision that was told."""
    made = {entry.revision.request_id: entry.revision.revision for entry in entries}
    lost = {request: revision for request, revision in accepted.items() if made.get(request) != revision}
    assert not lost, f"acknowledged and lost: {lost}"


def assert_consecutive(entries: Sequence[HistoryEntry]) -> None:
    """Revisions are 1, 2, 3 …"""
    assert [entry.revision.revision for entry in entries] == list(range(1, len(entries) + 1))


def assert_once(entries: Sequence[HistoryEntry]) -> None:
    """No request id has made two revisions."""
    made = [entry.revision.request_id for entry in entries]
    assert len(made) == len(set(made)), "a request had two effects"


# --- being served ----------------------------------------------------------------------------------


async def round_trips(operator: Peer, count: int = 300) -> float:
    """Return the p99 of so many round trips, in seconds."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        operator.inbox.clear()
        await operator.ask(m.GetHistory(id=f"trip-{time.monotonic_ns()}", run="run", limit=1))
        times.append(time.perf_counter() - begun)
    return sorted(times)[int(count * 0.99)]


def assert_served(calm: float, abused: float, *, alone: bool) -> None:
    """A healthy peer hardly notices; where other tests share the machine, it is not held up for long."""
    limit = max(SLOWDOWN * calm, UNNOTICED if alone else HELD_UP)
    assert abused <= limit, f"p99 {abused * 1000:.1f} ms; in calm {calm * 1000:.1f} ms"


# --- bounds ----------------------------------------------------------------------------------------


def memory(pid: int) -> int:
    """Return the resident bytes of a process."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    """Return how many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int) -> float:
    """Return the time that a process has computed."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


async def counters(operator: Peer) -> Counter[str]:
    """Return the broker's counters; one that was never needed is 0."""
    stats = await query(operator, m.GetStats(id=f"stats-{time.monotonic_ns()}"))
    assert isinstance(stats, m.Stats)
    return Counter(stats.counters)
