"""A process leaves within two seconds, however many weavelets and operators it has, and however it ends."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import DEADLINE, broker_process, free_endpoint

CROWD = Path(__file__).with_name("crowd.py")


@contextlib.contextmanager
def crowd(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    pipe = subprocess.PIPE
    command = [sys.executable, str(CROWD), *arguments]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("sign", "closing", "ending"),
    [
        (signal.SIGKILL, "open", "raise"),
        (signal.SIGKILL, "closed", "exit"),
        (signal.SIGSTOP, "open", "exit"),
        (signal.SIGSTOP, "closed", "raise"),
    ],
)
@pytest.mark.fault("trainer: ends by exception or sys.exit, with mail for a dead broker", "left")
def test_g12_many_in_one_process_leave_within_two_seconds_together(
    tmp_path: Path, sign: signal.Signals, closing: str, ending: str
) -> None:
    with (
        free_endpoint("ipc") as endpoint,
        broker_process(tmp_path / "data", endpoint) as broker,
        crowd(endpoint, closing, ending) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        broker.process.send_signal(sign)
        out, err = process.communicate("\n", timeout=DEADLINE)
        took = time.time() - float(out)
        broker.process.send_signal(signal.SIGCONT)
        assert took < 2.0
        assert process.returncode == (3 if ending == "exit" else 1), err
        assert ("ValueError: the loss diverged" in err) is (ending == "raise")
