"""The calls of an operator that change nothing for a run, or only what the broker knows of it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from zloom.client.caller import Caller
from zloom.client.link import chosen_id, fresh_id
from zloom.messages import (
    Devices,
    Done,
    FailDevice,
    Forget,
    GetDevices,
    GetHistory,
    GetKeys,
    GetReplicas,
    GetRuns,
    GetStats,
    History,
    Keys,
    Page,
    Replicas,
    Runs,
    Stats,
)
from zloom.model import DeviceReport, HistoryEntry, ReplicaStatus, RunStatus, Value

A = TypeVar("A", bound=Page)
T = TypeVar("T")

PAGE = 100
"""Entries of history asked for at once."""


class Questions(Caller):
    """What an operator can ask a broker, and tell it.

    Every call raises `Refused`, with a code and a text, and `BrokerUnreachable` when there is no
    answer within the settings' time-out.
    """

    async def get(self, run: str, *, attempt: str = "") -> dict[str, Value]:
        """Return the value of each key."""
        keys = await self.keys(run, attempt=attempt)
        return {state.key.name: state.value for state in keys.keys}

    async def keys(self, run: str, *, attempt: str = "") -> Keys:
        """Return the keys of a run with type, bounds and value, and its commands."""
        return await self._ask(GetKeys(id=fresh_id(), run=run, attempt=attempt), Keys)

    async def history(self, run: str, limit: int | None = None, *, attempt: str = "") -> list[HistoryEntry]:
        """Return the revisions of a run, newest first, at most `limit` of them; None for all."""
        entries: list[HistoryEntry] = []
        more = True
        while more and (limit is None or len(entries) < limit):
            wanted = PAGE if limit is None else min(PAGE, limit - len(entries))
            before = entries[-1].revision.revision if entries else None
            request = GetHistory(id=fresh_id(), run=run, attempt=attempt, before=before, limit=wanted)
            page = await self._ask(request, History)
            entries += page.entries
            attempt = page.attempt  # a new attempt that begins meanwhile must not mix in
            more = page.more and bool(page.entries)
        return entries

    async def runs(self, run: str = "") -> list[RunStatus]:
        """Return all attempts of all runs, or of one."""
        request = GetRuns(id=fresh_id(), run=run)
        return await self._all(
            request, Runs, lambda page: page.runs, lambda each: f"{each.run}/{each.attempt}"
        )

    async def replicas(self, run: str = "", *, attempt: str = "") -> list[ReplicaStatus]:
        """Return all replicas, or those of one run; those of the newest attempt first."""
        request = GetReplicas(id=fresh_id(), run=run, attempt=attempt)
        return await self._all(request, Replicas, lambda page: page.replicas, lambda each: each.replica)

    async def devices(self) -> list[DeviceReport]:
        """Return all devices with their newest status and the replicas on them."""
        request = GetDevices(id=fresh_id())
        return await self._all(request, Devices, lambda page: page.devices, lambda each: each.device.id)

    async def fail_device(self, device: str, reason: str = "", *, request_id: str | None = None) -> list[str]:
        """Report that a device failed; returns the ids of the replicas on it, each of which is told.

        Asking again under the same `request_id` has no second effect.
        """
        request = FailDevice(id=chosen_id(request_id), device=device, reason=reason)
        return (await self._ask(request, Done)).replicas

    async def forget(self, run: str, *, attempt: str = "", request_id: str | None = None) -> str:
        """Have the broker forget a finished attempt, its config and its history; returns its id.

        Asking again under the same `request_id` has no second effect.

        Raises:
            Refused: `still_live`: it is not finished.
        """
        request = Forget(id=chosen_id(request_id), run=run, attempt=attempt)
        return (await self._ask(request, Done)).attempt

    async def stats(self) -> Stats:
        """Return the broker's counters."""
        return await self._ask(GetStats(id=fresh_id()), Stats)

    async def _all(
        self,
        request: GetRuns | GetReplicas | GetDevices,
        kind: type[A],
        items: Callable[[A], Sequence[T]],
        name: Callable[[T], str],
    ) -> list[T]:
        """Return what is on all pages, each once: a page that begins anew repeats some."""
        found: dict[str, T] = {}
        while True:
            page = await self._ask(request, kind)
            found |= {name(item): item for item in items(page)}
            if not page.more or not items(page):
                return list(found.values())
            request = replace(request, id=fresh_id(), after=name(items(page)[-1]))
