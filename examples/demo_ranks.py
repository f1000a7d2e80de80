"""The second act of the demo: two processes that train together, and the modes of a change.

The ranks of `train_ddp.py` average their parameters every few steps, and run ahead of each other in between:
what each does on its own comes at another step. What is agreed on comes at one, or not at all.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from demo_stage import Stage, Watched, play, process
from plot_modes import Change, Points
from rich.console import Console

import zloom

RUN = "ddp-lm"
RANKS = 2
EXAMPLES = Path(__file__).parent
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS))

RAMP = 30
"""Steps that the ramp takes."""

NEXT = 0.02, 0.03, 0.04
"""Set with `--mode next`, one after the other: now and then the ranks are at the same step by chance."""


@dataclass
class TwoRanks(Stage):
    """The second act."""

    texts: Path = Path()
    drawn: list[Change] = field(default_factory=list)

    async def script(self) -> None:
        """Change the learning rate in each way that there is."""
        await self.watched.reach(1)
        self.say("from here on they average every 50 steps only, and may run ahead of each other")
        await self.change("set", "sync_every=50")
        self.say("each rank at its own next step")
        await self.each_by_itself()
        self.say("the default: all ranks at the same step, or none")
        await self.agreed("consistent", "learning_rate=0.08")
        self.say("rank 0 has a text to go on with, rank 1 has none: neither keeps anything")
        await self.refusal("set", f"text={self.texts}", "learning_rate=0.5")
        await self.zloom("get")
        self.say("at a step that is named; --after counts from now")
        await self.agreed("at a step", "learning_rate=0.05", "--after", "60")
        self.say("step by step, the same on all ranks")
        await self.agreed("ramp", f"learning_rate=..0.01 over {RAMP} steps", over=RAMP)
        self.say("commands too")
        await self.change("pause")
        await self.change("stop")

    def say(self, what: str) -> None:
        """Say what comes."""
        self.console.print(f"[dim]# {what}[/]")

    async def each_by_itself(self) -> None:
        """Make a change that is not agreed on, until it comes at different steps."""
        for value in NEXT:
            change = await self.draw("next", f"learning_rate={value}", "--mode", "next")
            if len(set(change.steps)) > 1:
                break
        self.drawn.append(change)

    async def agreed(self, mode: str, what: str, *options: str, over: int = 0) -> None:
        """Make a change that must come at the same step on all ranks."""
        change = await self.draw(mode, what, *options, over=over)
        if len(set(change.steps)) > 1:
            raise SystemExit(f"demo: {what} came at different steps: {change.where}")
        self.drawn.append(change)

    async def draw(self, mode: str, what: str, *options: str, over: int = 0) -> Change:
        """Change the learning rate, say where each rank did, and go on until there is enough to draw."""
        entry = await self.change("set", what, *options)
        outcomes = sorted(entry.outcomes, key=lambda outcome: outcome.rank)
        steps = tuple(outcome.step for outcome in outcomes if outcome.step is not None)
        change = Change(mode, " ".join((what, *options)), steps, over)
        self.console.print(f"  {change.where}")
        await self.watched.reach(change.span[1] + 1)
        return change

    async def follow(self) -> None:
        """Follow the run."""
        async for _ in self.watched.follow(self.operator, self.run):
            pass


async def steer_ranks(
    operator: zloom.Operator, console: Console, out: Path
) -> tuple[list[Points], list[Change]]:
    """Train on two ranks, steer them; return each rank's learning rate at each step, and its changes."""
    console.print(f"[bold]Two ranks[/] of {EXAMPLES.name}/train_ddp.py start: they average their parameters")
    act = TwoRanks(RUN, operator, console, Watched(RANKS), texts=text_for_rank_0(out / "texts"))
    log = out / "ranks.log"
    async with process(log, sys.executable, *TORCHRUN, str(EXAMPLES / "train_ddp.py")) as trainer:
        await play(act.script(), act.follow(), trainer, log)
    return [act.watched.points["learning_rate", rank] for rank in range(RANKS)], act.drawn


def text_for_rank_0(folder: Path) -> Path:
    """Return a folder with a text for the first rank, and none for the others."""
    folder.mkdir(exist_ok=True)
    (folder / "0.txt").write_bytes(Path(__file__).read_bytes())
    return folder
