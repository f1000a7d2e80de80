"""One rank of a Lightning training on DDP, in a process that was forked with torch and lightning loaded.

When it ends it writes a `Story`, as JSON, by which ranks are compared.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

import zloom
from tests.e2e.lightning_models import Regression, loader, trainer
from zloom.lightning import WeaveletCallback
from zloom.lightning.data import BatchSize
from zloom.lightning.keys import STEERS


@dataclass(frozen=True)
class Plan:
    """What one rank is to do.

    Attributes:
        endpoint: Of the broker.
        folder: Where the story goes, as `<rank>.json`, and checkpoints.
        rank: Of this process.
        world_size: Of the job.
        port: Where rank 0 serves the store.
        seed: Of this rank's delays and failures.
        faults: How often its handler raises, 0 to 1.
        gate: Where its handler waits until this file is there; it says so with another, `gate.shut`.
        delay: Mean of what a step sleeps, in seconds, each time another.
    """

    endpoint: str
    folder: Path
    rank: int
    world_size: int
    port: int
    seed: int = 0
    faults: float = 0.0
    gate: Path | None = None
    delay: float = 0.0


@dataclass
class Story:
    """What a rank did.

    Attributes:
        kept: (step, key, value) of each change that was not undone, in order.
        steps: A digest over what was in force at each step that was trained.
        parameters: A digest of the module, in the end.
        values: What the Trainer's own objects say in the end, by key.
        trained: How many steps.
        validations: After which steps one ran.
        faults: How often the handler raised.
        ended: `finished`, or the exception.
    """

    kept: list[tuple[int, str, Any]] = field(default_factory=list)
    steps: str = ""
    parameters: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    trained: int = 0
    validations: list[int] = field(default_factory=list)
    faults: int = field(default=0, compare=False)
    ended: str = ""


def main(plan: Plan) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # Lightning's advice on loaders and machines
    # As a launcher from outside would: Lightning starts no processes by itself then.
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(plan.port), "NODE_RANK": "0"}
    os.environ |= {"LOCAL_RANK": str(plan.rank)}
    story = Story()
    module = Faulty(plan, story)
    callback = WeaveletCallback(plan.folder.name, broker=plan.endpoint)
    fitted = trainer(
        callback,
        Scribe(callback, story),
        strategy="ddp",
        devices=plan.world_size,
        max_epochs=-1,
        default_root_dir=plan.folder,
    )
    try:
        fitted.fit(module, loader(4, 64), loader())
        story.ended = "finished"
    except BaseException as error:  # noqa: BLE001 -- SIGTERM among them
        story.ended = f"{type(error).__name__}: {error}"
    story.parameters = digest(module)
    (plan.folder / f"{plan.rank}.json").write_text(json.dumps(asdict(story)))


class Faulty(Regression):
    """A module whose own key is set after all of Lightning's, and fails now and then."""

    def __init__(self, plan: Plan, story: Story) -> None:
        super().__init__()
        self.plan, self.story = plan, story
        self.random = Random(plan.seed * 100 + plan.rank)
        self.jolt = 0

    @zloom.on_config("jolt", get=lambda self: self.jolt)
    def set_jolt(self, value: int) -> Callable[[], None]:
        """Raise on this rank now and then, so that no rank may keep what came with it."""
        if self.plan.gate is not None:
            self.plan.gate.with_suffix(".shut").touch()
            while not self.plan.gate.exists():
                time.sleep(0.01)
        if self.random.random() < self.plan.faults:
            self.story.faults += 1
            raise ValueError("a fault of this rank")
        before, self.jolt = self.jolt, value

        def undo() -> None:
            self.jolt = before

        return undo

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.plan.delay:
            time.sleep(self.random.expovariate(1 / self.plan.delay))
        return super().training_step(batch, batch_idx)


class Scribe(Callback):
    """Notes after each safe point what was steered in it, and at each step what is in force."""

    def __init__(self, callback: WeaveletCallback, story: Story) -> None:
        self._callback, self._story = callback, story
        self._noted: dict[str, Any] = {}
        self._steps = hashlib.sha256()

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: list[Tensor], *_: Any) -> None:
        self._note(self._step)
        in_force = (self._step, len(batch[0]), module.jolt, _in_force(trainer))
        self._steps.update(repr(in_force).encode())
        self._story.steps = self._steps.hexdigest()
        self._story.trained += 1

    def on_train_batch_end(self, *_: Any) -> None:
        self._note(self._step + 1)

    def on_train_epoch_end(self, *_: Any) -> None:
        self._note(self._step + 1)

    def on_validation_end(self, *_: Any) -> None:
        self._story.validations.append(self._step)

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        self._story.values = {cls.name: cls().get(trainer) for cls in STEERS} | {"jolt": module.jolt}

    @property
    def _step(self) -> int:
        weavelet = self._callback.weavelet
        return 0 if weavelet is None else weavelet.step

    def _note(self, first: int) -> None:
        """Note what has changed, and the first step that is trained with it."""
        steered = {key: entry["value"] for key, entry in self._callback.state_dict()["steered"].items()}
        for key, value in sorted(steered.items()):
            if key not in self._noted or self._noted[key] != value:
                self._story.kept.append((first, key, value))
        self._noted = steered


def _in_force(trainer: Any) -> tuple[Any, ...]:
    (optimizer,) = trainer.optimizers
    inner = optimizer.optimizer if hasattr(optimizer, "optimizer") else optimizer
    group = {key: value for key, value in inner.param_groups[0].items() if key != "params"}
    return (
        type(inner).__name__,
        sorted(group.items(), key=str),
        trainer.gradient_clip_val,
        trainer.accumulate_grad_batches,
        BatchSize().get(trainer),
        trainer.max_epochs,
        trainer.max_steps,
        trainer.log_every_n_steps,
    )


def digest(module: Regression) -> str:
    tensors = [parameter.detach().numpy().tobytes() for parameter in module.parameters()]
    return hashlib.sha256(b"".join(tensors)).hexdigest()
