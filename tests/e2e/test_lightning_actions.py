"""Stop, checkpoint and validate against a real Trainer."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.e2e.lightning_models import QUIET, Driver, Manual, Regression, Stream, loader, trainer
from zloom.errors import CannotSteer
from zloom.lightning.actions import SaveCheckpoint, Stop, Validate
from zloom.lightning.steer import Place

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


class Noted(Regression):
    """Notes before which batch each validation ran."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.validations: list[int] = []

    def on_validation_start(self) -> None:
        self.validations.append(len(self.batches))


class Act(Driver):
    """Runs an action once, at the first place where it is ready after `after` batches."""

    def __init__(self, action: Any, after: int, call: Callable[[Trainer], object]) -> None:
        super().__init__([])
        self.action, self.after, self.call = action, after, call
        self.done: tuple[int, Place] | None = None
        self.answer: object = None
        self.error = ""

    def _safe_point(self, place: Place) -> None:
        self.position.place = place
        if self.done is None and self.after <= self.batches and self.action.ready(self.position):
            self.done = (self.batches, place)
            try:
                self.answer = self.call(self.position.trainer)
            except CannotSteer as error:
                self.error = str(error)

    def on_validation_end(self, *_: Any) -> None:
        if isinstance(self.action, Validate):
            self.action.validation_ended()


def stop_after(after: int, *, force: bool = False) -> Act:
    stop = Stop()
    return Act(stop, after, lambda t: stop.run(t, force=force))


def test_stop_ends_training_after_the_batch_and_a_validation() -> None:
    module, act = Noted(), stop_after(2)
    trainer(act, max_epochs=3).fit(module, loader(), loader())
    assert act.answer == "stops after this batch and a validation"
    assert len(module.batches) == 2
    assert module.validations == [2]


@pytest.mark.parametrize(
    ("minimum", "named"),
    [
        ({"min_epochs": 2}, "min_epochs=2"),
        ({"min_steps": 6}, "min_epochs=1 or min_steps=6"),  # one epoch is Lightning's own
        ({"min_epochs": 2, "min_steps": 6}, "min_epochs=2 or min_steps=6"),
    ],
)
def test_stop_before_the_minimum_is_refused_unless_forced(minimum: dict[str, int], named: str) -> None:
    refused, act = Regression(), stop_after(2)
    trainer(act, max_epochs=3, **minimum).fit(refused, loader())
    assert act.error == (
        f"epoch 0 and step 2 are before {named}, until which Lightning trains on; wait for it, or stop with "
        "--force (in Python force=True)"
    )
    assert len(refused.batches) == 12

    forced, act = Regression(), stop_after(2, force=True)
    trainer(act, max_epochs=3, **minimum).fit(forced, loader())
    assert act.answer == "stops after this batch"
    assert len(forced.batches) == 2


def save_after(after: int, folder: Path, **options: Any) -> Act:
    save = SaveCheckpoint()
    return Act(save, after, lambda t: save.run(t, **options))


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_a_run_that_resumes_from_the_checkpoint_equals_one_that_went_on(
    accumulate: int, optimizer: Any, tmp_path: Path
) -> None:
    def make() -> Regression:
        return Regression(lambda m: optimizer(m.parameters(), lr=0.01))

    whole, resumed = make(), make()
    options = {"max_epochs": 1, "accumulate_grad_batches": accumulate, "default_root_dir": tmp_path}
    act = save_after(4, tmp_path)
    trainer(act, **options).fit(whole, repeated())
    assert act.done == (4 if accumulate == 1 else 6, Place.BATCH_END)
    steps = 4 if accumulate == 1 else 2
    assert act.answer == str(tmp_path / "checkpoints" / f"zloom-epoch=0-step={steps}.ckpt")
    trainer(**options).fit(resumed, repeated(), ckpt_path=str(act.answer))
    assert resumed.losses == whole.losses[act.done[0] :]


