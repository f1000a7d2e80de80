"""`WeaveletCallback` in a real Trainer, steered by a real operator through a real broker."""

import os
import pickle
import secrets
import signal
import threading
import time
from collections import UserDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from msgspec import Meta

from tests.e2e.lightning_models import QUIET, Change, Manual, Regression, loader, run, trainer
from tests.e2e.test_lightning_optimizer import TwoOptimizers, scheduled
from tests.support import DEADLINE, broker_process, free_endpoint
from zloom.client import SyncOperator, connect_sync
from zloom.errors import Refused
from zloom.lightning import WeaveletCallback
from zloom.lightning.limits import AccumulateGradBatches
from zloom.mailbox import Mailbox
from zloom.markers import on_command, on_config
from zloom.messages import Happened, Reported
from zloom.model import ReplicaStatus

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]

BUILT_IN = [
    "optimizer_type",
    "learning_rate",
    "weight_decay",
    "momentum",
    "gradient_clip_val",
    "accumulate_grad_batches",
    "batch_size",
    "max_epochs",
    "max_steps",
    "log_every_n_steps",
]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("broker")
    with free_endpoint("ipc") as bind, broker_process(folder / "data", bind) as broker:
        yield broker.endpoint


@pytest.fixture
def operator(endpoint: str) -> Iterator[SyncOperator]:
    with connect_sync(endpoint) as connected:
        yield connected


class Until(Callback):
    """Ends the training once the script has ended; lets it begin once there is a first batch."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()

    def on_train_batch_start(self, *_: Any) -> None:
        self.begun.set()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or self.over.is_set()


def until(condition: Callable[[], bool], within: float = DEADLINE) -> None:
    """Ask, over and over, until it is so, for so many seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"


class Session:
    """One fit in this thread, and a script of an operator in another."""

    def __init__(self, operator: SyncOperator) -> None:
        self.operator = operator
        self.run = f"test-{secrets.token_hex(4)}"
        self.failure: BaseException | None = None
        self.callback = WeaveletCallback(self.run, broker=operator.endpoint)

    def fit(
        self,
        module: LightningModule,
        script: Callable[[], object],
        *,
        val: Any = None,
        data: Any = None,
        resume: str | None = None,
        **options: Any,
    ) -> Trainer:
        """Train until the script ends, and raise what it raised."""
        gate = Until()
        thread = threading.Thread(target=self._follow, args=(script, gate))
        fitted = trainer(gate, self.callback, *options.pop("callbacks", []), **({"max_epochs": -1} | options))
        thread.start()
        try:
            fitted.fit(module, loader() if data is None else data, val, ckpt_path=resume)
        finally:
            gate.begun.set()
            thread.join(DEADLINE)
        assert not thread.is_alive(), "the script did not end"
        if self.failure is not None:
            raise self.failure
        return fitted

    def _follow(self, script: Callable[[], object], gate: Until) -> None:
        try:
            assert gate.begun.wait(DEADLINE)
            until(self.is_declared)
            script()
        except BaseException as error:  # noqa: BLE001 -- raised again by the test's thread
            self.failure = error
        finally:
            gate.over.set()

    def is_declared(self) -> bool:
        """Tell whether the broker knows all of the replica's keys and commands."""
        try:
            commands = self.operator.keys(self.run).commands
        except Refused:
            return False
        return "validate" in [command.name for command in commands]

    def apply(self, **changes: Any) -> int:
        """Change keys, and return the step at which the replica applied them."""
        (outcome,) = self.operator.set(self.run, changes).outcomes
        assert outcome.outcome == "applied", outcome.error
        assert outcome.step is not None
        return outcome.step

    def rejected(self, **changes: Any) -> str:
        """Change keys, and return why the replica did not."""
        (outcome,) = self.operator.set(self.run, changes).outcomes
        assert outcome.outcome == "rejected"
        return outcome.error

    def command(self, name: str, **arguments: Any) -> str:
        """Have a command carried out, and return what it answered."""
        (outcome,) = self.operator.command(self.run, name, arguments).outcomes
        assert outcome.outcome == "applied", outcome.error
        return outcome.detail

    @property
    def replica(self) -> ReplicaStatus:
        return self.operator.replicas(self.run)[-1]


