"""What `docs/lightning.md` says: its tables, and its program steered by its script."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_lightning_callback import until
from tests.support import DEADLINE, broker_process, free_endpoint
from zloom.client import connect_sync
from zloom.errors import Refused
from zloom.lightning.keys import STEERS
from zloom.schema import describe, schema_of

DOC = (Path(__file__).parents[2] / "docs" / "lightning.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)


def test_the_table_has_each_key_with_its_values() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| .+? \|$", DOC, re.MULTILINE)[: len(STEERS)]
    assert [name for name, _ in rows] == [steer.name for steer in STEERS]
    for (name, values), steer in list(zip(rows, STEERS, strict=True))[1:]:
        assert values == describe(schema_of(steer.annotation)), name


@pytest.mark.slow
def test_the_program_is_steered_by_the_script(tmp_path: Path) -> None:
    _, program, script = BLOCKS
    with free_endpoint("ipc") as bind, broker_process(tmp_path / "data", bind) as broker:
        environment = os.environ | {"ZLOOM_BROKER": broker.endpoint}
        log = (tmp_path / "log").open("w")
        command = [sys.executable, "-c", program]
        with log, subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log) as process:
            try:
                until(lambda: _is_declared(broker.endpoint))
                said = _run(script, environment)
                process.wait(DEADLINE)
            finally:
                process.kill()
    assert process.returncode == 0, (tmp_path / "log").read_text()
    assert re.fullmatch(
        r"applied at step \d+\nwindow: expected 1 or an even number, got 3\nnorm \d\.\d+\n", said
    )


def _run(script: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=DEADLINE
    ).stdout


def _is_declared(endpoint: str) -> bool:
    with connect_sync(endpoint) as operator:
        try:
            return "norm" in [command.name for command in operator.keys("own-keys").commands]
        except Refused:
            return False
