"""`WeaveletCallback` under Lightning's launchers, and in a notebook."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.e2e.lightning_models import QUIET, Regression, loader, trainer
from tests.e2e.test_lightning_callback import until
from tests.support import DEADLINE
from zloom.client import Result, SyncOperator
from zloom.errors import Refused
from zloom.lightning import WeaveletCallback

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(line) for line in QUIET)]

SCRIPT = Path(__file__).with_name("ddp_trainer.py")
ROOT = SCRIPT.parents[2]

FIT_IN_A_CELL = """
import threading
from tests.e2e.lightning_models import Regression, loader, trainer
from zloom.lightning import WeaveletCallback
import zloom

callback = WeaveletCallback(run)
fitted = trainer(callback, max_epochs=-1)
fitted.fit(Regression(), loader())
fitted.optimizers[0].param_groups[0]["lr"]
"""

FIT_IN_A_THREAD = """
fitted = trainer(callback, max_epochs=-1)
thread = threading.Thread(target=fitted.fit, args=(Regression(), loader()))
thread.start()
"""

STEER_FROM_ANOTHER_CELL = """
with zloom.connect_sync() as operator:
    while len(operator.runs(run)) < 2 or "stop" not in [one.name for one in operator.keys(run).commands]:
        pass
    results = [operator.set(run, {"learning_rate": 0.25}), operator.pause(run), operator.stop(run)]
thread.join(20)
[outcome.outcome for result in results for outcome in result.outcomes], thread.is_alive()
"""


def declared(operator: SyncOperator, run: str, ranks: int = 1) -> bool:
    """Tell whether the broker knows so many replicas of the run, and all of their keys and commands."""
    try:
        commands = [one.name for one in operator.keys(run).commands]
    except Refused:
        return False
    return "validate" in commands and len(operator.replicas(run)) == ranks


def test_ranks_that_lightning_starts_as_scripts_are_steered(
    operator: SyncOperator, run: str, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    command = [sys.executable, str(SCRIPT), operator.endpoint, run, str(end)]
    log = (tmp_path / "log").open("w")
    with log, subprocess.Popen(command, env=_environment(), stdout=log, stderr=log) as process:
        try:
            until(lambda: declared(operator, run, ranks=2), within=3 * DEADLINE)  # each imports Lightning
            until(lambda: all((one.step or 0) > 0 for one in operator.replicas(run)))
            replicas = operator.replicas(run)
            assert {(one.rank, one.world_size) for one in replicas} == {(0, 2), (1, 2)}
            assert len({one.attempt for one in replicas}) == 1
            result = operator.set(run, {"learning_rate": 0.25}, mode="next")
            assert sorted((one.rank, one.outcome) for one in result.outcomes) == [
                (0, "applied"),
                (1, "applied"),
            ]
            _changes_all_ranks_at_one_step(operator, run)
        finally:
            end.touch()
            process.wait(DEADLINE)
    assert process.returncode == 0, (tmp_path / "log").read_text()
    until(lambda: [one.state for one in operator.replicas(run)] == ["finished"] * 2)


def _changes_all_ranks_at_one_step(operator: SyncOperator, run: str) -> None:
    changes: list[Callable[[], Result]] = [
        lambda: operator.set(run, {"learning_rate": 0.5, "optimizer_type": "adamw"}),
        lambda: operator.pause(run),
        lambda: operator.checkpoint(run),
        lambda: operator.resume(run),
    ]
    for change in changes:
        result = change()
        assert [one.outcome for one in result.outcomes] == ["applied"] * 2
        assert len({one.step for one in result.outcomes}) == 1


def test_ranks_that_lightning_spawns_join_one_attempt(operator: SyncOperator, run: str) -> None:
    callback = WeaveletCallback(run, broker=operator.endpoint)
    trainer(callback, strategy="ddp_spawn", devices=2).fit(Regression(), loader())
    until(lambda: [one.state for one in operator.replicas(run)] == ["finished"] * 2)
    replicas = operator.replicas(run)
    assert {(one.rank, one.world_size) for one in replicas} == {(0, 2), (1, 2)}
    assert len({one.attempt for one in replicas}) == 1


def test_a_notebook_trains_in_a_cell_and_steers_from_another(
    operator: SyncOperator, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("ZLOOM_BROKER", operator.endpoint)
    cells = [f"run = {run!r}", FIT_IN_A_CELL, FIT_IN_A_THREAD, STEER_FROM_ANOTHER_CELL]
    v4: Any = nbformat.v4
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, timeout=60, kernel_name="python3")
    with client.setup_kernel():
        client.execute_cell(notebook.cells[0], 0)
        with ThreadPoolExecutor() as pool:
            steering = pool.submit(_steer, operator, run)
            client.execute_cell(notebook.cells[1], 1)
            steering.result(20)
        for index in (2, 3):
            client.execute_cell(notebook.cells[index], index)
    assert _value(notebook.cells[1]) == "0.5"
    assert _value(notebook.cells[3]) == "(['applied', 'applied', 'applied'], False)"
    assert [one.state for one in operator.replicas(run)] == ["finished"] * 2


def _steer(operator: SyncOperator, run: str) -> None:
    until(lambda: declared(operator, run))
    assert operator.set(run, {"learning_rate": 0.5}).applied_everywhere
    assert operator.stop(run).applied_everywhere


def _value(cell: Any) -> str:
    """Return what a notebook shows as the value of a cell."""
    (result,) = [one for one in cell.outputs if one.output_type == "execute_result"]
    return str(result.data["text/plain"])


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}
