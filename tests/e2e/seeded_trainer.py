"""A seeded training of a small network, in a plain loop, run as a process of its own by the replay test.

Its final parameters are a function of what it was steered to, at which steps, and of nothing else.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import torch

import zloom

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}

STEPS = 400


def main(run: str, parameters: Path, environment: dict[str, str], rank: int, ranks: int) -> None:
    """Train as a process of its own, and leave the parameters in a file."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    torch.save(train(run, rank, ranks), parameters)


def train(run: str, rank: int = 0, ranks: int = 1) -> dict[str, torch.Tensor]:
    """Return the parameters after `STEPS` steps."""
    random = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batch_size = 8
    weavelet = zloom.Weavelet(run, attempt="one", rank=rank, world_size=ranks)

    @weavelet.on_config("learning_rate", initial=0.01)
    def set_learning_rate(value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> None:
        for group in optimizer.param_groups:
            group["lr"] = value

    @weavelet.on_config("batch_size", initial=batch_size)
    def set_batch_size(value: Annotated[int, zloom.Meta(ge=1, le=1024)]) -> None:
        nonlocal batch_size
        batch_size = value

    @weavelet.on_config("optimizer_type", initial="adamw")
    def set_optimizer(value: Literal["adamw", "sgd"]) -> None:
        nonlocal optimizer  # its state begins anew, also when it is the same again
        optimizer = OPTIMIZERS[value](model.parameters(), lr=optimizer.param_groups[0]["lr"])

    with weavelet:
        for _ in range(STEPS):
            weavelet.tick()
            inputs = torch.randn(batch_size, 8, generator=random)
            loss = (model(inputs).squeeze() - inputs.sum(1).sin()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            weavelet.report(loss=loss)
    return dict(model.state_dict())
