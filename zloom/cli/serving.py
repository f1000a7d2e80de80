"""Commands of the broker's side: `broker`, and `journal verify` and `repair`."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from zloom.cli.bounds import choice, integer
from zloom.cli.options import AuthDir, Json, expanded


class DurabilityChoice(enum.StrEnum):
    """When a change is confirmed."""

    FSYNC = "fsync"
    BUFFERED = "buffered"


class ReactionChoice(enum.StrEnum):
    """What a run does when a device fails."""

    NOTIFY = "notify"
    CHECKPOINT = "checkpoint"
    STOP = "stop"


class LogLevelChoice(enum.StrEnum):
    """The least severe level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        envvar="ZLOOM_DATA_DIR",
        help="Folder of the journal; by default zloom in your state folder.",
        show_default=False,
        file_okay=False,
        callback=expanded,
    ),
]

journal = typer.Typer(help="Check or repair a broker's journal, without a broker.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command()(broker)
    app.add_typer(journal, name="journal")


def broker(
    bind: Annotated[
        list[str] | None,
        typer.Option(
            "--bind",
            envvar="ZLOOM_BIND",
            metavar="ENDPOINT",
            help="Where to listen, such as tcp://127.0.0.1:5555; can be given several times. By default a "
            "socket in your runtime folder.",
            show_default=False,
        ),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(
            "--advertise",
            envvar="ZLOOM_ADVERTISE",
            metavar="ENDPOINT",
            help="Where peers on TCP find updates, if not at the bound port on the host that they reached.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    durability: Annotated[
        DurabilityChoice,
        typer.Option(
            "--durability",
            metavar="|".join(DurabilityChoice),
            parser=choice("--durability", DurabilityChoice),
            envvar="ZLOOM_DURABILITY",
            help="fsync: a change is on disk before it is confirmed. buffered: a loss of power may lose the "
            "newest.",
        ),
    ] = DurabilityChoice.FSYNC,
    log_level: Annotated[
        LogLevelChoice,
        typer.Option(
            "--log-level",
            metavar="|".join(LogLevelChoice),
            parser=choice("--log-level", LogLevelChoice),
            envvar="ZLOOM_LOG_LEVEL",
            help="The least that is logged.",
        ),
    ] = LogLevelChoice.INFO,
    auth_dir: AuthDir = None,
    on_device_failure: Annotated[
        ReactionChoice,
        typer.Option(
            "--on-device-failure",
            metavar="|".join(ReactionChoice),
            parser=choice("--on-device-failure", ReactionChoice),
            envvar="ZLOOM_ON_DEVICE_FAILURE",
            help="What a run does when a device of it fails: notify tells its trainer and those who watch; "
            "checkpoint and stop have it do that besides.",
        ),
    ] = ReactionChoice.NOTIFY,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            envvar="ZLOOM_METRICS_PORT",
            metavar="PORT",
            parser=integer("--metrics-port", 0, 65535),
            help="Serve the broker's numbers there over HTTP, for Prometheus; 0 for a free port.",
            show_default=False,
        ),
    ] = None,
    metrics_host: Annotated[
        str,
        typer.Option("--metrics-host", envvar="ZLOOM_METRICS_HOST", metavar="ADDRESS", help="Of that port."),
    ] = "127.0.0.1",
    no_auth: Annotated[
        bool,
        typer.Option(
            "--no-auth",
            envvar="ZLOOM_NO_AUTH",
            help="Ask for no keys on TCP: whoever can connect may steer every run.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the broker, the hub between trainers and operators, until SIGTERM, SIGHUP or Ctrl-C."""
    from zloom.cli.exits import reported
    from zloom_broker import foreground
    from zloom_broker.keyring import default_auth_dir
    from zloom_broker.settings import BrokerSettings, default_data_dir

    with reported(as_json=as_json, serving=True):
        settings = BrokerSettings(
            advertise=advertise,
            data_dir=data_dir or default_data_dir(),
            durability=durability.value,
            log_level=log_level.value,
            auth_dir=auth_dir or default_auth_dir(),
            on_device_failure=on_device_failure.value,
            metrics_port=metrics_port,
            metrics_host=metrics_host,
            no_auth=no_auth,
            **({"bind": tuple(bind)} if bind else {}),
        )
        code = foreground.run(settings, as_json=as_json)
    raise typer.Exit(code)


@journal.command()
def verify(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Check every row, every snapshot and the head; changes nothing. Exits with 1 if damaged."""
    from zloom.cli import exits, output, shapes
    from zloom.words import counted
    from zloom_broker import journal as journals
    from zloom_broker.settings import default_data_dir

    with exits.reported(as_json=as_json, serving=True):
        report = journals.verify(data_dir or default_data_dir())
    for problem in report.problems:
        output.complain(problem)
    for note in report.notes:
        output.remark(note)
    if as_json:
        output.say_json({"ok": report.ok, **shapes.of_dataclass(report)})
    else:
        state = "in order" if report.ok else "damaged: `zloom journal repair` says what it would keep"
        snapshots = counted(len(report.snapshots), "snapshot")
        held = f"{report.rows} rows up to row {report.last_seq}, {snapshots}"
        output.say(f"{held}: {state}")
    raise typer.Exit(0 if report.ok else 1)


@journal.command()
def repair(
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Do it; without it, only say what would be done.")
    ] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Rebuild a damaged journal from what is intact; the old files are copied aside first.

    Exits with 0 if the journal is in order now, else with 1.
    """
    from zloom.cli import exits, output, shapes
    from zloom_broker import journal as journals
    from zloom_broker.settings import default_data_dir

    with exits.reported(as_json=as_json, serving=True):
        report = journals.repair(data_dir or default_data_dir(), accept_loss=accept_loss)
    for problem in report.found.problems:
        output.complain(problem)
    for note in report.found.notes:
        output.remark(note)
    kept = f"rows {report.first_seq} to {report.last_seq} kept, {report.lost} confirmed rows lost"
    if as_json:
        found = {"ok": report.found.ok, **shapes.of_dataclass(report.found)}
        output.say_json({**shapes.of_dataclass(report), "found": found})
    elif report.found.ok:
        output.say("the journal is in order; nothing was done")
    elif report.repaired:
        output.say(f"repaired: {kept}; the old files are in {report.quarantine}")
    else:
        output.say(f"nothing was done; with --accept-loss: {kept}")
    raise typer.Exit(0 if report.found.ok or report.repaired else 1)
