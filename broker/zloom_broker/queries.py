"""The requests that only read."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TypeVar, get_args

from msgspec import Struct

from zloom.errors import Refused
from zloom.messages import (
    Answer,
    Devices,
    GetDevices,
    GetHistory,
    GetKeys,
    GetReplicas,
    GetRuns,
    GetStats,
    History,
    Keys,
    Replicas,
    RunRequest,
    Runs,
    Stats,
    Status,
)
from zloom.model import (
    Command,
    DeviceReport,
    HistoryEntry,
    Key,
    KeyState,
    RampState,
    Replica,
    ReplicaStatus,
    RunStatus,
    State,
)
from zloom.words import JUST_STARTED, unknown
from zloom_broker.attempt import Attempt
from zloom_broker.hub import Hub
from zloom_broker.ledger import Setting
from zloom_broker.permissions import Access
from zloom_broker.records import ReplicaLeft, size_of
from zloom_broker.traces import Trace

PAGE = 512 * 1024
"""Bytes of entries in one answer: half of what a message may hold, so that the rest fits surely."""

HISTORY_LIMIT = 1000
"""Entries in one answer."""

MAX_NAMED = 20
"""Runs or attempts that a refusal names."""

STARTING = f"{JUST_STARTED}, and then `zloom ps` lists its run"
"""What is said beside the runs that are known."""

T = TypeVar("T")
S = TypeVar("S", bound=Struct)

Query = GetHistory | GetKeys | GetRuns | GetReplicas | GetDevices | GetStats


class Queries:
    """Answers from durable state and from what replicas said last."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def answer(self, query: Query, access: Access, now: float) -> Answer:
        """Return the answer to a query, of which there is left what concerns the runs of the asker.

        Raises:
            Refused: It names a run, attempt or revision that does not exist.
        """
        match query:
            case GetHistory():
                return self._history(query, access)
            case GetKeys():
                return self._keys(query, access)
            case GetRuns():
                attempts = [each for each in self._hub.state.of_run(query.run) if access.covers(each.run)]
                of_runs: dict[str, list[Attempt]] = {}
                for each in attempts:
                    of_runs.setdefault(each.run, []).append(each)
                chosen = {_choose(of_run).key for of_run in of_runs.values()}
                rest = _after(attempts, query.after, lambda each: f"{each.run}/{each.id}")
                runs, more = _page(self._run(each, now, chosen=each.key in chosen) for each in rest)
                return Runs(id=query.id, runs=runs, more=more)
            case GetReplicas():
                return self._replicas(query, access, now)
            case GetDevices():
                reports = list(self.devices(access).values())
                devices, more = _page(_after(reports, query.after, lambda each: each.device.id))
                return Devices(id=query.id, devices=devices, more=more)
            case GetStats():
                counters, gauges = self.numbers(now)
                epoch, at = self._hub.settings.epoch, self._hub.wall(now)
                return Stats(id=query.id, epoch=epoch, counters=counters, gauges=gauges, at=at)

    def attempt(self, request: RunRequest, access: Access) -> Attempt:
        """Return the attempt that a request names, else the one that is chosen.

        Raises:
            Refused: There is none.
        """
        attempts = self._hub.state.of_run(request.run) if request.run else []
        if not attempts:
            runs = {attempt.run for attempt in self._hub.state.attempts.values()}
            visible = sorted(run for run in runs if access.covers(run))
            listed = f"{_names(visible) if visible else 'none yet'}; {STARTING}"
            raise Refused("unknown_run", unknown("unknown run", request.run, visible, listed, most=64))
        if not request.attempt:
            return _choose(attempts)
        for attempt in attempts:
            if attempt.id == request.attempt:
                return attempt
        known = _names([attempt.id for attempt in attempts])
        text = f"run {request.run} has no attempt {request.attempt[:64]!r}; it has: {known}"
        raise Refused("unknown_attempt", text)

    def status(self, attempt: Attempt, replica: Replica, now: float) -> ReplicaStatus:
        """Return a replica as operators see it."""
        vitals = self._hub.vitals.get(replica.id)
        left = attempt.left.get(replica.id)
        status = vitals.status if vitals else None
        state = self._state(attempt, replica, now)
        known = self._known(attempt, replica)
        return ReplicaStatus(
            replica=replica.id,
            run=replica.run,
            attempt=replica.attempt,
            rank=replica.rank,
            world_size=replica.world_size,
            host=replica.host,
            pid=replica.pid,
            state=state,
            straggles=self._hub.straggling.get(replica.id, ""),
            pause_left=vitals.pause_left(now) if vitals and state == "paused" else None,
            phase=status.phase if status else "training",
            step=known.step,
            revision=known.revision,
            step_time=status.step_time if status else None,
            metrics=dict(vitals.metrics) if vitals else dict(left.metrics) if left else {},
            ramps=dict(status.ramps) if status else {},
            dropped=status.dropped if status else 0,
            values=dict(status.values) if status else {},
            clock=vitals.clock if vitals else None,
            devices=[device.id for device in replica.devices],
            seen=now - vitals.heard if vitals and vitals.heard is not None else None,
            reason=left.reason if left else "",
        )

    def is_early(self, attempt: Attempt) -> bool:
        """Whether replicas are there and none has told a step above 0, so that more may be declared."""
        present = list(attempt.present())
        return bool(present) and not any(self._known(attempt, each).step for each in present)

    def numbers(self, now: float) -> tuple[dict[str, int], dict[str, float]]:
        """Return what was counted since the broker began, and the gauges as of now."""
        hub = self._hub
        states = Counter(vitals.state(now, hub.beat) for vitals in hub.vitals.values())
        gauges = {f"replicas_{state}": float(states[state]) for state in get_args(State)}
        peers = {"peers": float(len(hub.peers)), "attempts": float(len(hub.state.attempts))}
        return {**hub.counters, **hub.shell_counters}, {**hub.shell_gauges, **peers, **gauges}

    def devices(self, access: Access) -> dict[str, DeviceReport]:
        """Return all devices of replicas that are there and that the asker may know of, by id."""
        found: dict[str, DeviceReport] = {}
        for attempt in self._hub.state.attempts.values():
            for replica in attempt.present() if access.covers(attempt.run) else ():
                for device in replica.devices:
                    known = found.get(device.id)
                    replicas = [*(known.replicas if known else ()), replica.id]
                    vitals = self._hub.vitals.get(replica.id)
                    status = vitals.devices.get(device.id) if vitals else None
                    failed = self._hub.state.failed_devices.get(device.id)
                    reason = (failed.reason or "failed") if failed else ""
                    found[device.id] = DeviceReport(device, status, replica.host, replicas, reason)
        return found

    # --- inside ------------------------------------------------------------------------------

    def _known(self, attempt: Attempt, replica: Replica) -> Status | ReplicaLeft | Trace:
        """Return what a replica told last; after a restart of the broker, what its newest outcome tells."""
        vitals = self._hub.vitals.get(replica.id)
        status = vitals.status if vitals else None
        return status or attempt.left.get(replica.id) or attempt.traces.of(replica.id)

    def _state(self, attempt: Attempt, replica: Replica, now: float) -> State:
        left = attempt.left.get(replica.id)
        # On a read-only journal one that is back stands in it as lost.
        if left is not None and replica.id not in self._hub.weavelets:
            return "lost" if left.outcome == "lost" else "finished"
        vitals = self._hub.vitals.get(replica.id)
        return vitals.state(now, self._hub.beat) if vitals else "unresponsive"

    def _history(self, query: GetHistory, access: Access) -> History:
        attempt = self.attempt(query, access)
        newest = attempt.revision if query.before is None else min(query.before - 1, attempt.revision)
        entries: list[HistoryEntry] = []
        size = 0
        for number in range(newest, 0, -1):
            entry = attempt.entry(attempt.ledgers[number])
            size += size_of(entry)
            full = len(entries) >= min(query.limit, HISTORY_LIMIT) or size > PAGE
            if full and entries:
                break
            entries.append(entry)
        more = len(entries) < newest
        return History(id=query.id, run=attempt.run, attempt=attempt.id, entries=entries, more=more)

    def _keys(self, query: GetKeys, access: Access) -> Keys:
        attempt = self.attempt(query, access)
        config = attempt.config.now()
        ramps = self._ramps(attempt)
        keys = [_key_state(attempt, key, config, ramps) for key in attempt.keys().values()]
        replicas = list(attempt.present()) or list(attempt.replicas.values())
        commands: dict[str, Command] = {c.name: c for r in reversed(replicas) for c in r.commands}
        return Keys(
            id=query.id,
            run=attempt.run,
            attempt=attempt.id,
            revision=attempt.revision,
            keys=keys,
            commands=list(commands.values()),
            early=self.is_early(attempt),
        )

    def _ramps(self, attempt: Attempt) -> dict[str, RampState]:
        """Return by key where the first rank stands that is on a ramp of it."""
        ramps: dict[str, RampState] = {}
        for replica in sorted(attempt.present(), key=lambda replica: replica.rank):
            vitals = self._hub.vitals.get(replica.id)
            if vitals is not None and vitals.status is not None:
                ramps = {**vitals.status.ramps, **ramps}
        return ramps

    def _run(self, attempt: Attempt, now: float, *, chosen: bool) -> RunStatus:
        states = [self._state(attempt, replica, now) for replica in attempt.replicas.values()]
        return RunStatus(
            attempt.run,
            attempt.id,
            attempt.revision,
            attempt.world_size,
            replicas=len(states),
            live=sum(state in ("live", "paused", "holding", "stalled") for state in states),
            started=attempt.started.at,
            chosen=chosen,
        )

    def _replicas(self, query: GetReplicas, access: Access, now: float) -> Replicas:
        # Not the live first, though a reader of one page would like that: between two pages a replica may
        # come to life, and would be on neither.
        newest_first = reversed(self._hub.state.of_run(query.run))
        wanted = (each for each in newest_first if query.attempt in ("", each.id))
        attempts = [attempt for attempt in wanted if access.covers(attempt.run)]
        found = [(attempt, replica) for attempt in attempts for replica in attempt.replicas.values()]
        rest = _after(found, query.after, lambda each: each[1].id)
        replicas, more = _page(self.status(attempt, replica, now) for attempt, replica in rest)
        return Replicas(id=query.id, replicas=replicas, more=more)


def _choose(attempts: Sequence[Attempt]) -> Attempt:
    """Return the attempt of a run that is meant where none is named: the newest that has replicas, if any."""
    inhabited = [attempt for attempt in attempts if any(attempt.present())]
    return (inhabited or attempts)[-1]


def _after(items: Sequence[T], after: str, name: Callable[[T], str]) -> Iterable[T]:
    """Return what follows the item of that name; all, where there is none."""
    ended = next((index for index, item in enumerate(items) if name(item) == after), -1) if after else -1
    return islice(items, ended + 1, None)


def _page(entries: Iterable[S]) -> tuple[list[S], bool]:
    """Return as many entries as fit into an answer, and whether there are more."""
    page: list[S] = []
    size = 0
    for entry in entries:
        size += size_of(entry)
        if page and size > PAGE:
            return page, True
        page.append(entry)
    return page, False


def _key_state(
    attempt: Attempt, key: Key, config: dict[str, Setting], ramps: dict[str, RampState]
) -> KeyState:
    setting = config[key.name]
    pending = setting.revision in attempt.open
    return KeyState(key, setting.value, setting.revision, pending, ramps.get(key.name))


def _names(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[-MAX_NAMED:]) + more or "none"
