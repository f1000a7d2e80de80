"""One rank of a training that is changed all the time, in a process that was forked with torch loaded.

It trains twice at once: one model whose gradients all ranks sum at each optimizer step, so that they stay
equal only if each step is the same everywhere; and one with local SGD, whose averagings come at the same
step or never end. When it ends it writes a `Story`, as JSON, by which ranks are compared.
"""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

import zloom

RUN = "storm"

LAST = "last"
"""A file in the folder: it names the step after which training ends, with no broker to say so."""


@dataclass(frozen=True)
class Plan:
    """What one rank is to do.

    Attributes:
        endpoint: Of the broker.
        folder: Where the story goes, as `<rank>.json`.
        rank: Of this process.
        world_size: Of the job.
        port: Where rank 0 serves the store.
        seed: Of this rank's delays and failures.
        store: Decide in the job's store, and not at the broker.
        faults: How often a handler raises, 0 to 1.
        delay: Mean of what a step sleeps, in seconds; each rank and step another.
        fatal: A learning rate at which the process kills itself in the handler; 0 for none.
        late: A file for whose existence the rank waits before its weavelet starts.
        hold_limit: As in `WeaveletSettings`.
    """

    endpoint: str
    folder: Path
    rank: int
    world_size: int
    port: int
    seed: int = 0
    store: bool = True
    faults: float = 0.0
    delay: float = 0.02
    fatal: float = 0.0
    late: Path | None = None
    hold_limit: float | None = None


@dataclass
class Story:
    """What a rank did.

    Attributes:
        kept: (step, key, value) of each change that was not undone.
        steps: A digest over the values at each step that was trained.
        parameters: A digest of both models, in the end.
        trained: How many steps.
        longest: The longest that a step was held before it began, in seconds.
        ended: Why it ended: `stop`, `last`, `SIGTERM`, or the exception.
    """

    kept: list[tuple[int, str, Any]] = field(default_factory=list)
    steps: str = ""
    parameters: str = ""
    trained: int = 0
    longest: float = field(default=0.0, compare=False)
    ended: str = ""


def join_group(plan: Plan) -> None:
    address = f"tcp://127.0.0.1:{plan.port}"
    dist.init_process_group("gloo", init_method=address, rank=plan.rank, world_size=plan.world_size)


def main(plan: Plan) -> None:
    torch.set_num_threads(1)
    if plan.store:
        join_group(plan)
        trainer = Trainer(plan)
    else:  # a weavelet that is made before the group knows of no store
        trainer = Trainer(plan)
        join_group(plan)
    signal.signal(signal.SIGTERM, lambda *_: trainer.weavelet.depart("SIGTERM"))
    try:
        trainer.train()
    except (RuntimeError, zloom.ZloomError) as error:  # another rank is gone, or held for too long
        trainer.story.ended = f"{type(error).__name__}: {error}"
    (plan.folder / f"{plan.rank}.json").write_text(json.dumps(asdict(trainer.story)))


