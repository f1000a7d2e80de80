"""`zloom.torch` in loops of torch and of Fabric: alone, and steered through a real broker."""

import itertools
import os
import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.optim import lr_scheduler

import zloom.torch
from tests.e2e import fabric_trainer, lagging_trainer
from tests.e2e.forks import as_by_torchrun
from tests.e2e.lightning_models import QUIET, Regression, samples
from tests.e2e.test_examples import all_train
from tests.e2e.test_lightning_callback import until
from tests.e2e.test_lightning_learning_rate import SCHEDULES
from tests.support import DEADLINE, free_ports
from zloom.client import Result, SyncOperator
from zloom.errors import CannotSteer, Refused, SettingsError
from zloom.model import Value
from zloom.torch.learning_rate import LearningRate
from zloom.torch.loop import LoopOptimization
from zloom.torch.optimizer_type import OptimizerType, torch_optimizers
from zloom.torch.succession import Succession

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]

# SparseAdam alone trains no dense parameter.
DENSE = sorted(torch_optimizers().keys() - {"sparseadam", "lbfgs"})

Make = Callable[[torch.optim.Optimizer, float], Any]


class Loop:
    """The loop of a user: the same model and data each time."""

    def __init__(self, name: str = "sgd", lr: float = 0.01, make: Make | None = None, fabric: bool = False):
        self.model = Regression()
        self.made: Any = torch_optimizers()[name](self.model.parameters(), lr=lr)  # type: ignore[call-arg]
        self.optimizer: Any = self.made
        self.scheduler = None if make is None else make(self.optimizer, lr)
        if fabric:
            self.fabric = Fabric(accelerator="cpu", devices=1)
            self.fabric.setup_module(self.model)
            self.optimizer = self.fabric.setup_optimizers(self.optimizer)
        self.batch = list(samples().tensors)
        self.losses: list[float] = []
        self.rates: list[float] = []

    @property
    def optimization(self) -> LoopOptimization:
        schedulers = [] if self.scheduler is None else [self.scheduler]
        return LoopOptimization(self.optimizer, schedulers, self.model)

    def step(self) -> None:
        self.rates.append(float(self.optimizer.param_groups[0]["lr"]))
        loss: Tensor = self.model.loss(self.batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(1.0)
        elif self.scheduler is not None:
            self.scheduler.step()
        self.losses.append(loss.item())

    def steps(self, count: int) -> "Loop":
        for _ in range(count):
            self.step()
        return self


@pytest.mark.parametrize(("fabric", "name"), list(zip(itertools.cycle((False, True)), SCHEDULES)))
def test_a_changed_run_goes_on_as_if_the_rate_had_always_been_that(fabric: bool, name: str) -> None:
    steered, reference = (Loop(lr=lr, make=SCHEDULES[name], fabric=fabric) for lr in (0.01, 0.03))
    steer = LearningRate()
    for loop in steered, reference:
        steer.get(loop.optimization)
        loop.steps(6)
    steer.apply(steered.optimization, 0.03)
    steered.steps(14), reference.steps(14)
    assert steered.rates[6:] == pytest.approx(reference.rates[6:], rel=1e-12, abs=1e-18)


def _succeeded(old: str, new: str) -> Loop:
    """A loop that is given the successor as another object."""
    loop = Loop(old, make=SCHEDULES["StepLR"]).steps(5)
    succession = Succession(loop.made, torch_optimizers()[new])
    loop.optimizer = succession.build(succession.rehearse())
    assert loop.scheduler is not None
    loop.scheduler.optimizer = loop.optimizer
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Seems like `optimizer.step", UserWarning)
        return loop.steps(7)


@pytest.mark.parametrize(
    ("fabric", "old", "new"), list(zip(itertools.cycle((False, True)), DENSE, DENSE[5:] + DENSE[:5]))
)
def test_an_optimizer_that_changes_in_place_trains_as_its_successor_would(
    fabric: bool, old: str, new: str
) -> None:
    key, loop = OptimizerType(), Loop(old, make=SCHEDULES["StepLR"], fabric=fabric).steps(5)
    undo = key.apply(loop.optimization, new)
    assert type(loop.made) is torch_optimizers()[new]
    loop.steps(7)
    reference = _succeeded(old, new)
    assert loop.losses == reference.losses
    assert loop.rates == reference.rates
    assert min(loop.losses[6:]) < loop.losses[5]
    undo()
    assert type(loop.made) is torch_optimizers()[old]


@pytest.mark.parametrize("make", [SCHEDULES["StepLR"], SCHEDULES["OneCycleLR-3"]], ids=["step", "cycle"])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_change_undone_at_once_leaves_no_trace(name: str, make: Make) -> None:
    steered, reference = (
        Loop(name, make=make if name == "adamw" else SCHEDULES["StepLR"]).steps(5) for _ in range(2)
    )
    before = type(steered.made), dict(vars(steered.made))
    OptimizerType().apply(steered.optimization, "sgd" if name == "adamw" else "rmsprop")()
    assert (type(steered.made), vars(steered.made)) == before
    assert steered.steps(5).losses == reference.steps(5).losses


def test_hooks_of_the_optimizer_stay() -> None:
    loop, seen = Loop(), []
    loop.made.register_step_post_hook(lambda optimizer, *_: seen.append(type(optimizer).__name__))
    loop.step()
    OptimizerType().apply(loop.optimization, "adam")
    loop.step()
    assert seen == ["SGD", "Adam"]


def test_schedulers_see_the_first_step_of_what_it_became() -> None:
    loop = Loop("adamw", make=SCHEDULES["OneCycleLR-3"])
    with pytest.raises(CannotSteer, match="OneCycleLR would set a momentum that RMSprop has no buffers for"):
        OptimizerType().apply(loop.optimization, "rmsprop")
    OptimizerType().apply(loop.optimization, "sgd")
    loop.steps(3)  # the first of a scheduler warns where it has seen none of its optimizer
    assert 0.9 < loop.made.param_groups[0]["momentum"] < 0.95


class Slotted(torch.optim.SGD):
    __slots__ = ("secret",)


def test_what_a_loop_cannot_do_is_refused() -> None:
    key, loop = OptimizerType(), Loop()
    with pytest.raises(CannotSteer, match="needs a closure"):
        key.apply(loop.optimization, "lbfgs")
    slotted = LoopOptimization(Slotted(loop.model.parameters(), lr=0.1), [], loop.model)
    with pytest.raises(CannotSteer, match="a Slotted cannot become a Adam in place"):
        key.apply(slotted, "adam")
    with pytest.raises(SettingsError, match="expected an optimizer of torch, got Regression"):
        zloom.torch.Steering(loop.model)
    with pytest.warns(RuntimeWarning, match="none is given here"):
        zloom.torch.Steering(Loop(make=SCHEDULES["StepLR"]).optimizer)


# --- through a broker ----------------------------------------------------------------------------


def trains(operator: SyncOperator, run: str) -> bool:
    """Tell whether a replica of the run trains, and has declared all."""
    try:
        declared = "stop" in [one.name for one in operator.keys(run).commands]
    except Refused:
        return False
    replicas = [one for one in operator.replicas(run) if one.state != "finished"]
    return declared and len(replicas) == 1 and all((one.step or 0) > 0 for one in replicas)


class Job:
    """A loop that its user made steerable, in this thread; an operator's script in another steers it."""

    def __init__(self, operator: SyncOperator, run: str, path: Path, resumed: bool = False) -> None:
        self.loop = Loop("adamw", lr=0.001, make=slowly, fabric=True)
        self.weavelet = zloom.Weavelet(run, broker=operator.endpoint)
        self.steering = zloom.torch.Steering(self.loop.optimizer, self.loop.scheduler, model=self.loop.model)
        self.path, self.going = path, True
        if resumed:
            saved = torch.load(path)
            self.steering.load_state_dict(saved["steering"])
            for part, state in zip(self._parts, saved["states"], strict=True):
                part.load_state_dict(state)
        self.steering.declare(self.weavelet)
        self.weavelet.on_command("checkpoint")(self.save)
        self.weavelet.on_command("stop")(self.stop)

    @property
    def _parts(self) -> list[Any]:
        return [self.loop.model, self.loop.optimizer, self.loop.scheduler]

    def save(self) -> str:
        states = [part.state_dict() for part in self._parts]
        torch.save({"steering": self.steering.state_dict(), "states": states}, self.path)
        return str(self.path)

    def stop(self) -> None:
        self.going = False
        self.weavelet.end_pause()

    def train(self, script: Callable[[], object]) -> None:
        with ThreadPoolExecutor() as pool, self.weavelet:
            following = pool.submit(script)
            while self.going and not (following.done() and following.exception()):
                self.weavelet.tick()
                if self.going:
                    self.loop.step()
            following.result(DEADLINE)


def slowly(optimizer: torch.optim.Optimizer, _: float) -> Any:
    return lr_scheduler.ExponentialLR(optimizer, 0.9999)


def test_a_loop_of_fabric_is_steered_paused_saved_and_goes_on(
    operator: SyncOperator, run: str, tmp_path: Path
) -> None:
    job = Job(operator, run, tmp_path / "saved.pt")
    steps: dict[str, int | None] = {}

    def script() -> None:
        until(lambda: trains(operator, run))
        assert list(operator.get(run)) == ["optimizer_type", "learning_rate", "weight_decay", "momentum"]
        changes: dict[str, Value] = {"momentum": 0.5, "learning_rate": 0.002, "optimizer_type": "sgd"}
        (changed,) = operator.set(run, changes).outcomes
        steps["changed"] = changed.step
        (refused,) = operator.set(run, {"momentum": 0.1, "optimizer_type": "lbfgs"}).outcomes
        assert "optimizer_type: LBFGS needs a closure" in refused.error
        operator.pause(run)
        (saved,) = operator.command(run, "checkpoint").outcomes
        steps["saved"] = saved.step
        assert operator.stop(run).outcomes[0].step == saved.step

    job.train(script)
    at, loop = steps["changed"], job.loop
    assert at is not None
    assert loop.rates[at - 2] == pytest.approx(0.001 * 0.9999 ** (at - 2))
    assert loop.rates[at - 1 :] == pytest.approx([0.002 * 0.9999**n for n in range(at - 1, len(loop.rates))])
    assert type(loop.made) is torch.optim.SGD
    assert loop.losses[-1] < loop.losses[at - 1]

    again = Job(operator, run, tmp_path / "saved.pt", resumed=True)
    assert again.steering.state_dict() == job.steering.state_dict()
    with pytest.raises(SettingsError, match="before it declares"):
        again.steering.load_state_dict({"steered": {}})
    config: dict[str, Any] = {}

    def ask() -> None:
        until(lambda: trains(operator, run))
        config.update(operator.get(run))
        operator.stop(run)

    again.train(ask)
    count = len(again.loop.losses)
    assert again.loop.losses == loop.steps(count).losses[-count:]
    assert (config["optimizer_type"], config["momentum"]) == ("sgd", 0.5)


def step_of_both(result: Result) -> int | None:
    """Return the step at which both ranks applied it."""
    assert [outcome.outcome for outcome in result.outcomes] == ["applied"] * 2, [
        outcome.error for outcome in result.outcomes
    ]
    (step,) = {outcome.step for outcome in result.outcomes}
    return step


def test_two_ranks_of_fabric_change_at_one_step(operator: SyncOperator, run: str, tmp_path: Path) -> None:
    environment = {"ZLOOM_BROKER": operator.endpoint}
    with as_by_torchrun(fabric_trainer.main, [run, str(tmp_path)], free_ports(), environment) as processes:
        until(lambda: all_train(operator, run))
        assert step_of_both(operator.set(run, {"optimizer_type": "adamw", "learning_rate": 0.001}))
        operator.stop(run)
        for process in processes:
            process.join(DEADLINE)
    assert [process.exitcode for process in processes] == [0, 0]
    (kind, weights), (other_kind, others) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert kind == other_kind == "AdamW"
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(weights, others, strict=True))


@pytest.mark.parametrize("when", ["soon", "late"])
def test_a_rank_that_is_late_stops_where_the_first_did_that_serves_the_store(
    operator: SyncOperator, run: str, tmp_path: Path, when: str
) -> None:
    """The first waits a while for it; after that it has the broker's word that the other has stopped."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    environment = {"ZLOOM_BROKER": operator.endpoint}
    with as_by_torchrun(lagging_trainer.main, [run, pipe, when], free_ports(), environment) as processes:
        until(lambda: all_train(operator, run))
        assert step_of_both(operator.stop(run))
        for process in processes:
            process.join(DEADLINE)
        assert [process.exitcode for process in processes] == [0, 0]


def test_the_loop_of_the_readme_is_steered_and_ends_at_a_stop(
    operator: SyncOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    programs = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (program,) = [each for each in programs if "zloom.Weavelet(" in each]
    monkeypatch.setenv("ZLOOM_BROKER", operator.endpoint)
    loop = Loop()

    def train_step(batch: int) -> float:
        loop.step()
        return loop.losses[-1]

    own: dict[str, Any] = {
        "optimizer": loop.optimizer,
        "loader": itertools.repeat(0),
        "train_step": train_step,
    }
    with ThreadPoolExecutor(1) as thread:
        training = thread.submit(exec, program, own)  # the reader's own loop
        try:
            until(lambda: training.done() or all_train(operator, "tiny-lm"))
            assert operator.set("tiny-lm", {"learning_rate": 0.25}).applied_everywhere
            assert operator.pause("tiny-lm").applied_everywhere
            assert operator.stop("tiny-lm").applied_everywhere
            training.result(DEADLINE)
        finally:
            own["stopped"].set()  # the thread trains on where a line above failed
    assert loop.rates[-1] == 0.25