def repeated() -> Any:
    """Return twelve batches of the same samples: a resumed loader begins again, and serves the same."""
    part = next(iter(loader(batch_size=2)))
    dataset = torch.utils.data.TensorDataset(*(tensor.repeat(12, 1) for tensor in part))
    return torch.utils.data.DataLoader(dataset, batch_size=2)


def test_a_checkpoint_asked_for_at_a_batchs_start_waits_for_its_end(tmp_path: Path) -> None:
    act = save_after(0, tmp_path)
    trainer(act, default_root_dir=tmp_path).fit(Regression(), loader())
    assert act.done == (1, Place.BATCH_END)


def test_a_checkpoint_in_manual_optimization_waits_for_the_step(tmp_path: Path) -> None:
    act = save_after(4, tmp_path)
    trainer(act, default_root_dir=tmp_path).fit(Manual(window=3), loader(batch_size=4))
    assert act.done == (6, Place.BATCH_END)


def test_it_is_put_beside_those_of_model_checkpoint_under_the_wanted_name(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "mine", every_n_epochs=100)
    act = save_after(1, tmp_path, filename="before-the-change.ckpt")
    trainer(act, saver, enable_checkpointing=True).fit(Regression(), loader())
    assert act.answer == str(tmp_path / "mine" / "before-the-change.ckpt")
    assert (tmp_path / "mine" / "before-the-change.ckpt").is_file()


@pytest.mark.parametrize("filename", ["/etc/x.ckpt", "../x.ckpt", "a/b.ckpt", ".."])
def test_a_name_with_a_folder_is_refused(filename: str, tmp_path: Path) -> None:
    act = save_after(1, tmp_path, filename=filename)
    trainer(act, default_root_dir=tmp_path).fit(Regression(), loader())
    assert "without a folder" in act.error


def validate_after(after: int) -> Act:
    validate = Validate()
    return Act(validate, after, validate.run)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2, 4, 8, 12]),
        ({"check_val_every_n_epoch": 3}, [2, 12]),
        ({"val_check_interval": 3}, [2, 3, 7, 11]),
        ({"val_check_interval": 5, "check_val_every_n_epoch": None}, [2, 5, 10]),
        ({"val_check_interval": 0.5}, [2, 4, 6, 8, 10, 12]),
        ({"val_check_interval": timedelta(hours=1)}, [2]),
        ({"accumulate_grad_batches": 3}, [2, 4, 8, 12]),
    ],
    ids=str,
)
def test_validation_now_leaves_the_rhythm_as_it_was(options: dict[str, Any], expected: list[int]) -> None:
    module, act = Noted(), validate_after(2)
    trainer(act, max_epochs=3, **options).fit(module, loader(), loader())
    assert act.answer == "validates after this batch"
    assert module.validations == expected


def test_validation_now_on_a_stream() -> None:
    module, act = Noted(), validate_after(3)
    stream = torch.utils.data.DataLoader(Stream(), batch_size=8)
    trainer(act, max_epochs=2).fit(module, stream, loader())
    assert module.validations == [3, 4, 8]


def test_validation_asked_twice_runs_once() -> None:
    module, validate = Noted(), Validate()
    act = Act(validate, 2, lambda t: (validate.run(t), validate.run(t)))
    fitted = trainer(act, max_epochs=2)
    fitted.fit(module, loader(), loader())
    assert module.validations == [2, 4, 8]
    assert fitted.val_check_batch == 4


def test_validation_is_refused_where_there_is_nothing_to_validate() -> None:
    act = validate_after(1)
    trainer(act).fit(Regression(), loader())
    assert "no validation" in act.error


def test_loss_is_the_same_with_and_without_a_validation() -> None:
    def train(*acts: Act) -> list[float]:
        module: LightningModule = Noted(configure=lambda m: torch.optim.Adam(m.parameters(), lr=0.01))
        trainer(*acts, max_epochs=2, accumulate_grad_batches=3).fit(module, loader(batch_size=4), loader())
        return module.losses  # type: ignore[return-value]

    assert train(validate_after(2)) == train()