class Trainer:
    """The models, the values that can be changed, and the loop."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.weavelet = zloom.Weavelet(
            RUN,
            broker=plan.endpoint,
            attempt="one",
            rank=plan.rank,
            world_size=plan.world_size,
            pause_ready=lambda: self.window == 0,
            settings=zloom.WeaveletSettings(hold_limit=plan.hold_limit),
        )
        self.story = Story()
        self.random = Random(plan.seed * 100 + plan.rank)
        torch.manual_seed(1)
        self.summed, self.averaged = nn.Linear(6, 3), nn.Linear(6, 3)
        self.samples = torch.Generator().manual_seed(plan.rank)
        self.values: dict[str, Any] = {
            "learning_rate": 0.01,
            "optimizer_type": "sgd",
            "accumulate_grad_batches": 1,
            "batch_size": 4,
            "sync_every": 1,
        }
        self.window = 0
        self.going = True
        self.over = False
        self.optimizers = self.make_optimizers()
        self.declare()

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        kind: Any = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[self.values["optimizer_type"]]
        models = self.summed, self.averaged
        return [kind(model.parameters(), lr=self.values["learning_rate"]) for model in models]

    def declare(self) -> None:
        declare = self.weavelet.on_config

        def is_between_windows(_: object) -> bool:
            return self.window == 0

        @declare("optimizer_type", initial="sgd", ready=is_between_windows)
        def set_optimizer_type(value: Literal["sgd", "adamw"]) -> Callable[[], None]:
            before = self.optimizers
            undo = self.keep("optimizer_type", value)
            self.optimizers = self.make_optimizers()

            def put_back() -> None:
                undo()
                self.optimizers = before

            return put_back

        @declare("learning_rate", initial=0.01)
        def set_learning_rate(value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> Callable[[], None]:
            if value == self.plan.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            undo = self.keep("learning_rate", value)
            self.tell_rate()

            def put_back() -> None:
                undo()
                self.tell_rate()

            return put_back

        @declare("accumulate_grad_batches", initial=1, ready=is_between_windows)
        def set_accumulation(value: Annotated[int, zloom.Meta(ge=1)]) -> Callable[[], None]:
            return self.keep("accumulate_grad_batches", value)

        @declare("batch_size", initial=4)
        def set_batch_size(value: Annotated[int, zloom.Meta(ge=1)]) -> Callable[[], None]:
            return self.keep("batch_size", value)

        @declare("sync_every", initial=1)
        def set_sync_every(value: Annotated[int, zloom.Meta(ge=1)]) -> Callable[[], None]:
            return self.keep("sync_every", value)

        @self.weavelet.on_command("checkpoint", ready=lambda: self.window == 0)
        def checkpoint() -> str:
            return digest(self.summed)

        @self.weavelet.on_command("stop")
        def stop() -> None:
            self.going = False
            self.weavelet.end_pause()

    def keep(self, key: str, value: Any) -> Callable[[], None]:
        """Change a value, and return how to undo that; now and then raise."""
        if self.random.random() < self.plan.faults:
            raise ValueError("a fault of this rank")
        entry, before = (self.weavelet.step, key, value), self.values[key]
        self.values[key] = value
        self.story.kept.append(entry)

        def undo() -> None:
            self.values[key] = before
            self.story.kept.remove(entry)

        return undo

    def tell_rate(self) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.values["learning_rate"]

    def train(self) -> None:
        steps = hashlib.sha256()
        while self.plan.late is not None and not self.plan.late.exists():
            time.sleep(0.01)
        with self.weavelet:
            while True:
                begun = time.monotonic()
                self.weavelet.tick()
                self.story.longest = max(self.story.longest, time.monotonic() - begun)
                if not self.going or self.over or self.weavelet.departure:
                    break
                self.step()
                steps.update(repr((self.weavelet.step, self.values)).encode())
                self.story.trained += 1
                time.sleep(self.random.expovariate(1 / self.plan.delay))
            average(self.averaged)
            self.story.ended = self.weavelet.departure or ("last" if self.going else "stop")
            self.story.steps = steps.hexdigest()
            self.story.parameters = digest(self.summed, self.averaged)

    def step(self) -> None:
        size = self.values["batch_size"]
        features = torch.randn(size, 6, generator=self.samples)
        losses = ((self.summed(features) - 1) ** 2).mean(1) + ((self.averaged(features) - 1) ** 2).mean(1)
        losses.mean().backward()
        # Ranks whose batches differ in size find out here; and one that is to end takes the others along.
        both = torch.cat((losses.detach(), torch.tensor([float(self.is_over())])))
        dist.all_reduce(both)
        self.over = bool(both[-1] > 0)
        self.window = (self.window + 1) % self.values["accumulate_grad_batches"]
        if self.window == 0:
            self.step_optimizers()
        if self.weavelet.step % self.values["sync_every"] == 0:
            average(self.averaged)

    def is_over(self) -> bool:
        path = self.plan.folder / LAST
        return path.exists() and self.weavelet.step >= int(path.read_text() or self.weavelet.step + 1)

    def step_optimizers(self) -> None:
        for parameter in self.summed.parameters():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()


def average(model: nn.Module) -> None:
    for parameter in model.parameters():
        dist.all_reduce(parameter.data)
        parameter.data /= dist.get_world_size()


def digest(*models: nn.Module) -> str:
    tensors: list[Tensor] = [parameter.data for model in models for parameter in model.parameters()]
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()
