"""Train a small byte-level Transformer on the source of Python's library, and steer it while it runs.

    zloom broker                                            # in one terminal
    python examples/train_lightning.py                      # in another
    zloom set tiny-lm learning_rate=0.001 dropout=0.1       # in a third

The callback in `main` makes this script steerable; the decorator on `set_dropout` adds a key of its own.
Without a broker it simply trains.
"""

import argparse
import logging
import warnings
from pathlib import Path
from typing import Annotated

import torch
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from text_data import SourceText
from text_model import ByteTransformer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

import zloom
from zloom.lightning import WeaveletCallback

Batch = tuple[Tensor, Tensor]


class LightningTransformer(LightningModule):
    """Predicts the next byte of a text."""

    def __init__(
        self,
        optimizer_type: str = "adamw",
        learning_rate: float = 3e-4,
        context: int = 128,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = ByteTransformer(context, width, layers, heads)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        loss = self.loss(batch)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        self.log("val_loss", self.loss(batch), prog_bar=True)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross entropy of the batch, in nats a byte."""
        return self.model.loss(*batch)

    def configure_optimizers(self) -> Optimizer:
        return self.update_optimizer(self.hparams["optimizer_type"], self.hparams["learning_rate"])

    def update_optimizer(self, optimizer_type: str, learning_rate: float) -> Optimizer:
        """Return a new optimizer of the given type over the model's parameters."""
        match optimizer_type:
            case "adamw":
                return torch.optim.AdamW(self.parameters(), lr=learning_rate)
            case "adam":
                return torch.optim.Adam(self.parameters(), lr=learning_rate)
            case "sgd":
                return torch.optim.SGD(self.parameters(), lr=learning_rate, momentum=0.9)
        raise ValueError(f"optimizer_type is {optimizer_type!r}; expected adamw, adam or sgd")

    @zloom.on_config("dropout", initial=0.0)
    def set_dropout(self, value: Annotated[float, zloom.Meta(ge=0, lt=1)]) -> None:
        """The share of activations that training sets to zero."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = value


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="tiny-lm", help="the name to steer it by")
    parser.add_argument(
        "--broker", help="the broker's address; $ZLOOM_BROKER or this user's own when not given"
    )
    parser.add_argument("--max-steps", type=int, default=-1, help="-1: no limit")
    parser.add_argument("--max-epochs", type=int, default=20, help="an epoch has 200 steps")
    parser.add_argument("--batch-size", type=int, default=32, help="windows of 128 bytes each")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--optimizer-type", choices=["adamw", "adam", "sgd"], default="adamw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoint-dir", type=Path, default=Path("checkpoints"), help="for checkpoints")
    parser.add_argument("--resume", metavar="CHECKPOINT", help="go on from this file")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    seed_everything(arguments.seed, verbose=False)
    # Lightning's advice: products to install, and worker processes, slower here than to cut a tensor.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Of torch, about Lightning's own code.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    model = LightningTransformer(arguments.optimizer_type, arguments.learning_rate)
    context = model.hparams["context"]
    trainer = Trainer(
        callbacks=[
            WeaveletCallback(run=arguments.run, broker=arguments.broker),
            ModelCheckpoint(arguments.checkpoint_dir),
        ],
        max_steps=arguments.max_steps,
        max_epochs=arguments.max_epochs,
        limit_train_batches=200,
        limit_val_batches=10,
        num_sanity_val_steps=0,
        logger=False,
        enable_model_summary=False,
    )
    trainer.fit(
        model,
        DataLoader(SourceText(context), arguments.batch_size, shuffle=True),
        DataLoader(SourceText(context, validation=True), arguments.batch_size),
        ckpt_path=arguments.resume,
    )


if __name__ == "__main__":
    main()
