"""`WeaveletCallback` in a real Hugging Face Trainer, steered by a real operator through a real broker."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.e2e.test_examples import started
from tests.e2e.test_lightning_callback import until
from tests.e2e.test_loop_steering import step_of_both
from tests.support import DEADLINE
from zloom.client import SyncOperator
from zloom.errors import Refused
from zloom.model import Value

transformers = pytest.importorskip("transformers", reason="the extra `transformers` is not installed")

from tests.e2e.transformers_trainer import trainer  # noqa: E402
from zloom.transformers import WeaveletCallback  # noqa: E402

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

KEYS = [
    "optimizer_type",
    "learning_rate",
    "weight_decay",
    "momentum",
    "gradient_clip_val",
    "max_steps",
    "log_every_n_steps",
]


class Note(transformers.TrainerCallback):  # type: ignore[misc, name-defined, unused-ignore]
    """Notes the rate and the norm of each step, and ends the training once the script has failed."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.norms: list[float] = []
        self.script: Future[Any] | None = None

    def on_pre_optimizer_step(self, *_: Any, model: Any, optimizer: Any, **__: Any) -> None:
        self.rates.append(float(optimizer.param_groups[0]["lr"]))
        gradients = [parameter.grad.norm() for parameter in model.parameters()]
        self.norms.append(float(torch.stack(gradients).norm()))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        failed = self.script is not None and self.script.done() and self.script.exception()
        control.should_training_stop = control.should_training_stop or bool(failed)


def trains(operator: SyncOperator, run: str) -> bool:
    """Tell whether a replica of the run trains, and has declared all."""
    try:
        declared = "validate" in [one.name for one in operator.keys(run).commands]
    except Refused:
        return False
    replicas = [one for one in operator.replicas(run) if one.state != "finished"]
    return declared and len(replicas) == 1 and (replicas[0].step or 0) > 0


def train(trained: Any, note: Note, script: Callable[[], object], **options: Any) -> None:
    with ThreadPoolExecutor() as pool:
        note.script = pool.submit(script)
        trained.train(**options)
        note.script.result(DEADLINE)


def test_a_trainer_is_steered_paused_saved_and_goes_on(
    operator: SyncOperator, run: str, tmp_path: Path
) -> None:
    note, seen = Note(), dict[str, Any]()
    trained = trainer(
        tmp_path,
        WeaveletCallback(run, broker=operator.endpoint),
        note,
        eval_strategy="steps",
        eval_steps=1_000_000,
        gradient_accumulation_steps=2,
    )

    def script() -> None:
        until(lambda: trains(operator, run))
        config = operator.get(run)
        assert list(config) == [*KEYS, "scale"]
        assert config["learning_rate"] == 1e-3
        assert config["optimizer_type"] == "adamw"
        assert operator.set(run, {"scale": 2.0}).applied_everywhere
        (changed,) = operator.set(run, {"learning_rate": 3e-3, "gradient_clip_val": 0.01}).outcomes
        seen["changed"] = changed.step
        (refused,) = operator.set(run, {"gradient_clip_val": 5.0, "optimizer_type": "sgd"}).outcomes
        assert "save_only_model" in refused.error
        (refused,) = operator.set(run, {"max_steps": 2_000_000}).outcomes
        assert "expected at most 1000000" in refused.error
        operator.command(run, "validate")
        until(lambda: {"loss", "eval_loss"} <= operator.replicas(run)[-1].metrics.keys())
        (paused,) = operator.pause(run).outcomes
        assert operator.set(run, {"log_every_n_steps": 7}).outcomes[0].step == (paused.step or 0) + 1
        operator.resume(run)
        (saved,) = operator.checkpoint(run).outcomes
        seen["saved"], seen["path"] = saved.step, saved.detail
        (stopped,) = operator.command(run, "stop", mode="consistent").outcomes
        seen["stopped"] = stopped.step

    train(trained, note, script)
    assert trained.state.global_step == seen["stopped"] == len(note.rates)
    at = seen["changed"]
    assert note.rates[at - 2] == pytest.approx(1e-3 * (1 - (at - 2) / 1e6), rel=1e-9)
    assert note.rates[at - 1 :] == pytest.approx(
        [3e-3 * (1 - n / 1e6) for n in range(at - 1, len(note.rates))], rel=1e-9
    )
    assert max(note.norms[at:]) <= 0.01 * 1.001 < max(note.norms[: at - 1])
    until(lambda: operator.replicas(run)[-1].state == "finished")

    note, resumed = Note(), {}
    goes_on = trainer(
        tmp_path,
        WeaveletCallback(run, broker=operator.endpoint),
        note,
        eval_strategy="steps",
        eval_steps=1_000_000,
        gradient_accumulation_steps=2,
    )

    def ask() -> None:
        until(lambda: trains(operator, run))
        resumed.update(operator.get(run))
        operator.stop(run)

    train(goes_on, note, ask, resume_from_checkpoint=seen["path"])
    assert resumed["learning_rate"] == pytest.approx(3e-3, rel=1e-12)
    assert (resumed["gradient_clip_val"], resumed["log_every_n_steps"], resumed["scale"]) == (0.01, 7, 2.0)
    assert note.rates[0] == pytest.approx(3e-3 * (1 - seen["saved"] / 1e6), rel=1e-9)
    assert goes_on.state.global_step == seen["saved"] + len(note.rates)


def test_the_optimizer_changes_where_checkpoints_do_not_hold_it(
    operator: SyncOperator, run: str, tmp_path: Path
) -> None:
    note, seen = Note(), dict[str, Any]()
    trained = trainer(
        tmp_path,
        WeaveletCallback(run, broker=operator.endpoint),
        note,
        save_only_model=True,
        logging_steps=20,
    )

    def script() -> None:
        until(lambda: trains(operator, run))
        changes: dict[str, Value] = {"optimizer_type": "sgd", "learning_rate": 2e-3, "momentum": 0.5}
        (changed,) = operator.set(run, changes).outcomes
        assert changed.outcome == "applied", changed.error
        (refused,) = operator.command(run, "validate").outcomes
        assert "no evaluation" in refused.error
        assert changed.step is not None
        seen["end"] = changed.step + 200
        assert operator.set(run, {"max_steps": seen["end"]}).applied_everywhere

    train(trained, note, script)
    assert trained.state.global_step == len(note.rates) >= seen["end"]
    inner = trained.optimizer.optimizer
    assert type(inner) is torch.optim.SGD
    assert inner.param_groups[0]["momentum"] == 0.5
    assert trained.state.log_history[-2]["loss"] < trained.state.log_history[0]["loss"]
    assert note.rates[-1] == pytest.approx(2e-3 * (1 - (len(note.rates) - 1) / 1e6), rel=1e-9)


@pytest.mark.slow
def test_two_ranks_change_at_one_step_and_tell_the_exception_that_ends_them(run: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("transformers_trainer.py")
    with started(tmp_path, run, *TORCHRUN, str(script), run, str(tmp_path)) as (operator, process):
        step_of_both(operator.set(run, {"learning_rate": 2e-3, "gradient_clip_val": 0.5}))
        assert step_of_both(operator.pause(run)) == step_of_both(operator.resume(run))
        saved = operator.checkpoint(run)
        step_of_both(saved)
        step_of_both(operator.set(run, {"scale": 13.0}))
        process.communicate(timeout=DEADLINE)
        assert Path(saved.outcomes[0].detail, "trainer_state.json").exists()
        until(lambda: "failed: ValueError: no more data" in {one.reason for one in operator.replicas(run)})
    ours, theirs = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
