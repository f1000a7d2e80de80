"""Train on several processes with local SGD: each by itself, all averaged every `sync_every` steps.

    zloom broker                                            # in one terminal
    torchrun --nproc-per-node 2 examples/train_ddp.py       # in another
    zloom set ddp-lm sync_every=4 learning_rate=0.1         # in a third

Options of this script stand after `--`, or torchrun takes `--run` for one of its own:
`torchrun --nproc-per-node 2 -- examples/train_ddp.py --run another`.

Averaging is a collective: were `sync_every` to change at another step on one rank, both would wait for each
other for ever. All ranks take a change at the same step, or none does. Without a broker it simply trains.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
from text_data import as_bytes, draw_batch, read_standard_library
from text_model import ByteTransformer
from torch import nn

import zloom

CONTEXT = 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="ddp-lm", help="the name to steer it by")
    parser.add_argument("--batch-size", type=int, default=8, help="windows of 64 bytes, on each rank")
    dist.init_process_group("gloo")
    train(parser.parse_args())
    dist.destroy_process_group()


def train(arguments: argparse.Namespace) -> None:
    torch.manual_seed(1)  # all ranks begin with the same parameters
    random = torch.Generator().manual_seed(dist.get_rank())  # and see different parts of the text
    text = read_standard_library()
    model = ByteTransformer(CONTEXT, width=64, layers=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sync_every, going = 1, True
    weavelet = zloom.Weavelet(run=arguments.run)  # after init_process_group, so that it knows the ranks

    @weavelet.on_config("learning_rate", initial=0.05)
    def set_learning_rate(value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> None:
        for group in optimizer.param_groups:
            group["lr"] = value

    @weavelet.on_config("sync_every", initial=sync_every)
    def set_sync_every(value: Annotated[int, zloom.Meta(ge=1, le=1000)]) -> None:
        """Steps between two averagings."""
        nonlocal sync_every
        sync_every = value

    @weavelet.on_config("text", initial="the standard library")
    def set_text(folder: str) -> Callable[[], None]:
        """A folder with a text for each rank to train on: 0.txt, 1.txt, …"""
        nonlocal text
        before, text = text, as_bytes(Path(folder, f"{dist.get_rank()}.txt").read_bytes())

        def undo() -> None:  # runs where another rank lacks its file
            nonlocal text
            text = before

        return undo

    @weavelet.on_command("stop")
    def stop() -> None:
        """End the training."""
        nonlocal going
        going = False

    with weavelet:
        while True:
            weavelet.tick()  # handlers run here, between two steps
            if not going:
                break
            loss = model.loss(*draw_batch(text, arguments.batch_size, CONTEXT, random))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if weavelet.step % sync_every == 0:
                average(model)
            weavelet.report(loss=loss, learning_rate=optimizer.param_groups[0]["lr"])
    print(f"rank {dist.get_rank()} stopped at step {weavelet.step}")


def average(model: nn.Module) -> None:
    """Give all ranks the mean of their parameters."""
    for parameter in model.parameters():
        dist.all_reduce(parameter.data)
        parameter.data /= dist.get_world_size()


if __name__ == "__main__":
    main()
