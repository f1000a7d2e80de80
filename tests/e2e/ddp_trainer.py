"""A training on two processes, of which Lightning starts the second; run as a script by the tests.

Arguments: the broker's endpoint, the run's name, and a file whose existence ends the training.
"""

import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from tests.e2e.lightning_models import Regression, loader, trainer
from zloom.lightning import WeaveletCallback


class UntilFile(Callback):
    """Ends the training on all ranks once rank 0 sees the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.strategy.broadcast(self.path.exists())


def main() -> None:
    endpoint, run, path = sys.argv[1:]
    callbacks = UntilFile(Path(path)), WeaveletCallback(run, broker=endpoint)
    trainer(*callbacks, strategy="ddp", devices=2, max_epochs=-1).fit(Regression(), loader())


if __name__ == "__main__":
    main()
