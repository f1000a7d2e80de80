"""The whole of zloom in a minute or two: a broker, a training run and an operator, in three processes.

Trains `train_lightning.py` on the source of Python's standard library, steers it while it runs, and draws
what became of its loss. Everything is real, and goes through the broker: the progress bar too.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from plot_loss import plot_loss
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import zloom
from zloom.messages import Reported
from zloom.model import Value

RUN = "tiny-lm"
EXAMPLES = Path(__file__).parent

FIRST_STEP = 60.0
"""Seconds to wait for the first step: importing torch alone takes ten on a slow disk."""


LEAVE = 30.0
"""Seconds for a process to end: the trainer validates once more when it is told to stop."""


@dataclass
class Watched:
    """What the broker has told of the run so far."""

    losses: list[tuple[int, float]] = field(default_factory=list)
    changes: list[tuple[int, str]] = field(default_factory=list)
    step: int = 0
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reach(self, step: int) -> None:
        """Wait until the run has done a step."""
        async with self.moved:
            await asyncio.wait_for(self.moved.wait_for(lambda: self.step >= step), FIRST_STEP + step)


@dataclass
class Demo:
    """One run of the demo."""

    operator: zloom.Operator
    console: Console
    watched: Watched

    async def play(self, last_step: int) -> None:
        """Steer the run: the script of the demo. Steps are shares of the run's length."""

        def at(share: float) -> int:
            return int(share * last_step)

        op, watched = self.operator, self.watched
        await watched.reach(at(0.15))
        await self.change("learning_rate=0.002", op.set(RUN, {"learning_rate": 2e-3}))
        await watched.reach(at(0.35))
        sgd: dict[str, Value] = {"optimizer_type": "sgd", "learning_rate": 0.3, "momentum": 0.9}
        await self.change("optimizer_type=sgd learning_rate=0.3 momentum=0.9", op.set(RUN, sgd))
        await watched.reach(at(0.5))
        await self.change("gradient_clip_val=0.5", op.set(RUN, {"gradient_clip_val": 0.5}))
        await self.refusal("learning_rate=-1", op.set(RUN, {"learning_rate": -1.0}))
        await self.refusal("lerning_rate=0.1", op.set(RUN, {"lerning_rate": 0.1}))
        await watched.reach(at(0.6))
        await self.change("pause", op.pause(RUN))
        await self.change("checkpoint", op.checkpoint(RUN))
        await self.change("resume", op.resume(RUN))
        await watched.reach(at(0.75))
        adamw: dict[str, Value] = {"optimizer_type": "adamw", "learning_rate": 1e-3}
        await self.change("optimizer_type=adamw learning_rate=0.001", op.set(RUN, adamw))
        await watched.reach(at(1.0))
        await self.change("stop", op.stop(RUN))

    async def change(self, what: str, asked: Awaitable[zloom.Result]) -> None:
        """Make a change, wait until the replicas have answered, and say what became of it."""
        self.console.print(f"[bold]$ zloom[/] {self._words(what)}")
        result = await asked
        where = ", ".join(
            f"rank {outcome.rank} at step {outcome.step}{f' ({outcome.detail})' if outcome.detail else ''}"
            for outcome in result.applied
        )
        if not result.applied_everywhere:
            said = "; ".join(f"{o.outcome or 'no answer'} {o.error}" for o in result.outcomes)
            raise SystemExit(f"demo: revision {result.revision} ({what}) was not applied: {said}")
        applied = f"applied on {len(result.applied)}/{len(result.outcomes)} · {where}"
        took = f"{1000 * result.latency:.0f} ms"
        self.console.print(f"  [green]revision {result.revision} · {applied} · {took}[/]")
        self.watched.changes.append((result.outcomes[0].step or 0, f"r{result.revision} {what}"))

    async def refusal(self, what: str, asked: Awaitable[zloom.Result]) -> None:
        """Ask for something that must be refused, and show the reason."""
        self.console.print(f"[bold]$ zloom[/] {self._words(what)}")
        try:
            await asked
        except zloom.Refused as refused:
            self.console.print(f"  [red]refused:[/] {refused}", highlight=False)
        else:
            raise SystemExit(f"demo: {what} was accepted")

    @staticmethod
    def _words(what: str) -> str:
        return f"set {RUN} {what}" if "=" in what else f"{what} {RUN}"


async def watch(operator: zloom.Operator, watched: Watched, progress: Progress, last_step: int) -> None:
    """Follow the run: keep its losses, and move the bar."""
    bar = progress.add_task("waiting for the first step", total=last_step)
    async for told in operator.watch(RUN):
        if not isinstance(told, Reported):
            continue
        if (loss := told.metrics.get("loss")) is not None:
            watched.losses += zip(loss.steps, loss.values, strict=True)
        newest = told.status.metrics.get("loss")
        what = told.status.state if newest is None else f"{told.status.state} · loss {newest:.2f}"
        progress.update(bar, completed=min(told.status.step, last_step), description=what)
        async with watched.moved:
            watched.step = told.status.step
            watched.moved.notify_all()


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


async def steer(console: Console, out: Path, last_step: int) -> Watched:
    """Start broker and trainer, steer, and return what was seen."""
    broker = os.environ["ZLOOM_BROKER"]
    watched = Watched()
    hub = (sys.executable, "-m", "zloom", "broker", "--bind", broker, "--data-dir", str(out / "data"))
    train = (sys.executable, str(EXAMPLES / "train_lightning.py"), "--run", RUN)
    async with process(out / "broker.log", *hub):
        console.print(f"[dim]broker at {broker}; logs and checkpoints in {out}/[/]")
        async with (
            zloom.connect() as operator,
            process(out / "trainer.log", *train, "--checkpoint-dir", str(out)) as trainer,
        ):
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            with Progress(*columns, console=console) as progress:
                follower = asyncio.create_task(watch(operator, watched, progress, last_step))
                ended = asyncio.create_task(trainer.wait())
                script = asyncio.create_task(Demo(operator, console, watched).play(last_step))
                await asyncio.wait({script, ended, follower}, return_when=asyncio.FIRST_COMPLETED)
                if not script.done():
                    raise SystemExit(f"demo: the trainer ended too early; see {out}/trainer.log")
                script.result()
                if await asyncio.wait_for(ended, LEAVE):
                    raise SystemExit(f"demo: the trainer failed; see {out}/trainer.log")
                follower.cancel()
            history = await operator.history(RUN)
            console.print(f"[dim]{len(history)} revisions are in the broker's journal[/]")
    return watched


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Steer a real training run, and draw what became of its loss."
    )
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="where logs and the picture go")
    parser.add_argument("--steps", type=int, default=360, help="length of the run, in steps")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    console = Console(record=True, highlight=False)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="zloom-demo-") as folder:
        os.environ["ZLOOM_BROKER"] = f"ipc://{folder}/control.sock"
        watched = asyncio.run(steer(console, out, arguments.steps))
    picture = out / "loss.png"
    plot_loss(watched.losses, watched.changes, picture)
    console.print(f"[bold green]{picture}[/] · {time.monotonic() - started:.0f} s")
    console.save_svg(str(out / "terminal.svg"), title="make demo")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
