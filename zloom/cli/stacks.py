"""`zloom stacks`: what the threads of a run do, with replicas that do the same shown once."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from zloom.cli.bounds import integer
from zloom.cli.options import DEFAULT_TIMEOUT, Attempt, Broker, Json, Run, Target, Timeout

if TYPE_CHECKING:
    from zloom.client import Operator
    from zloom.messages import Stacks
    from zloom.model import Frame, ThreadStack

FROZEN = "<frozen "
"""Begins what stands in place of the file of a module that is part of the interpreter."""

_PACKAGE = re.compile(r"[/\\](?:site|dist)-packages[/\\]([^/\\]+)")
_STANDARD = re.compile(r"[/\\]lib(?:64)?[/\\]python3[^/\\]*[/\\]")

Rank = Annotated[
    int | None,
    typer.Option(
        "--rank", metavar="N", parser=integer("--rank", 0), help="Only this rank.", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command()(stacks)


def stacks(
    run: Run,
    rank: Rank = None,
    whole: Annotated[
        bool, typer.Option("--all", help="All frames; by default a run of those of libraries is one line.")
    ] = False,
    attempt: Attempt = "",
    broker: Broker = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Show where the threads of a run are right now, also while they are blocked.

    Also of a process whose native code lets no other thread run Python (it holds the GIL): at once where they
    are asked for on its host, elsewhere when that is over.
    """
    from zloom.cli import connection, output, shapes

    async def work(operator: "Operator") -> "list[Stacks]":
        which = (await connection.keys_of(operator, run, attempt)).attempt
        return await operator.stacks(run, rank=rank, attempt=which)

    found = connection.ask(Target(broker, timeout, as_json), work)
    if as_json:
        output.say_json([shapes.of_stacks(each) for each in found])
        return
    for line in lines(found, whole=whole):
        output.say(line)


def folded(found: "Sequence[Stacks]") -> "list[list[Stacks]]":
    """Return replicas in groups that do the same: the same calls, in the same state."""
    groups: list[list[Stacks]] = []
    for each in found:
        for group in groups:
            if _does(group[0]) == _does(each):
                group.append(each)
                break
        else:
            groups.append([each])
    return groups


def lines(found: "Sequence[Stacks]", *, whole: bool = False) -> list[str]:
    """Return what is printed; `whole` for all frames."""
    return [line for group in folded(found) for line in (*_group_lines(group, whole), "")][:-1]


def library_of(file: str) -> str:
    """Return to which library a file belongs that code is from; empty for the user's own."""
    package = _PACKAGE.search(file)
    if package is not None:
        return package[1].removesuffix(".py")
    return "Python" if file.startswith(FROZEN) or _STANDARD.search(file) else ""


def _does(stacks: "Stacks") -> object:
    if _is_gone(stacks):
        return stacks.state, stacks.reason
    held = stacks.hold.threads if stacks.hold else None
    return stacks.state, stacks.threads, bool(stacks.reason), held


def _is_gone(stacks: "Stacks") -> bool:
    from zloom.model import GONE

    return stacks.state in GONE


def _group_lines(group: "Sequence[Stacks]", whole: bool) -> Iterator[str]:
    first = group[0]
    if _is_gone(first):
        from zloom.words import left_as

        yield f"{_ranks([each.rank for each in group])} · {left_as(first.state, first.reason)}"
        return
    steps = sorted({each.step for each in group if each.step is not None})
    step = f", step {steps[0]}" if len(steps) == 1 else f", steps {steps[0]} to {steps[-1]}" if steps else ""
    yield f"{_ranks([each.rank for each in group])} · {first.state}{step} · {_places(group)}"
    if first.reason:
        yield f"  {first.reason}"
    yield from _thread_lines(first.threads, whole)
    if first.hold is not None:
        from zloom.cli.report import clock

        held = f"up to {first.hold.seconds:.0f} s until {clock(first.hold.at)}"
        yield f"  its GIL was held, or it was stopped, for {held}; early in that it was here:"
        yield from _thread_lines(first.hold.threads, whole)


def _thread_lines(threads: "Sequence[ThreadStack]", whole: bool) -> Iterator[str]:
    for thread in threads:
        mark = " (training)" if thread.training else ""
        yield f"  {thread.name}{mark}"
        # Where the thread is says most, whosever code that is.
        for own, run in groupby(thread.frames[:-1], lambda frame: whole or not library_of(frame.file)):
            frames = list(run)
            if own or len(frames) == 1:
                yield from _frame_lines(frames)
            else:
                names = ", ".join(dict.fromkeys(library_of(frame.file) for frame in frames))
                yield f"    … {len(frames)} frames of {names}"
        yield from _frame_lines(thread.frames[-1:])


def _frame_lines(frames: "Sequence[Frame]") -> Iterator[str]:
    for frame in frames:
        yield f"    {frame.file}:{frame.line} in {frame.function}"
        if frame.source:
            yield f"      {frame.source}"


def _places(group: "Sequence[Stacks]") -> str:
    if len(group) == 1:
        return f"{group[0].host}:{group[0].pid}"
    hosts = sorted({each.host for each in group})
    return hosts[0] if len(hosts) == 1 else f"{len(hosts)} hosts"


def _ranks(ranks: Sequence[int]) -> str:
    """Return ranks in words, neighbours as a range: `ranks 0 to 2, 5`."""
    spans: list[list[int]] = []
    for rank in sorted(ranks):
        if spans and rank == spans[-1][-1] + 1:
            spans[-1].append(rank)
        else:
            spans.append([rank])
    texts = [str(span[0]) if len(span) == 1 else f"{span[0]} to {span[-1]}" for span in spans]
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(texts)}"
