"""What both acts of the demo stand on: processes, what the broker tells of a run, and the command line."""

import asyncio
import shlex
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.text import Text

import zloom
from zloom.messages import Reported
from zloom.model import HistoryEntry, ReplicaStatus

FIRST_STEP = 60.0
"""Seconds to wait for the first step: importing torch alone takes ten on a slow disk."""

LEAVE = 30.0
"""Seconds for a process to end: the trainer validates once more when it is told to stop."""


@dataclass
class Watched:
    """What the broker has told of a run of `ranks` processes so far."""

    ranks: int = 1
    points: dict[tuple[str, int], list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    """(metric, rank) → each step with its value, as the rank reported them."""
    steps: dict[int, int] = field(default_factory=dict)
    """Rank → the newest step."""
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def follow(self, operator: zloom.Operator, run: str) -> AsyncIterator[ReplicaStatus]:
        """Take in what is told of a run, for ever; yield the status of whoever reported."""
        async for told in operator.watch(run):
            if not isinstance(told, Reported):
                continue
            for metric, series in told.metrics.items():
                self.points[metric, told.status.rank] += zip(series.steps, series.values, strict=True)
            async with self.moved:
                self.steps[told.status.rank] = told.status.step or 0
                self.moved.notify_all()
            yield told.status

    async def reach(self, step: int) -> None:
        """Wait until every rank has done a step."""

        def all_have() -> bool:
            return len(self.steps) == self.ranks and min(self.steps.values()) >= step

        async with self.moved:
            await asyncio.wait_for(self.moved.wait_for(all_have), FIRST_STEP + step)


@dataclass
class Stage:
    """One run, and an operator at a terminal."""

    run: str
    operator: zloom.Operator
    console: Console
    watched: Watched
    changes: list[tuple[int, str]] = field(default_factory=list)
    """Each that was made: the step at which rank 0 applied it, and its words."""

    async def change(self, command: str, *words: str) -> HistoryEntry:
        """Make a change, which must succeed on all ranks; return what the history says of it."""
        if code := await self.zloom(command, *words):
            raise SystemExit(f"demo: `zloom {command}` ended with exit code {code}")
        entry = await self.newest()
        what = " ".join(words if command == "set" else (command, *words))
        self.changes.append((entry.outcomes[0].step or 0, f"r{entry.revision.revision} {what}"))
        return entry

    async def refusal(self, command: str, *words: str) -> None:
        """Ask for something that must change nothing on any rank."""
        if await self.zloom(command, *words) != 1:
            raise SystemExit(f"demo: {shlex.join(words)} was not refused")

    async def newest(self) -> HistoryEntry:
        """Return the newest revision."""
        (entry,) = await self.operator.history(self.run, limit=1)
        return entry

    async def zloom(self, command: str, *words: str) -> int:
        """Run a command of zloom's on the run, show what it prints, and return its exit code."""
        line = Text.assemble(("$ zloom", "bold"), " ", shlex.join((command, self.run, *words)))
        self.console.print(line)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "zloom", command, self.run, *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await child.communicate()
        code = await child.wait()
        self.console.print(Text(output.decode().rstrip(), "red" if code else "green"))
        return code


@asynccontextmanager
async def process(log: Path, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process, its output in a file; end it with the block."""
    with log.open("wb") as output:
        child = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
        await asyncio.wait_for(child.wait(), LEAVE)


async def play(
    script: Coroutine[None, None, None],
    follow: Coroutine[None, None, None],
    trainer: asyncio.subprocess.Process,
    log: Path,
) -> None:
    """Play a script to its end, after which the trainer must end well; `follow` runs beside it."""
    follower, ended = asyncio.create_task(follow), asyncio.create_task(trainer.wait())
    playing = asyncio.create_task(script)
    await asyncio.wait({playing, ended, follower}, return_when=asyncio.FIRST_COMPLETED)
    if not playing.done():
        raise SystemExit(f"demo: the trainer ended too early; see {log}")
    playing.result()
    if await asyncio.wait_for(ended, LEAVE):
        raise SystemExit(f"demo: the trainer failed; see {log}")
    follower.cancel()
