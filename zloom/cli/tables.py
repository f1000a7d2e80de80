"""The tables that commands print. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from zloom.cli.guards import standing
from zloom.cli.output import Table
from zloom.cli.report import (
    clock,
    duration,
    key_mark,
    main_metrics_text,
    outcome_summary,
    ramps_text,
    state_text,
    value_text,
    what,
    when,
)
from zloom.messages import Keys, Stats
from zloom.model import GONE, DeviceReport, DeviceStatus, HistoryEntry, KeyState, ReplicaStatus, Value
from zloom.schema import describe

GIB = 2**30


def of_replicas(replicas: Iterable[ReplicaStatus], *, ids: bool) -> Table:
    """Return the table of `ps`, the live first; `ids` adds the ids.

    Args:
        replicas: Those of the newest attempt first, as the broker tells them.
        ids: Whether there is room for the replicas' ids.
    """
    columns = ["RUN", "ATTEMPT", "RANK", "STATE", "PHASE", "STEP", "STEP TIME", "REV", "METRICS", "WHERE"]
    ordered = list(replicas)
    attempts = list(dict.fromkeys((each.run, each.attempt) for each in ordered))
    places = {attempt: place for place, attempt in enumerate(attempts)}
    ordered.sort(key=lambda each: (each.state in GONE, places[each.run, each.attempt], each.rank))
    # Only while there are any: most of the time they would cost room for nothing.
    ramps = any(each.ramps for each in ordered)
    more = [[*([ramps_text(each)] if ramps else []), *([each.replica] if ids else [])] for each in ordered]
    rows = [[*_replica_row(each), *rest] for each, rest in zip(ordered, more, strict=True)]
    # What can be long and has blanks may be broken, so that names need not.
    broken = {
        "METRICS",
        "RAMPS",
        *({"STATE"} if any(" " in _state(each) for each in ordered) else ()),
    }
    columns += [*(["RAMPS"] if ramps else []), *(["ID"] if ids else [])]
    right = frozenset({"STEP", "STEP TIME", "REV"})
    spare = ("ID", "WHERE", "PHASE", "STEP TIME", "ATTEMPT", "METRICS", "RAMPS")
    return Table(columns, rows, "no replicas: start a trainer", right, frozenset(columns) - broken, spare)


def _state(status: ReplicaStatus) -> str:
    if status.straggles:
        return f"{status.state}, straggler: {status.straggles}"
    if status.reason in ("", status.state):
        return state_text(status)
    speaks_for_itself = status.state == "finished" and status.reason.startswith(("failed", "interrupted"))
    return status.reason if speaks_for_itself else f"{status.state}: {status.reason}"


def _replica_row(status: ReplicaStatus) -> list[str]:
    return [
        status.run,
        status.attempt,
        f"{status.rank}/{status.world_size}",
        _state(status),
        "" if status.state in GONE else status.phase,
        "" if status.step is None else str(status.step),
        "" if status.step_time is None else duration(status.step_time),
        "" if status.revision is None else str(status.revision),
        main_metrics_text(status),
        f"{status.host}:{status.pid}",
    ]


def of_devices(devices: Iterable[DeviceReport]) -> Table:
    """Return the table of `devices`."""
    columns = (
        "DEVICE",
        "NAME",
        "HOST",
        "USE",
        "GiB",
        "°C",
        "W",
        "ERRORS",
        "STATE",
        "REPLICAS",
    )
    rows = [_device_row(each) for each in devices]
    right = frozenset({"USE", "GiB", "°C", "W"})
    spare = ("NAME", "W", "°C", "GiB", "REPLICAS", "USE", "HOST")
    whole = right | {"DEVICE", "HOST"}
    return Table(
        columns, rows, "no devices: no replica is there", right, whole, spare, frozenset({"REPLICAS"})
    )


def _device_row(report: DeviceReport) -> list[str]:
    status = report.status or DeviceStatus(report.device.id)
    total = f"/{report.device.memory_total / GIB:.1f}" if report.device.memory_total else ""
    return [
        report.device.id,
        report.device.name,
        report.host,
        "" if status.utilization is None else f"{status.utilization:.0%}",
        "" if status.memory_used is None else f"{status.memory_used / GIB:.1f}{total}",
        _number(status.temperature),
        _number(status.power),
        ", ".join(_errors(status)),
        f"failed: {report.failed}" if report.failed else "ok",
        " ".join(report.replicas),
    ]


def _errors(status: DeviceStatus) -> Iterator[str]:
    if status.ecc_errors:
        yield f"{status.ecc_errors} ECC"
    if status.xid is not None:
        yield f"XID {status.xid}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def of_keys(keys: Keys) -> Table:
    """Return the table of `keys`."""
    columns = ("KEY", "TYPE", "VALUE", "SET BY", "DESCRIPTION")
    rows = [_key_row(state) for state in keys.keys]
    whole, spare = frozenset({"KEY"}), ("SET BY", "DESCRIPTION", "TYPE")
    return Table(columns, rows, f"{keys.run} declares no keys", whole=whole, spare=spare)


def _key_row(state: KeyState) -> list[str]:
    origin = f"revision {state.revision}" if state.revision else "trainer"
    mark, key = key_mark(state), state.key
    described = describe(key.schema, shortly=True)
    set_by = f"{origin} ({mark})" if mark else origin
    return [key.name, described, value_text(state.value), set_by, key.description]


def of_commands(keys: Keys) -> Table:
    """Return the table of a run's commands, below that of its keys."""
    rows = []
    for command in keys.commands:
        arguments = command.schema.properties or {}
        described = ", ".join(
            f"{name}: {describe(schema, shortly=True)}" for name, schema in arguments.items()
        )
        rows.append([command.name, described, command.description])
    columns, whole = ("COMMAND", "ARGUMENTS", "DESCRIPTION"), frozenset({"COMMAND"})
    return Table(columns, rows, f"{keys.run} declares no commands", whole=whole, spare=("DESCRIPTION",))


