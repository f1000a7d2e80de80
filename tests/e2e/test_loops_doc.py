"""What `docs/loops.md` says: its program lasts until somebody stops it, and can be steered meanwhile."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_lightning_callback import until
from tests.support import DEADLINE, broker_process, free_endpoint
from zloom.client import SyncOperator, connect_sync

DOC = (Path(__file__).parents[2] / "docs" / "loops.md").read_text()


def begun(operator: SyncOperator) -> bool:
    return any(each.step for each in operator.replicas("fabric-lm"))


@pytest.mark.slow
def test_the_program_trains_until_it_is_stopped(tmp_path: Path) -> None:
    program = re.findall(r"^```python\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)[0]
    (tmp_path / "train.py").write_text(program)
    log = tmp_path / "log"
    with (
        free_endpoint("ipc") as bind,
        broker_process(tmp_path / "data", bind) as broker,
        connect_sync(broker.endpoint) as operator,
        log.open("w") as said,
        subprocess.Popen(
            [sys.executable, "train.py"],
            env=os.environ | {"ZLOOM_BROKER": broker.endpoint},
            cwd=tmp_path,
            stdout=said,
            stderr=said,
        ) as training,
    ):
        try:
            until(lambda: begun(operator))
            for change in {"optimizer_type": "sgd"}, {"learning_rate": 1e-4}:
                assert operator.set("fabric-lm", change, timeout=DEADLINE).applied_everywhere
            assert operator.stop("fabric-lm").applied_everywhere
            assert training.wait(DEADLINE) == 0, log.read_text()
        finally:
            training.kill()
