"""Commands that look: `ps`, `devices`, `keys`, `get`, `history`, `watch`, `stats`."""

from typing import TYPE_CHECKING, Annotated

import typer

from zloom.cli.bounds import given, integer
from zloom.cli.options import DEFAULT_TIMEOUT, Attempt, Broker, Json, Run, Target, Timeout

if TYPE_CHECKING:
    from zloom.client import Operator
    from zloom.model import HistoryEntry, ReplicaStatus, RunStatus

WIDE = 140
"""Columns from which on `ps` has room for the replicas' ids."""

Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="N",
        parser=integer("--limit", 1),
        help="At most so many; all by default.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    for command in (ps, devices, keys, get, history, watch, stats):
        app.command()(command)


def ps(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Only replicas of this run.", show_default=False, callback=given),
    ] = "",
    attempt: Annotated[
        str,
        typer.Option(
            "--attempt", metavar="ID", help="Only this attempt of RUN.", show_default=False, callback=given
        ),
    ] = "",
    live: Annotated[
        bool, typer.Option("--live", help="Only replicas that have not finished and are not lost.")
    ] = False,
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """List the replicas of all runs: who trains where, at which step."""
    from zloom.cli import connection, exits, output, shapes, tables, usage
    from zloom.model import GONE
    from zloom.words import counted

    target = Target(broker, timeout, as_json)
    with exits.reported(as_json=as_json):
        usage.check_attempt(run, attempt)
    replicas = connection.ask(target, lambda operator: _replicas(operator, run, attempt))
    shown = [each for each in replicas if not live or each.state not in GONE]
    if as_json:
        output.say_json([shapes.of_struct(each) for each in shown])
    elif replicas and not shown:
        output.say(f"no replica is live; ps without --live lists {counted(len(replicas), 'other')}")
    else:
        output.show(tables.of_replicas(shown, ids=output.width() >= WIDE))


async def _replicas(operator: "Operator", run: str, attempt: str) -> "list[ReplicaStatus]":
    replicas = await operator.replicas(run, attempt=attempt)
    if run and not replicas:
        await operator.keys(run, attempt=attempt)  # refused, with what there is, where there is none
    return replicas


def devices(broker: Broker = None, timeout: Timeout = DEFAULT_TIMEOUT, as_json: Json = False) -> None:
    """List the devices of all replicas, with their newest readings."""
    from zloom.cli import connection, output, shapes, tables

    reports = connection.ask(Target(broker, timeout, as_json), lambda operator: operator.devices())
    if as_json:
        output.say_json([shapes.of_struct(each) for each in reports])
    else:
        output.show(tables.of_devices(reports))


def keys(
    run: Run,
    attempt: Attempt = "",
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """List what can be changed in a run: each key with type, bounds, value and description; its commands."""
    from zloom.cli import connection, output, shapes, tables

    target = Target(broker, timeout, as_json)
    found = connection.ask(target, lambda operator: connection.keys_of(operator, run, attempt))
    if as_json:
        output.say_json(shapes.of_keys(found))
    else:
        output.show(tables.of_keys(found))
        output.say("")
        output.show(tables.of_commands(found))


def get(
    run: Run,
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="Only this key, as a bare value.", show_default=False)
    ] = "",
    attempt: Attempt = "",
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Show the values that a run's config has now."""
    from zloom.cli import arguments, connection, exits, output, report, tables

    target = Target(broker, timeout, as_json)
    with exits.reported(as_json=as_json):
        found = connection.ask(target, lambda operator: connection.keys_of(operator, run, attempt))
        values = arguments.values(found, key)
    if as_json:
        output.say_json(values)
    elif key:
        output.say(report.value_text(values[key]))
        for note in report.key_notes(next(state for state in found.keys if state.key.name == key)):
            output.remark(note)
    else:
        marks = {state.key.name: mark for state in found.keys if (mark := report.key_mark(state))}
        output.show(tables.of_values(values, run, marks))


def history(
    run: Run,
    limit: Limit = None,
    attempt: Attempt = "",
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """List the changes of a run, the newest first, with what became of each."""
    from zloom.cli import choosing, connection, output, shapes, tables

    async def work(operator: "Operator") -> "tuple[str, list[HistoryEntry], list[RunStatus]]":
        which = (await connection.keys_of(operator, run, attempt)).attempt
        entries = await operator.history(run, limit, attempt=which)
        return which, entries, [] if entries else await operator.runs(run)

    which, entries, attempts = connection.ask(Target(broker, timeout, as_json), work)
    if as_json:
        output.say_json([shapes.of_history(entry) for entry in entries])
    else:
        output.show(tables.of_history(entries, choosing.unchanged(run, which, attempts)))


def watch(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Only this run.", show_default=False, callback=given)
    ] = "",
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Print what happens as it happens: status, changes, outcomes, events. Ctrl-C ends it.

    A run that is not there yet is waited for; --timeout bounds the connection, and not the watch.
    """
    from zloom.cli import connection

    connection.ask(Target(broker, timeout, as_json), lambda operator: _watch(operator, run, as_json))


async def _watch(operator: "Operator", run: str, as_json: bool) -> None:
    import time

    from zloom.cli import contact, output, report, shapes

    operator.on_silence(lambda silence: output.remark(contact.told(silence, operator.endpoint, run)))
    async with operator.watch(run) as feed:
        runs = await operator.runs()
        if not any(each.live for each in runs if run in ("", each.run)):
            output.remark(report.awaited(run, {each.run for each in runs}))
        missed = 0
        async for observation in feed:
            if as_json:
                output.say_json_line(shapes.of_observation(observation))
            else:
                for line in report.observation_lines(observation, time.time()):
                    output.say(line)
            if feed.missed + feed.dropped > missed:
                output.complain(f"{feed.missed + feed.dropped - missed} messages were missed")
                missed = feed.missed + feed.dropped


def stats(broker: Broker = None, timeout: Timeout = DEFAULT_TIMEOUT, as_json: Json = False) -> None:
    """Show the broker's numbers: what was received, dropped or refused since it began; queues and times."""
    from zloom.cli import connection, output, shapes, tables

    found = connection.ask(Target(broker, timeout, as_json), lambda operator: operator.stats())
    if as_json:
        output.say_json({name: value for name, value in shapes.of_struct(found).items() if name != "id"})
    else:
        output.show(tables.of_counters(found))
        output.say("")
        output.show(tables.of_gauges(found))
