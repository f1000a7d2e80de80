"""docs/performance.md, written from a saved run, so that no figure in it is ever typed."""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench import anatomy_tables, pages, picture_data, tables
from bench.calls import BATCH, out_of_reach
from bench.limits import limits
from bench.open_loop import GRACE
from bench.orders import PAYLOAD
from bench.percentiles import THOUSANDTH
from bench.results import Machine, Run
from bench.round_trips import BUSY_APART

PAGE = "performance"

TRIED = Path(__file__).with_name("tried.md")
"""The log of what was done about the figures."""

"""The name of the page, and what its pictures begin with: those of another page have other names."""


def picture_path(page: str, name: str) -> Path:
    """Return where a picture of a page is, beside it."""
    return Path("images", f"{page}-{name}.svg")


def render(run: Run, page: str = PAGE) -> str:
    """Return the page: the sections of what was measured, and its pictures.

    Args:
        run: What was measured.
        page: Its name, without `.md`.
    """
    drawn = {
        name: pages.PICTURE.format(words=pages.PICTURES[name], path=picture_path(page, name).as_posix())
        for name in picture_data.names(run)
    }
    return "\n".join(_sections(run, drawn))


def write(run: Run, path: Path) -> list[Path]:
    """Write the page and its pictures; returns the files. A picture that this run has no data for is removed.

    Raises:
        ImportError: What draws them is not installed; nothing was written.
    """
    wanted = {name: path.parent / picture_path(path.stem, name) for name in picture_data.names(run)}
    _draw(run, wanted)
    for name in picture_data.PICTURES.keys() - wanted.keys():
        (path.parent / picture_path(path.stem, name)).unlink(missing_ok=True)
    path.write_text(render(run, path.stem))
    return [path, *wanted.values()]


def _draw(run: Run, wanted: dict[str, Path]) -> None:
    if not wanted:
        return
    if importlib.util.find_spec("matplotlib") is None:  # an extra
        raise ImportError("no matplotlib found: pip install matplotlib")
    from bench import pictures

    for name, path in wanted.items():
        path.parent.mkdir(exist_ok=True)
        pictures.draw(run, name, path)


def _sections(run: Run, drawn: Mapping[str, str]) -> Iterator[str]:
    yield pages.HEAD.format(machine=_machine(run.machine))
    if run.verdicts:
        yield pages.GOALS.format(verdicts=tables.verdicts(run).markdown())
    if (beyond := limits(run)).rows:
        yield pages.LIMITS.format(limits=beyond.markdown())
    if run.round_trips:
        yield _round_trips(run)
    if run.ratios:
        rounds = len(run.round_trips[0].rounds)
        yield pages.PROPORTION.format(rounds=rounds, ratios=tables.ratios(run).markdown())
    if anatomy_tables.measured(run):
        yield _anatomy(run)
    if run.open_loop:
        yield pages.OPEN_LOOP.format(grace=GRACE, open_loop=tables.open_loop(run).markdown())
    if "latency" in drawn:
        yield pages.CURVES.format(picture=drawn["latency"])
    for name, section in pages.BENCHES.items():
        if any(each.bench == name for each in run.figures):
            yield section.format(figures=tables.figures(run, name).markdown())
            if pages.PICTURE_OF.get(name) in drawn:
                yield drawn[pages.PICTURE_OF[name]]
    if run.costs:
        reach = out_of_reach(run.costs)
        yield pages.COSTS.format(
            batch=BATCH, costs=tables.costs(run).markdown(), reach=f"\n\n{reach}" if reach else ""
        )
    if run.absent:
        yield pages.ABSENT.format(absent=tables.absences(run).markdown())
    if run.round_trips:
        yield TRIED.read_text()


def _round_trips(run: Run) -> str:
    loads = {each.load for each in run.round_trips}
    busy = pages.BUSY.format(step_ms=run.step_ms, apart_ms=BUSY_APART * 1000) if "busy" in loads else ""
    torch = "" if run.torch_step_ms is None else pages.TORCH.format(step_ms=run.torch_step_ms)
    return pages.ROUND_TRIPS.format(
        payload=len(PAYLOAD),
        loads=busy + torch,
        thousandth=THOUSANDTH,
        round_trips=tables.round_trips(run).markdown(),
    )


def _anatomy(run: Run) -> str:
    return pages.ANATOMY.format(
        left_out=anatomy_tables.left_out(run),
        payload=len(PAYLOAD),
        legs=anatomy_tables.legs(run).markdown(),
        groups=anatomy_tables.groups(run).markdown(),
        needed=anatomy_tables.needed(run).markdown(),
        out_of_reach=anatomy_tables.out_of_reach(run) or pages.NO_PEERS,
    )


def _machine(machine: Machine) -> str:
    facts = {
        "Machine": f"{machine.cpu}, {machine.cores} cores, {machine.kernel}",
        "GPU": machine.gpu,
        "Software": _software(machine),
        "Disk": f"{machine.disk_fsync_us:.0f} µs for 4 KiB and their fsync",
        "Date": machine.date,
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items() if fact)


def _software(machine: Machine) -> str:
    ours = f"zloom {machine.zloom} {machine.commit}".rstrip()
    zmq = f"pyzmq {machine.pyzmq}, libzmq {machine.libzmq}"
    parts = [machine.python, zmq, machine.others, machine.nats, machine.redis, ours]
    return ", ".join(part for part in parts if part)
