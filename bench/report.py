"""docs/performance.md, written from a saved run, so that no figure in it is ever typed."""

from bench import tables
from bench.calls import BATCH
from bench.echo import PAYLOAD
from bench.percentiles import THOUSANDTH
from bench.results import Machine, Run
from bench.round_trips import BUSY_APART

_PAGE = """\
# Performance

<!-- Written by `python -m bench report`; do not edit. -->

How long a change takes from an operator to a trainer's handler and back, beside plain ZeroMQ in the same
run, and what zloom costs a step of training. `make bench` measures it on your machine and saves it in
`out/bench/`; `python -m bench report FILE.json` writes this page from what was saved.

{machine}

## Round trips

For zloom: `await operator.set(…)` of one key, from the call to the result that names the step at which the
trainer applied it: operator → broker → journal → weavelet → handler at the next safe point → broker →
journal → operator. With `fsync` the change and its outcome are each on disk before anybody is told; with
`buffered` the operating system has them.

`pyzmq` and `zmq.asyncio` are echoes of {payload} bytes over the same two hops, client → router → worker and
back: the floor, on which nothing is validated, numbered, written or handed to the training thread.

*Idle*: the training waits, zloom's in a pause inside `tick()`, and changes are made one right after the
other. *Busy*: it makes steps of {step_ms:.2f} ms in pure Python, in the thread beside the weavelet or the
worker, and between two changes lie {apart_ms:.1f} ms at most, in which it gets the interpreter back. Such
steps never give the interpreter up by themselves: whoever else wants it waits for the switch interval, 5 ms
by default, each time; unless it comes in the moment before the training itself has woken up, and then it is
served as if idle. The medians lie between these two kinds, and so differ from round to round. Most
operations of PyTorch let go of the interpreter: a real training lies between idle and busy.

Over ipc and tcp the operator, the broker and the trainer are processes of their own. Over inproc all of
them share one process and one interpreter, each in a thread; while the training is busy they take turns,
and the clock starts when the operator has its turn.

Milliseconds, of the n samples of all rounds together; a p99.9 takes {thousandth} of them at least:

{round_trips}

## In proportion

zloom's median divided by a peer's median of the same round; the contenders take turns within each of
{rounds} rounds. The table has the median of the rounds' ratios, and in brackets the least and the greatest.
A busy training over inproc is left out: which thread of the one interpreter runs next is up to chance.

{ratios}

## What a step pays

One call on the training thread, with a broker connected that takes the points: the best and the median of
batches of {batch} calls. The tensor is on the CPU. The loop of the measurement is in each figure, those of
the empty methods too. Nanoseconds; a goal is met when the median is below it:

{costs}
"""


def render(run: Run) -> str:
    """Return the page."""
    return _PAGE.format(
        machine=_machine(run.machine),
        payload=len(PAYLOAD),
        step_ms=run.step_ms,
        apart_ms=BUSY_APART * 1000,
        thousandth=THOUSANDTH,
        round_trips=tables.round_trips(run).markdown(),
        rounds=len(run.round_trips[0].rounds),
        ratios=tables.ratios(run).markdown(),
        batch=BATCH,
        costs=tables.costs(run).markdown(),
    )


def _machine(machine: Machine) -> str:
    facts = {
        "Machine": f"{machine.cpu}, {machine.cores} cores, {machine.kernel}",
        "Software": f"{machine.python}, pyzmq {machine.pyzmq}, libzmq {machine.libzmq}, "
        f"zloom {machine.zloom} {machine.commit}".rstrip(),
        "Disk": f"{machine.disk_fsync_us:.0f} µs for 4 KiB and their fsync",
        "Date": machine.date,
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())