def of_values(values: dict[str, Value], run: str, marks: Mapping[str, str] | None = None) -> Table:
    """Return the table of `get`; `marks` says of some keys why they may have another value somewhere."""
    said = {key: f" ({text})" for key, text in (marks or {}).items()}
    rows = [[key, value_text(value) + said.get(key, "")] for key, value in values.items()]
    return Table(("KEY", "VALUE"), rows, f"{run} declares no keys", whole=frozenset({"KEY"}))


def of_history(entries: Sequence[HistoryEntry], empty: str) -> Table:
    """Return the table of `history`; `empty` is what is said where there are no entries."""
    columns = ("REV", "CHANGE", "MODE", "BY", "AT", "OUTCOMES", "NOTE")
    known = {entry.revision.revision: entry for entry in entries}
    rows = [_history_row(entry, known) for entry in entries]
    whole = frozenset({"REV", "MODE", "BY", "AT"})
    spare = ("BY", "MODE", "AT", "NOTE")
    return Table(columns, rows, empty, frozenset({"REV"}), whole, spare, frozenset({"CHANGE"}))


def _history_row(entry: HistoryEntry, known: Mapping[int, HistoryEntry]) -> list[str]:
    revision = entry.revision
    revert = None if entry.guard is None else known.get(entry.guard.revision)
    return [
        str(revision.revision),
        what(revision),
        when(revision),
        revision.by,
        clock(revision.at),
        outcome_summary(entry.outcomes),
        "; ".join(filter(None, (revision.note, standing(entry, revert)))),
    ]


def of_counters(stats: Stats) -> Table:
    """Return the first table of `stats`."""
    rows = [[name, str(count)] for name, count in sorted(stats.counters.items())]
    return Table(("COUNTER", "COUNT"), rows, "nothing was counted yet", frozenset({"COUNT"}))


def of_gauges(stats: Stats) -> Table:
    """Return the second table of `stats`."""
    rows = [
        [name, f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"]
        for name, value in sorted(stats.gauges.items())
    ]
    return Table(("GAUGE", "NOW"), rows, "nothing was measured yet", frozenset({"NOW"}))
