"""Whose config holds where a fit goes on from a checkpoint, in the same attempt and in a new one."""

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from tests.e2e.forks import FORKS
from tests.e2e.lightning_models import QUIET, Regression, loader, trainer
from tests.e2e.test_lightning_callback import Session, until
from tests.support import DEADLINE, broker_process, free_endpoint
from zloom.client import SyncOperator, connect_sync
from zloom.errors import SettingsError
from zloom.lightning import WeaveletCallback

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("broker")
    with free_endpoint("ipc") as bind, broker_process(folder / "data", bind) as broker:
        yield broker.endpoint


@pytest.fixture
def operator(endpoint: str) -> Iterator[SyncOperator]:
    with connect_sync(endpoint) as connected:
        yield connected


@pytest.fixture
def session(operator: SyncOperator) -> Session:
    return Session(operator)


def steer_save_steer(session: Session, folder: Path) -> str:
    """Train in attempt `one` with 0.05, save a checkpoint, and go on with 0.07; return the checkpoint."""
    saved: list[str] = []

    def script() -> None:
        session.apply(learning_rate=0.05, gradient_clip_val=0.5)
        saved.append(session.command("checkpoint"))
        session.apply(learning_rate=0.07)

    session.callback = WeaveletCallback(session.run, broker=session.operator.endpoint, attempt="one")
    session.fit(Regression(), script, default_root_dir=folder)
    return saved[0]


def go_on(session: Session, checkpoint: str | None, **options: Any) -> tuple[Regression, dict[str, Any]]:
    """Train again; return the module, and the config as operators see it then."""
    session.callback = WeaveletCallback(session.run, broker=session.operator.endpoint, **options)
    module, values = Regression(), {}

    def script() -> None:
        until(lambda: len(module.rates) > 2)
        values.update(session.operator.get(session.run))

    session.fit(module, script, resume=checkpoint)
    return module, values


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({"attempt": "one"}, 0.05),
        ({"attempt": "one", "resume": "newest"}, 0.07),
        ({"attempt": "two"}, 0.05),
        ({"attempt": "two", "resume": "newest"}, 0.07),
        ({"attempt": "two", "inherit": True}, 0.07),
    ],
)
def test_from_a_checkpoint(session: Session, tmp_path: Path, options: dict[str, Any], rate: float) -> None:
    checkpoint = steer_save_steer(session, tmp_path)
    module, values = go_on(session, checkpoint, **options)
    assert set(module.rates) == {rate}
    assert values["learning_rate"] == rate
    assert values["gradient_clip_val"] == 0.5


@pytest.mark.parametrize(
    ("options", "rate"),
    [({"attempt": "one"}, 0.07), ({"attempt": "two"}, 0.02), ({"attempt": "two", "inherit": True}, 0.07)],
)
def test_without_a_checkpoint(session: Session, tmp_path: Path, options: dict[str, Any], rate: float) -> None:
    steer_save_steer(session, tmp_path)
    module, values = go_on(session, None, **options)
    assert set(module.rates) == {rate}
    assert values["learning_rate"] == rate


def test_the_checkpoint_s_config_is_a_revision_that_says_so(session: Session, tmp_path: Path) -> None:
    checkpoint = steer_save_steer(session, tmp_path)
    go_on(session, checkpoint, attempt="one")
    newest = session.operator.history(session.run)[0].revision
    assert (newest.by, newest.note, newest.restores) == ("zloom", "the checkpoint's config", True)
    assert newest.changes == {"learning_rate": 0.05, "gradient_clip_val": 0.5}


def test_anything_else_is_refused() -> None:
    with pytest.raises(SettingsError, match="expected checkpoint or newest"):
        WeaveletCallback("run", resume="latest")  # type: ignore[arg-type]


# --- two ranks -----------------------------------------------------------------------------------


class Log(Callback):
    """Notes the rate of each step of a rank, and ends the training once a file is there."""

    def __init__(self, folder: Path, part: str, end: str) -> None:
        self._folder, self._part, self._end = folder, part, end

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        with (self._folder / f"{self._part}.{trainer.global_rank}").open("a") as file:
            file.write(f"{rate}\n")
        ended = (self._folder / self._end).exists()
        trainer.should_stop = trainer.should_stop or trainer.strategy.reduce_boolean_decision(
            ended, all=False
        )


def fit_on_two_ranks(
    endpoint: str, run: str, folder: Path, part: str, checkpoint: str | None, options: dict[str, Any]
) -> None:
    callback = WeaveletCallback(run, broker=endpoint, **options)
    fitted = trainer(
        callback,
        Log(folder, part, f"{part}.end"),
        strategy="ddp_fork",
        devices=2,
        max_epochs=-1,
        default_root_dir=folder,
    )
    fitted.fit(Regression(), loader(), ckpt_path=checkpoint)


class Job:
    """A fit on two ranks in processes of its own."""

    def __init__(self, operator: SyncOperator, run: str, folder: Path) -> None:
        self.operator, self.run, self.folder = operator, run, folder

    def fit(self, part: str, script: Callable[[], object], checkpoint: str | None, **options: Any) -> None:
        """Train until the script has ended."""
        arguments = (self.operator.endpoint, self.run, self.folder, part, checkpoint, options)
        process = FORKS.Process(target=fit_on_two_ranks, args=arguments)
        process.start()
        try:
            self.wait_for_steps(part, 2)
            script()
        finally:
            (self.folder / f"{part}.end").touch()
            process.join(DEADLINE)
        assert process.exitcode == 0

    def rates(self, part: str) -> list[list[float]]:
        """Return the rates of each rank so far."""
        paths = [self.folder / f"{part}.{rank}" for rank in range(2)]
        return [[float(line) for line in path.read_text().split()] if path.exists() else [] for path in paths]

    def wait_for_steps(self, part: str, count: int) -> None:
        deadline = time.monotonic() + 2 * DEADLINE
        while min(map(len, self.rates(part))) < count:
            assert time.monotonic() < deadline, "the ranks do not train"

    def set(self, **changes: Any) -> None:
        result = self.operator.set(self.run, changes)
        assert [each.outcome for each in result.outcomes] == ["applied"] * 2, result.outcomes


def test_g3_two_ranks_begin_with_one_config(operator: SyncOperator, tmp_path: Path) -> None:
    """Of the checkpoint, then, in another process of the same attempt, with the newest."""
    job = Job(operator, f"test-{secrets.token_hex(4)}", tmp_path)
    saved: list[str] = []

    def steer() -> None:
        job.set(learning_rate=0.05)
        saved.append(operator.checkpoint(job.run).outcomes[0].detail)
        job.set(learning_rate=0.07)

    job.fit("first", steer, None, attempt="one")
    job.fit("resumed", lambda: None, saved[0], attempt="one")
    assert {rate for rates in job.rates("resumed") for rate in rates} == {0.05}
    job.fit("restarted", lambda: job.set(learning_rate=0.03), None, attempt="one")
    restarted = job.rates("restarted")
    assert [rates[0] for rates in restarted] == [0.05, 0.05]
    assert restarted[0] == restarted[1]