@pytest.fixture
def session(operator: SyncOperator) -> Session:
    return Session(operator)


@pytest.mark.parametrize("kind", [Regression, Manual])
def test_every_key_is_declared_with_its_baseline(session: Session, kind: Any) -> None:
    baselines: dict[str, Any] = {}
    session.fit(kind(scheduled("adamw")), lambda: baselines.update(session.operator.get(session.run)))
    assert list(baselines) == BUILT_IN
    assert baselines == {
        "optimizer_type": "adamw",
        "learning_rate": 0.01,
        "weight_decay": 0.01,
        "momentum": 0.9,
        "gradient_clip_val": None,
        "accumulate_grad_batches": 1,
        "batch_size": 8,
        "max_epochs": -1,
        "max_steps": -1,
        "log_every_n_steps": 50,
    }


def test_every_key_can_be_changed(session: Session) -> None:
    changes: dict[str, Any] = {
        "optimizer_type": "sgd",
        "learning_rate": 0.02,
        "weight_decay": 0.1,
        "momentum": 0.5,
        "gradient_clip_val": 1.5,
        "accumulate_grad_batches": 2,
        "batch_size": 4,
        "max_epochs": 1_000_000,
        "max_steps": 1_000_000,
        "log_every_n_steps": 5,
    }

    def script() -> None:
        steps = [session.apply(**{name: value}) for name, value in changes.items()]
        assert steps == sorted(steps)
        assert session.operator.get(session.run) == changes

    fitted = session.fit(Regression(scheduled("adamw")), script)
    assert isinstance(fitted.optimizers[0], torch.optim.SGD)
    assert fitted.gradient_clip_val == 1.5
    assert fitted.accumulate_grad_batches == 2
    assert fitted.num_training_batches == 8
    assert (fitted.max_epochs, fitted.max_steps, fitted.fit_loop.max_steps) == (1_000_000,) * 3


def test_keys_that_wait_for_different_places_change_together(session: Session) -> None:
    def script() -> None:
        session.apply(optimizer_type="adam", learning_rate=0.5, accumulate_grad_batches=2, batch_size=4)
        assert "Muon" in session.rejected(learning_rate=0.1, optimizer_type="muon")

    class WithBias(Regression):
        def __init__(self, configure: Any) -> None:
            super().__init__(configure)
            self.bias = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    fitted = session.fit(WithBias(scheduled("sgd", lr=0.001)), script)
    group = fitted.optimizers[0].param_groups[0]
    assert isinstance(fitted.optimizers[0], torch.optim.Adam)
    assert group["initial_lr"] == pytest.approx(0.5)


class Windows(Regression):
    """Notes each step's batches in its epoch and its gradients, and goes on from `hold` when told to."""

    def __init__(self, hold: int) -> None:
        super().__init__()
        self.hold, self.held, self.go = hold, threading.Event(), threading.Event()
        self.steps: list[tuple[int, list[float]]] = []

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        if batch_idx == self.hold:
            self.held.set()
            assert self.go.wait(DEADLINE)
        self.batch_idx = batch_idx
        return super().training_step(batch, batch_idx)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        gradients = [one for weight in self.parameters() for one in weight.grad.flatten().tolist()]  # type: ignore[union-attr]
        self.steps.append((self.batch_idx + 1, gradients))


