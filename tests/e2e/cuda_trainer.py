"""A training on a GPU, run as a process of its own by the tests that need one."""

import argparse
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

import zloom
import zloom.torch

WIDTH = 512


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("broker")
    parser.add_argument("--graph", action="store_true", help="Capture the step, and replay it.")
    train(parser.parse_args())


def train(arguments: argparse.Namespace) -> None:
    torch.manual_seed(1)
    model = torch.nn.Linear(WIDTH, WIDTH, device="cuda")
    rate = torch.tensor(1e-3, device="cuda") if arguments.graph else 1e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, capturable=arguments.graph)
    step = make_step(model, optimizer)
    if arguments.graph:
        step = captured(step)
    weavelet = zloom.Weavelet("cuda", broker=arguments.broker, attempt="one")
    zloom.torch.steer(weavelet, optimizer, model=model)
    going, held = True, []

    @weavelet.on_command("fill")
    def fill(share: Annotated[float, zloom.Meta(gt=0, lt=1)]) -> None:
        """Take that share of the GPU's memory, with what is taken already."""
        free, total = torch.cuda.mem_get_info()
        more = max(0, int(share * total) - (total - free))
        held.append(torch.empty(more, dtype=torch.uint8, device="cuda"))

    @weavelet.on_command("empty")
    def empty() -> None:
        held.clear()
        torch.cuda.empty_cache()

    @weavelet.on_command("wait")
    def wait(cycles: int) -> None:
        torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()

    @weavelet.on_command("stop")
    def stop() -> None:
        nonlocal going
        going = False

    with weavelet:
        while going:
            weavelet.tick()
            loss, rate = step(), optimizer.param_groups[0]["lr"]
            weavelet.report(loss=loss, rate=rate, weight=model.weight[0, 0])
            if weavelet.step % 100 == 0:
                torch.cuda.synchronize()  # or the queue of the GPU grows without end


def make_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], Tensor]:
    batch = torch.randn(64, WIDTH, device="cuda")

    def step() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (model(batch) - batch).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def captured(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return the step as a CUDA graph, as torch's documentation captures whole steps."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # the first steps allocate, which a capture may not
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


if __name__ == "__main__":
    main()
