"""A loop of Fabric on the two processes of torchrun.

Arguments: the run's name, and a folder where each rank leaves what it trained.
"""

import sys
import threading
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch.nn.functional import mse_loss

import zloom.torch
from tests.e2e.lightning_models import Regression, loader


def main() -> None:
    run, folder = sys.argv[1:]
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    ended = threading.Event()
    module = Regression()
    model = torch.nn.Sequential(module.first, torch.nn.Tanh(), module.second)
    plain = torch.optim.SGD(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(plain, 0.999)
    model, optimizer = fabric.setup(model, plain)
    with zloom.Weavelet(run) as weavelet:
        zloom.torch.steer(weavelet, optimizer, scheduler, model=model)

        @weavelet.on_command("stop")
        def stop() -> None:
            ended.set()

        batches = fabric.setup_dataloaders(loader())
        while not ended.is_set():
            for features, target in batches:
                weavelet.tick()
                if ended.is_set():
                    break
                loss = mse_loss(model(features), target)
                optimizer.zero_grad()
                fabric.backward(loss)
                optimizer.step()
                scheduler.step()
                weavelet.report(loss=loss)
    weights = [parameter.detach() for parameter in model.parameters()]
    torch.save((type(plain).__name__, weights), Path(folder, f"{fabric.global_rank}.pt"))


if __name__ == "__main__":
    main()