def test_accumulation_changes_inside_an_epoch_where_both_windows_begin(session: Session) -> None:
    # Asked for in the second window of 4, it can begin at the third.
    steered, reference = Windows(hold=5), Windows(hold=-1)

    def script() -> None:
        assert steered.held.wait(DEADLINE)
        sent = session.operator.set(session.run, {"accumulate_grad_batches": 2}, wait=False)
        until(lambda: session.replica.revision == sent.revision)
        steered.go.set()
        (outcome,) = session.operator.follow(session.run, sent.revision).outcomes
        assert (outcome.outcome, outcome.step) == ("applied", 9)
        until(lambda: len(steered.steps) == 6)

    session.fit(steered, script, data=loader(batch_size=2), accumulate_grad_batches=4, max_epochs=1)
    change = Change(AccumulateGradBatches(), 2, after=6)
    run(reference, change, data=loader(batch_size=2), accumulate_grad_batches=4)
    assert [batch for batch, _ in steered.steps] == [4, 8, 10, 12, 14, 16]
    assert steered.steps == reference.steps


def test_what_is_out_of_bounds_or_unknown_is_refused_by_the_broker(session: Session) -> None:
    def script() -> None:
        with pytest.raises(Refused, match="learning_rate"):
            session.apply(learning_rate=-1.0)
        with pytest.raises(Refused, match="optimizer_type"):
            session.apply(optimizer_type="adem")
        with pytest.raises(Refused, match="lr"):
            session.apply(lr=0.1)

    session.fit(Regression(), script)


def test_what_this_training_cannot_do_is_declared_without_value_and_rejected(session: Session) -> None:
    def script() -> None:
        assert session.operator.get(session.run)["optimizer_type"] is None
        assert "2 optimizers" in session.rejected(optimizer_type="adam")
        assert "in manual optimization" in session.rejected(gradient_clip_val=1.0)

    session.fit(TwoOptimizers(), script)


def test_a_marked_method_adds_a_key_or_takes_the_place_of_lightnings(session: Session) -> None:
    class Marked(Regression):
        every = 3

        @on_config("sync_every", get=lambda self: self.every)
        def set_every(self, value: Annotated[int, Meta(ge=1)]) -> None:
            """Set the steps between two syncs."""
            self.every = value

        @on_config("optimizer_type", initial="mine", description="The module's own")
        def update_optimizer(self, optimizer_type: str) -> None:
            self.seen = optimizer_type

        @on_command("greet")
        def greet(self, who: str = "you") -> str:
            return f"hello {who}"

    def script() -> None:
        keys = {state.key.name: state for state in session.operator.keys(session.run).keys}
        assert list(keys) == [*BUILT_IN, "sync_every"]
        assert keys["sync_every"].value == 3
        assert keys["sync_every"].key.description == "Set the steps between two syncs."
        assert keys["optimizer_type"].key.description == "The module's own"
        session.apply(sync_every=7, optimizer_type="anything")
        with pytest.raises(Refused, match="sync_every"):
            session.apply(sync_every=0)
        assert session.command("greet", who="me") == "hello me"

    module = Marked()
    session.fit(module, script)
    assert module.every == 7
    assert module.seen == "anything"


