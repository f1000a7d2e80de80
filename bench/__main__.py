"""`python -m bench [NAME …]`: measure, print, save; `… report FILE`: write its page; `… guard`: count."""

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from rich.console import Console

from bench import (
    anatomy,
    anatomy_tables,
    calls,
    guard,
    machine,
    report,
    results,
    round_trips,
    suite,
    tables,
    training,
)
from bench.extent import Extent
from bench.results import CONTENDERS, LOADS, TRANSPORTS, Run
from bench.tables import Grid

FOLDER = Path("out", "bench")
PAGE = Path("docs", f"{report.PAGE}.md")

TABLE_WIDTH = 150
"""Columns that the widest table takes, also where the terminal has fewer or the output is a file."""

BATCHES, QUICK_BATCHES = 100, 10


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says."""
    console = Console(highlight=False, width=max(Console().width, TABLE_WIDTH))
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["report"]:
        _report(words[1:], console)
        return
    if words[:1] == ["guard"]:
        _guard(words[1:], console)
        return
    parser = _parser()
    options = parser.parse_args(words)
    try:
        run = _measure(options, console)
    except TimeoutError as error:
        parser.exit(1, f"bench: {error or 'a contender did not answer'}\n")
    output = options.output or FOLDER / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    results.save(run, output)
    for grid in _grids(run):
        if grid.rows:
            console.print(grid.rich())
    console.print(f"saved {output} after {run.seconds:.0f} s")


def _report(words: list[str], console: Console) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench report", description="Write the page of a saved run, and draw its pictures."
    )
    parser.add_argument("run", type=Path, metavar="FILE.json")
    parser.add_argument("--output", type=Path, default=PAGE, help=f"default: {PAGE}")
    options = parser.parse_args(words)
    try:
        run = results.load(options.run)
    except (OSError, msgspec.DecodeError) as error:
        parser.error(f"{options.run} is no saved run: {error}")
    try:
        written = report.write(run, options.output)
    except ImportError as error:
        parser.error(f"the pictures of {options.run} cannot be drawn: {error}")
    for path in written:
        console.print(f"wrote {path}")


def _guard(words: list[str], console: Console) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench guard", description="Count instructions, and compare them with their budgets."
    )
    parser.parse_args(words)
    rows = guard.measure()
    console.print(guard.table(rows).rich())
    if not all(row.kept for row in rows):
        parser.exit(1, "bench: a budget is exceeded; bench/guard.py says what they are\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, epilog=f"names: {', '.join(suite.NAMES)}, calls"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", type=_name, help="only these benches")
    parser.add_argument("--rounds", type=_rounds, default=5, help="turns of each contender (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a few seconds each, to see that it works")
    parser.add_argument("--large", action="store_true", help="sizes too that take minutes each")
    parser.add_argument(
        "--transport", action="append", choices=TRANSPORTS, help="of the round trips; can be repeated"
    )
    parser.add_argument(
        "--load", action="append", choices=LOADS, help="of busy, what the training does; can be repeated"
    )
    parser.add_argument(
        "--contender",
        action="append",
        choices=CONTENDERS,
        help="of the round trips and of open; can be repeated",
    )
    parser.add_argument("--output", type=Path, help="where to save (default: a new file in out/bench)")
    return parser


def _name(text: str) -> str:
    if text not in (*suite.NAMES, "calls"):
        raise argparse.ArgumentTypeError(f"no bench {text}; expected {', '.join(suite.NAMES)}, calls")
    return text


def _rounds(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


def _allow_files() -> None:
    """Take as many open files as this user may: a thousand weavelets need several thousands."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _measure(options: argparse.Namespace, console: Console) -> Run:
    started = time.monotonic()
    _allow_files()
    names = options.names or [*suite.NAMES, "calls"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Beside the results, because a system's folder for temporary files may not be on a disk.
    with TemporaryDirectory(dir=FOLDER) as name:
        folder = Path(name).absolute()
        extent = Extent(options.rounds, options.quick, options.large, folder, console.print)
        described = machine.describe(folder)
        step_ms = training.step_ms("busy")
        torch_step_ms = training.step_ms("torch") if training.has_torch() and "busy" in names else None
        only = suite.Only(options.transport or (), options.load or LOADS, options.contender or CONTENDERS)
        found = suite.measure([each for each in names if each != "calls"], extent, only)
        batches = QUICK_BATCHES if options.quick else BATCHES
        costs = calls.measure(batches, folder) if "calls" in names else []
    return Run(
        described,
        options.quick,
        step_ms,
        round(time.monotonic() - started, 1),
        found.round_trips,
        round_trips.compared(found.round_trips),
        costs,
        torch_step_ms,
        found.figures,
        found.verdicts,
        found.absent,
        found.open_loop,
    )


def _grids(run: Run) -> Iterator[Grid]:
    yield from (tables.round_trips(run), tables.ratios(run), tables.open_loop(run), tables.costs(run))
    if anatomy_tables.measured(run):
        yield from (anatomy_tables.legs(run), anatomy_tables.groups(run), anatomy_tables.needed(run))
    yield from (tables.figures(run, name) for name in suite.SIMPLE if name != anatomy.NAME)
    yield from (tables.verdicts(run), tables.absences(run))


if __name__ == "__main__":
    main()
