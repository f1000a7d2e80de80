"""Train a small byte-level Transformer in a plain PyTorch loop, and steer it while it runs.

    zloom broker                                            # in one terminal
    python examples/train_loop.py                           # in another
    zloom set loop-lm learning_rate=0.0003 batch_size=32     # in a third

Without a broker it simply trains, until Ctrl-C.
"""

import argparse
from pathlib import Path
from typing import Annotated

import torch
from text_data import draw_batch, read_standard_library
from text_model import ByteTransformer

import zloom

CONTEXT = 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="loop-lm", help="the name to steer it by")
    parser.add_argument("--checkpoint-dir", type=Path, default=Path("checkpoints"))
    train(parser.parse_args())


def train(arguments: argparse.Namespace) -> None:
    random = torch.Generator().manual_seed(1)
    text = read_standard_library()
    model = ByteTransformer(CONTEXT, width=64, layers=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch_size, going = 16, True
    weavelet = zloom.Weavelet(run=arguments.run)

    @weavelet.on_config("learning_rate", initial=1e-3)
    def set_learning_rate(value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> None:
        for group in optimizer.param_groups:
            group["lr"] = value

    @weavelet.on_config("batch_size", initial=batch_size)
    def set_batch_size(value: Annotated[int, zloom.Meta(ge=1, le=1024)]) -> None:
        nonlocal batch_size
        batch_size = value

    @weavelet.on_command("checkpoint")
    def checkpoint() -> str:
        """Save the model, and answer with the path."""
        path = arguments.checkpoint_dir.resolve() / f"step-{weavelet.step}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
        return str(path)

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
            loss = model.loss(*draw_batch(text, batch_size, CONTEXT, random))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            weavelet.report(loss=loss)
    print(f"stopped at step {weavelet.step}")


if __name__ == "__main__":
    main()