@pytest.mark.parametrize(("kind", "options"), [(Regression, {"accumulate_grad_batches": 3}), (Manual, {})])
def test_a_pause_holds_between_two_steps_serves_changes_and_ends(
    session: Session, kind: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    module = kind(scheduled("sgd"))

    def script() -> None:
        # Several times, since at each batch there are places where a pause must not hold.
        for optimizer_type in ("adam", "sgd", "adamw", "adam"):
            session.command("pause")
            until(lambda: session.replica.state == "paused")
            held = len(module.losses)
            assert session.apply(optimizer_type=optimizer_type, learning_rate=0.02) > 0
            assert session.command("checkpoint", filename="paused.ckpt").endswith("paused.ckpt")
            assert len(module.losses) == held
            session.command("resume")
            until(lambda held=held: len(module.losses) > held)  # type: ignore[misc]

    fitted = session.fit(module, script, default_root_dir=tmp_path, **options)
    assert isinstance(fitted.optimizers[0], torch.optim.Adam)


def test_stop_validate_and_checkpoint(session: Session, tmp_path: Path) -> None:
    validations: list[int] = []

    class Noted(Regression):
        def on_validation_start(self) -> None:
            validations.append(len(self.losses))

    def script() -> None:
        assert session.command("validate") == "validates after this batch"
        until(lambda: len(validations) == 1)
        assert Path(session.command("checkpoint")).is_file()
        assert session.command("stop") == "stops after this batch"

    session.fit(Noted(), script, val=loader(), check_val_every_n_epoch=1_000_000, default_root_dir=tmp_path)
    assert len(validations) == 1


def test_a_validation_asked_for_in_a_pause_is_said_to_come_after_it(session: Session) -> None:
    validations: list[int] = []

    class Noted(Regression):
        def on_validation_start(self) -> None:
            validations.append(len(self.losses))

    def script() -> None:
        session.command("pause")
        assert session.command("validate") == "validates after this batch, when the pause is over"
        assert not validations
        session.command("resume")
        until(lambda: len(validations) == 1)
        session.command("stop")

    session.fit(Noted(), script, val=loader(), check_val_every_n_epoch=1_000_000)


def test_stop_ends_the_pause_that_it_came_in(session: Session) -> None:
    module = Regression()
    lengths: list[int] = []

    def script() -> None:
        session.command("pause")
        lengths.append(len(module.losses))
        assert session.command("stop") == "stops after this batch; the pause is over"
        until(lambda: session.replica.state == "finished")

    session.fit(module, script)
    assert lengths == [len(module.losses)]


def test_a_stop_that_is_refused_leaves_the_pause(session: Session) -> None:
    def script() -> None:
        session.command("pause")
        until(lambda: session.replica.state == "paused")
        (outcome,) = session.operator.command(session.run, "stop").outcomes
        assert "min_epochs" in outcome.error
        assert session.callback.weavelet is not None
        assert session.callback.weavelet.paused
        assert session.command("stop", force=True).endswith("the pause is over")

    session.fit(Regression(), script, min_epochs=1_000_000)


def test_metrics_epoch_rate_and_throughput_are_reported(session: Session) -> None:
    class Logs(Regression):
        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

    wanted = {
        "loss",
        "train_loss_step",
        "train_loss_epoch",
        "val_loss",
        "epoch",
        "effective_learning_rate",
        "batches_per_second",
        "samples_per_second",
    }

    def script() -> None:
        until(lambda: wanted <= session.replica.metrics.keys())
        replica = session.replica
        assert (replica.step or 0) > 0
        assert replica.metrics["effective_learning_rate"] == pytest.approx(0.02)
        rate = replica.metrics["batches_per_second"]
        assert replica.metrics["samples_per_second"] == pytest.approx(8 * rate)

    session.fit(Logs(), script, val=loader())


def test_the_step_of_an_outcome_is_the_first_with_the_new_value(session: Session) -> None:
    module = Regression()
    told: list[tuple[int, float]] = []

    def change(rate: float, **options: Any) -> None:
        (outcome,) = session.operator.set(session.run, {"learning_rate": rate}, **options).outcomes
        assert outcome.step is not None
        told.append((outcome.step, rate))

    def script() -> None:
        for rate in (0.25, 0.125, 0.5, 0.375):
            change(rate)
        session.command("pause")
        change(0.0625)
        session.command("resume")
        change(0.03125, at_step=(session.replica.step or 0) + 50)
        until(lambda: len(module.rates) > told[-1][0])

    session.fit(module, script)
    for step, rate in dict(told).items():  # of two before one step the newer is trained with
        assert module.rates[step - 1] == rate
        assert module.rates[step - 2] != rate


def test_g9_a_step_is_told_before_it_is_looked_what_is_due_in_it(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other ranks are promised rests on this: else a rank could train a step at which they stop."""
    looks: list[list[int]] = [[]]
    """The step that was told at each look, by what lies between two batches."""

    class Watched(Mailbox):
        @property
        def waiting(self) -> bool:
            if (weavelet := session.callback.weavelet) is not None and threading.current_thread() is trains:
                looks[-1].append(weavelet.step)
            return self._waits

        @waiting.setter
        def waiting(self, waits: bool) -> None:
            self._waits = waits

    class Parts(Regression):
        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            looks.append([])
            return super().training_step(batch, batch_idx)

    trains = threading.current_thread()
    monkeypatch.setattr("zloom.steerable.Mailbox", Watched)
    session.fit(Parts(), lambda: until(lambda: len(looks) > 4))
    assert [set(each) for each in looks[1:4]] == [{1, 2}, {2, 3}, {3, 4}], "behind a batch, and before one"


def reported_steps(session: Session, module: LightningModule, steps: int) -> dict[str, list[int]]:
    """Train so many steps; return those at which each metric was reported."""
    reported: dict[str, list[int]] = defaultdict(list)
    with session.operator.watch(session.run) as feed:
        session.fit(module, lambda: until(lambda: session.replica.state == "finished"), max_steps=steps)
        for seen in feed:
            for name, series in seen.metrics.items() if isinstance(seen, Reported) else ():
                reported[name] += series.steps
            if isinstance(seen, Happened) and seen.event.kind == "finished":
                break
    return reported


def test_each_batch_reports_its_loss_and_what_it_logged_and_nothing_else(session: Session) -> None:
    class Logs(Regression):
        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            self.log("always", loss, on_step=True, on_epoch=True)
            if len(self.losses) % 20 == 3:
                self.log("seldom", 0.5)
            return loss

    reported = reported_steps(session, Logs(), 60)
    for name in ("loss", "always_step"):
        assert reported[name] == list(range(1, 61))
    assert reported["seldom"] == [3, 23, 43]
    for name in ("epoch", "effective_learning_rate"):
        assert reported[name][-1] == 60, "what a fit ends with, however short it was"


def test_what_is_logged_of_each_validation_loader_is_reported(session: Session) -> None:
    class Validates(Regression):
        def validation_step(self, batch: list[torch.Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("error", 0.5 + dataloader_idx)
            self.log(f"plain{dataloader_idx}", 0.25, add_dataloader_idx=False)

    def script() -> None:
        wanted = {f"error/dataloader_idx_{loader}": 0.5 + loader for loader in range(2)}
        wanted |= {"plain0": 0.25, "plain1": 0.25}
        until(lambda: wanted.items() <= session.replica.metrics.items())

    session.fit(Validates(), script, val=[loader(), loader()])


def test_a_sanity_check_is_no_part_of_the_first_rate(session: Session) -> None:
    ahead: list[float] = []

    class Slow(Regression):
        def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
            if self.trainer.sanity_checking:
                time.sleep(2)  # not awaited by anything: it is what takes long

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            super().on_train_batch_start(batch, batch_idx)
            assert session.callback._fit is not None
            ahead.append(session.callback._fit._throughput._since - time.monotonic())

    session.fit(Slow(), lambda: None, val=loader(), num_sanity_val_steps=1)
    assert -1 < ahead[0] <= 0, "the time of which the rate will be told begins with the training"


def test_a_checkpoint_is_left_out_of_the_rate_once(session: Session, tmp_path: Path) -> None:
    ahead: list[float] = []

    class Slow(Regression):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            time.sleep(2)  # not awaited by anything: it is what takes long

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            super().on_train_batch_start(batch, batch_idx)
            assert session.callback._fit is not None
            ahead.append(session.callback._fit._throughput._since - time.monotonic())

    session.fit(Slow(), lambda: session.command("checkpoint"), default_root_dir=tmp_path)
    assert max(ahead) <= 0, "the time of which a rate will be told begins in the future"


def test_a_loss_of_a_manual_optimization_may_be_in_any_mapping(session: Session) -> None:
    class Maps(Manual):
        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> Any:
            super().training_step(batch, batch_idx)
            return UserDict(loss=torch.tensor(0.5))

    assert reported_steps(session, Maps(), 5)["loss"] == [1, 2, 3, 4, 5]


def test_phases_are_told(session: Session) -> None:
    holding, seen = threading.Event(), threading.Event()

    class Slow(Regression):
        def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
            if not self.trainer.sanity_checking:
                holding.set()
                assert seen.wait(DEADLINE)

    def script() -> None:
        assert holding.wait(DEADLINE)
        until(lambda: session.replica.phase == "validating")
        seen.set()
        until(lambda: session.replica.phase == "training")

    session.fit(Slow(), script, val=loader(), num_sanity_val_steps=1)


def test_the_end_is_told_with_its_reason(session: Session) -> None:
    session.fit(Regression(), lambda: None)
    until(lambda: session.replica.state == "finished")
    assert session.replica.reason == "finished"

    class Breaks(Regression):
        def on_train_epoch_end(self) -> None:
            raise ArithmeticError("the loss is gone")

    with pytest.raises(ArithmeticError):
        trainer(session.callback).fit(Breaks(), loader())
    until(lambda: [one.state for one in session.operator.replicas(session.run)] == ["finished"] * 2)
    reasons = {one.reason for one in session.operator.replicas(session.run)}
    assert reasons == {"finished", "failed: ArithmeticError: the loss is gone"}


def test_several_fits_are_attempts_of_one_run_and_validate_is_none(session: Session) -> None:
    module = Regression()
    fitted = session.fit(module, lambda: session.apply(learning_rate=0.5))
    fitted.should_stop = False
    again = trainer(session.callback)
    again.fit(module, loader())
    again.validate(module, loader(), verbose=False)
    assert len(session.operator.runs(session.run)) == 2
    assert again.optimizers[0].param_groups[0]["lr"] == 0.02


def test_steered_values_come_back_from_a_checkpoint(session: Session, tmp_path: Path) -> None:
    saved: list[str] = []

    def script() -> None:
        session.apply(optimizer_type="adam", learning_rate=0.05, weight_decay=0.1, gradient_clip_val=0.5)
        session.apply(batch_size=4, accumulate_grad_batches=2, log_every_n_steps=7)
        saved.append(session.command("checkpoint"))

    session.fit(Regression(scheduled("sgd", 0.001)), script, default_root_dir=tmp_path)

    resumed = Session(session.operator)
    values: dict[str, Any] = {}
    module = Regression(scheduled("sgd", 0.001))
    resumed.fit(module, lambda: values.update(resumed.operator.get(resumed.run)), resume=saved[0])
    assert values["optimizer_type"] == "adam"
    assert values["learning_rate"] == pytest.approx(0.05)
    expected = {
        "weight_decay": 0.1,
        "gradient_clip_val": 0.5,
        "batch_size": 4,
        "accumulate_grad_batches": 2,
        "log_every_n_steps": 7,
    }
    assert {name: values[name] for name in expected} == expected
    assert {len(batch) for batch in module.batches} == {4}


def test_a_key_of_the_module_comes_back_from_a_checkpoint_and_says_so(
    session: Session, tmp_path: Path
) -> None:
    class Marked(Regression):
        rate = 0.0

        @on_config("dropout", initial=0.0)
        def set_dropout(self, value: float) -> None:
            self.rate = value

    saved: list[str] = []

    def script() -> None:
        session.apply(dropout=0.25)
        saved.append(session.command("checkpoint"))

    session.fit(Marked(), script, default_root_dir=tmp_path)
    resumed, module, values = Session(session.operator), Marked(), {}
    resumed.fit(module, lambda: values.update(resumed.operator.get(resumed.run)), resume=saved[0])
    assert module.rate == 0.25
    assert values["dropout"] == 0.25


def test_a_resumed_run_equals_one_that_was_not_interrupted(session: Session, tmp_path: Path) -> None:
    whole, resumed = (Regression(scheduled("sgd", 0.001)) for _ in range(2))
    saver = ModelCheckpoint(tmp_path, every_n_epochs=1, save_top_k=-1, filename="{epoch}")

    def script() -> None:
        session.apply(optimizer_type="nadam", batch_size=4, learning_rate=0.003)
        after = len(whole.losses)
        until(lambda: len(whole.losses) > after + 40)

    options: dict[str, Any] = {"enable_checkpointing": True, "callbacks": [saver]}
    epochs = session.fit(whole, script, **options).current_epoch
    callback = WeaveletCallback(session.run, broker=session.operator.endpoint)
    again = trainer(callback, saver, enable_checkpointing=True, max_epochs=epochs)
    # The end of the script may have cut the last epoch short; the one before is whole.
    again.fit(resumed, loader(), ckpt_path=tmp_path / f"epoch={epochs - 3}.ckpt")
    begins = [index for index, batch in enumerate(whole.batches) if batch[0] == 0.0]
    expected = whole.losses[begins[-2] :]
    assert resumed.losses[: len(expected)] == pytest.approx(expected, rel=1e-12)


def test_sigterm_in_a_pause_ends_it_and_the_training(session: Session) -> None:
    def script() -> None:
        session.command("pause")
        until(lambda: session.replica.state == "paused")
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SIGTERMException):
        session.fit(Regression(), script)
    until(lambda: session.replica.state == "finished")
    assert session.replica.reason == "terminated by SIGTERM"


def test_sigterm_inside_a_handler_lets_it_end_and_the_pause_behind_it_not_begin(session: Session) -> None:
    ended = threading.Event()

    class Slow(Windows):
        @on_command("tidy")
        def tidy(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            ended.set()

    module, later = Slow(hold=0), []

    def script() -> None:
        assert module.held.wait(DEADLINE)
        session.operator.command(session.run, "tidy", wait=False)
        later.append(session.operator.command(session.run, "pause", {"limit": 5}, wait=False).revision)
        until(lambda: session.replica.revision == later[0])
        module.go.set()

    with pytest.raises(SIGTERMException):
        session.fit(module, script)
    assert ended.is_set()
    (outcome,) = session.operator.follow(session.run, later[0]).outcomes
    assert outcome.outcome == "not_reached"


def test_without_a_broker_training_goes_on_unchanged_after_a_short_wait() -> None:
    plain, alone = Regression(), Regression()
    trainer(max_epochs=2).fit(plain, loader())
    begun = time.monotonic()
    with free_endpoint("ipc") as nobody:
        trainer(WeaveletCallback("alone", broker=nobody), max_epochs=2).fit(alone, loader())
    assert alone.losses == plain.losses
    assert time.monotonic() - begun < 8


def test_a_restarted_attempt_begins_with_its_config(session: Session) -> None:
    session.callback = WeaveletCallback(session.run, broker=session.operator.endpoint, attempt="one")
    session.fit(Regression(), lambda: session.apply(learning_rate=0.001, batch_size=4, optimizer_type="adam"))
    again, other = Regression(), Regression()
    fitted = trainer(session.callback)
    fitted.fit(again, loader())
    assert isinstance(fitted.optimizers[0], torch.optim.Adam)
    assert again.rates == [0.001] * 8
    assert [len(batch) for batch in again.batches] == [4] * 8
    trainer(WeaveletCallback(session.run, broker=session.operator.endpoint)).fit(other, loader())
    assert other.rates == [0.02] * 4


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_the_loader_leave_it_alone(session: Session, start: str) -> None:
    module = Regression()
    data = loader(num_workers=1, multiprocessing_context=start, persistent_workers=True)
    session.fit(module, lambda: session.apply(batch_size=4), data=data)
    until(lambda: session.replica.state == "finished")


def test_it_can_be_pickled_before_and_after_a_fit(session: Session) -> None:
    copies = [pickle.loads(pickle.dumps(session.callback))]
    session.fit(Regression(), lambda: copies.append(pickle.loads(pickle.dumps(session.callback))))
    copies.append(pickle.loads(pickle.dumps(session.callback)))
    assert all(isinstance(copy, WeaveletCallback) and copy.weavelet is None for copy in copies)
