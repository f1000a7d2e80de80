"""What there is to know about the machine of a run."""

import os
import platform
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import zmq

from bench import nats_server, redis_server
from bench.results import Machine
from bench.training import has_cuda
from zloom import __version__

FSYNCS = 30
"""Writes of which the median says what the disk's fsync costs."""

ROW_BYTES = 4096
"""Of one such write: a page, as SQLite's log takes."""


def describe(folder: Path) -> Machine:
    """Describe this machine; `folder` is where journals will be, for its disk."""
    return Machine(
        cpu=_cpu(),
        cores=_cores(),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        pyzmq=zmq.__version__,
        libzmq=zmq.zmq_version(),
        zloom=__version__,
        commit=_commit(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        disk_fsync_us=_fsync_us(folder),
        nats=""
        if nats_server.missing()
        else f"nats-server {nats_server.version()}, nats-py {version('nats-py')}",
        redis=redis_server.versions(),
        gpu=_gpu(),
        others=", ".join(f"{name} {version(name)}" for name in ("msgspec", "typer")),
    )


def _gpu() -> str:
    if not has_cuda():
        return ""
    import torch

    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    here = Path(__file__).parent
    try:
        found = subprocess.run(command, capture_output=True, check=False, text=True, cwd=here)
    except OSError:  # no git
        return ""
    return found.stdout.strip()


def _fsync_us(folder: Path) -> float:
    durations = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(FSYNCS):
            started = time.perf_counter()
            file.write(bytes(ROW_BYTES))
            os.fsync(file.fileno())
            durations.append(time.perf_counter() - started)
    return round(median(durations) * 1e6, 1)
