"""A Hugging Face Trainer on the ranks of torchrun, with a model and data that are steps of microseconds.

Run as a script, with the run's name and a folder, it trains until the key `scale` is 13; then each rank
leaves what it trained in the folder and raises.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta
from transformers import Trainer, TrainerCallback, TrainingArguments

from zloom.markers import on_config
from zloom.transformers import WeaveletCallback


class Model(torch.nn.Module):
    """Two layers, a fixed start, and a key of its own."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.first, self.second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)
        self.scale = 1.0

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.second(torch.tanh(self.first(features))).squeeze(-1)
        return {"loss": self.scale * torch.nn.functional.mse_loss(found, labels), "logits": found}

    @on_config("scale", get=lambda model: model.scale)
    def set_scale(self, value: Annotated[float, Meta(gt=0)]) -> None:
        self.scale = value


def data() -> list[dict[str, torch.Tensor]]:
    features = torch.randn(64, 4, generator=torch.Generator().manual_seed(2))
    return [{"features": one, "labels": one.sum() * 2 + 3} for one in features]


def trainer(folder: Path, *callbacks: Any, **options: Any) -> Any:
    """Return a Trainer on the CPU that would train for very long."""
    defaults: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "max_steps": 1_000_000,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 4,
        "logging_steps": 50,
        "save_steps": 1_000_000,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 1,
    }
    arguments = TrainingArguments(**(defaults | options))
    return Trainer(
        Model(), arguments, train_dataset=data(), eval_dataset=data()[:8], callbacks=list(callbacks)
    )


class FailAtThirteen(TrainerCallback):  # type: ignore[misc, unused-ignore]
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        if model.scale == 13:
            torch.save(list(model.parameters()), self.folder / f"{args.process_index}.pt")
            raise ValueError("no more data")


def main() -> None:
    run, folder = sys.argv[1], Path(sys.argv[2])
    trainer(folder, WeaveletCallback(run), FailAtThirteen(folder), ddp_backend="gloo").train()


if __name__ == "__main__":
    main()
