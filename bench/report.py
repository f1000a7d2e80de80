"""docs/performance.md, written from a saved run, so that no figure in it is ever typed."""

from collections.abc import Iterator

from bench import pages, tables
from bench.calls import BATCH
from bench.orders import PAYLOAD
from bench.percentiles import THOUSANDTH
from bench.results import Machine, Run
from bench.round_trips import BUSY_APART


def render(run: Run) -> str:
    """Return the page: the sections of what was measured."""
    return "\n".join(_sections(run))


def _sections(run: Run) -> Iterator[str]:
    yield pages.HEAD.format(machine=_machine(run.machine))
    if run.verdicts:
        yield pages.GOALS.format(verdicts=tables.verdicts(run).markdown())
    if run.round_trips:
        yield _round_trips(run)
    if run.ratios:
        rounds = len(run.round_trips[0].rounds)
        yield pages.PROPORTION.format(rounds=rounds, ratios=tables.ratios(run).markdown())
    for name, section in pages.BENCHES.items():
        if any(each.bench == name for each in run.figures):
            yield section.format(figures=tables.figures(run, name).markdown())
    if run.costs:
        yield pages.COSTS.format(batch=BATCH, costs=tables.costs(run).markdown())
    if run.absent:
        yield pages.ABSENT.format(absent=tables.absences(run).markdown())


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
    parts = [machine.python, zmq, machine.nats, machine.redis, ours]
    return ", ".join(part for part in parts if part)
