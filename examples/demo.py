"""The whole of zloom in two minutes or three: a broker, two training runs and an operator, all processes.

The first act trains `train_lightning.py` on the source of Python's standard library, steers it while it runs,
and draws what became of its loss. The second, in `demo_ranks.py`, steers two processes that train together.
Everything is real, and goes through the broker: the progress bar too.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from demo_ranks import steer_ranks
from demo_stage import Stage, Watched, play, process
from plot_loss import plot_loss
from plot_modes import plot_modes
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import zloom

RUN = "tiny-lm"
EXAMPLES = Path(__file__).parent

COLUMNS = 110
"""Width of what is printed where stdout is no terminal: few lines wrap."""


@dataclass
class OneProcess(Stage):
    """The first act."""

    last_step: int = 0

    async def script(self) -> None:
        """Steer the run. Steps are shares of the run's length."""
        await self.reach(0.15)
        await self.change("set", "learning_rate=0.002")
        await self.reach(0.35)
        await self.change("set", "optimizer_type=sgd", "learning_rate=0.3", "momentum=0.9")
        await self.reach(0.5)
        await self.change("set", "gradient_clip_val=0.5")
        await self.refusal("set", "learning_rate=-1")
        await self.refusal("set", "lerning_rate=0.1")
        await self.reach(0.6)
        await self.change("pause")
        await self.change("checkpoint")
        await self.change("resume")
        await self.reach(0.75)
        await self.change("set", "optimizer_type=adamw", "learning_rate=0.001")
        await self.reach(1.0)
        await self.change("stop")

    async def reach(self, share: float) -> None:
        """Wait until a share of the run is done."""
        await self.watched.reach(int(share * self.last_step))

    async def follow(self) -> None:
        """Follow the run with a bar."""
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self.console) as progress:
            bar = progress.add_task("waiting for the first step", total=self.last_step)
            async for status in self.watched.follow(self.operator, self.run):
                loss = status.metrics.get("loss")
                what = status.state if loss is None else f"{status.state} · loss {loss:.2f}"
                progress.update(bar, completed=min(status.step or 0, self.last_step), description=what)


async def steer_loss(operator: zloom.Operator, console: Console, out: Path, last_step: int) -> OneProcess:
    """Train in one process, steer it, and return what was seen."""
    act = OneProcess(RUN, operator, console, Watched(), last_step=last_step)
    train = (sys.executable, str(EXAMPLES / "train_lightning.py"), "--run", RUN)
    log = out / "trainer.log"
    async with process(log, *train, "--checkpoint-dir", str(out)) as trainer:
        await play(act.script(), act.follow(), trainer, log)
    return act


async def perform(console: Console, out: Path, last_step: int) -> None:
    """Start a broker, play both acts, and draw what was seen."""
    broker = os.environ["ZLOOM_BROKER"]
    hub = (sys.executable, "-m", "zloom", "broker", "--bind", broker, "--data-dir", str(out / "data"))
    started = time.monotonic()
    async with process(out / "broker.log", *hub), zloom.connect() as operator:
        console.print(f"[dim]broker at {broker}; logs and checkpoints in {out}/[/]")
        one = await steer_loss(operator, console, out, last_step)
        plot_loss(one.watched.points["loss", 0], one.changes, out / "loss.png")
        console.print(f"[bold green]{out}/loss.png[/] · {time.monotonic() - started:.0f} s\n")
        started = time.monotonic()
        values, changes = await steer_ranks(operator, console, out)
        plot_modes(values, changes, out / "modes.png")
        console.print(f"[bold green]{out}/modes.png[/] · {time.monotonic() - started:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Steer real training runs, and draw what became of them.")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="where logs and pictures go")
    parser.add_argument("--steps", type=int, default=360, help="length of the first run, in steps")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    console = Console(record=True, highlight=False, width=None if sys.stdout.isatty() else COLUMNS)
    with tempfile.TemporaryDirectory(prefix="zloom-demo-") as folder:
        os.environ["ZLOOM_BROKER"] = f"ipc://{folder}/control.sock"
        asyncio.run(perform(console, out, arguments.steps))
    console.save_svg(str(out / "terminal.svg"), title="make demo")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
