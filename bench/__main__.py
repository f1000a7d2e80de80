"""`python -m bench`: measure, print, save; `python -m bench report FILE.json`: write the page of a run."""

import argparse
import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from bench import calls, machine, report, results, round_trips, tables, training
from bench.results import TRANSPORTS, Run

FOLDER = Path("out", "bench")
PAGE = Path("docs", "performance.md")

BATCHES, QUICK_BATCHES = 100, 10


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    if options.command == "report":
        options.output.write_text(report.render(results.load(options.run)))
        console.print(f"wrote {options.output}")
        return
    run = _measure(options, console)
    output = options.output or FOLDER / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    results.save(run, output)
    for grid in (tables.round_trips(run), tables.ratios(run), tables.costs(run)):
        console.print(grid.rich())
    console.print(f"saved {output} after {run.seconds:.0f} s")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=_rounds, default=5, help="turns of each contender (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it works")
    parser.add_argument(
        "--transport", action="append", choices=TRANSPORTS, help="measure only this one; can be repeated"
    )
    parser.add_argument("--output", type=Path, help="where to save (default: a new file in out/bench)")
    commands = parser.add_subparsers(dest="command", metavar="report FILE.json")
    page = commands.add_parser("report", help="write docs/performance.md from a saved run")
    page.add_argument("run", type=Path, metavar="FILE.json")
    page.add_argument("--output", type=Path, default=PAGE, help=f"default: {PAGE}")
    return parser


def _rounds(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


def _measure(options: argparse.Namespace, console: Console) -> Run:
    started = time.monotonic()
    schedule = (round_trips.quick if options.quick else round_trips.full)(options.rounds)
    transports = options.transport or TRANSPORTS
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Beside the results, because a system's folder for temporary files may not be on a disk.
    with TemporaryDirectory(dir=FOLDER) as name:
        folder = Path(name).absolute()
        described = machine.describe(folder)
        step_ms = training.step_ms()
        samples = asyncio.run(round_trips.measure(transports, schedule, folder, console.print))
        costs = calls.measure(QUICK_BATCHES if options.quick else BATCHES, folder)
    found = round_trips.summarized(samples)
    seconds = round(time.monotonic() - started, 1)
    return Run(described, options.quick, step_ms, seconds, found, round_trips.compared(found), costs)


if __name__ == "__main__":
    main()
