"""What one run of the bench found, as it is saved."""

from pathlib import Path
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from bench.percentiles import Percentiles, Spread

Transport = Literal["inproc", "ipc", "tcp"]
Load = Literal["idle", "busy"]
Contender = Literal["zloom fsync", "zloom buffered", "pyzmq", "zmq.asyncio"]

TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
LOADS: tuple[Load, ...] = get_args(Load)
OURS: tuple[Contender, ...] = ("zloom fsync", "zloom buffered")
PEERS: tuple[Contender, ...] = ("pyzmq", "zmq.asyncio")


class Machine(Struct, frozen=True):
    """Where and when it ran.

    Attributes:
        cores: That this process may use.
        commit: Of the checkout, with `-dirty` when it was changed; empty outside one.
        date: UTC, ISO 8601.
        disk_fsync_us: Median microseconds of a small write and its fsync where the journals were.
    """

    cpu: str
    cores: int
    kernel: str
    python: str
    pyzmq: str
    libzmq: str
    zloom: str
    commit: str
    date: str
    disk_fsync_us: float


class RoundTrip(Struct, frozen=True):
    """Round trips of one contender.

    Attributes:
        rounds: Of each round.
        total: Of all rounds' samples together.
    """

    transport: Transport
    load: Load
    contender: Contender
    rounds: list[Percentiles]
    total: Percentiles


class Ratio(Struct, frozen=True):
    """How many times longer a contender's median is than a peer's."""

    transport: Transport
    load: Load
    contender: Contender
    peer: Contender
    spread: Spread


class Cost(Struct, frozen=True):
    """Nanoseconds of one call, the loop around it included.

    Attributes:
        goal: That it should stay below; None where there is none.
    """

    call: str
    best: float
    median: float
    goal: float | None


class Run(Struct, frozen=True):
    """One run of the bench."""

    machine: Machine
    quick: bool
    step_ms: float
    """Median milliseconds of one step of the busy training, by itself."""
    seconds: float
    round_trips: list[RoundTrip]
    ratios: list[Ratio]
    costs: list[Cost]
    format: Literal[1] = 1


def save(run: Run, path: Path) -> None:
    """Write a run as JSON; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run)) + b"\n")


def load(path: Path) -> Run:
    """Read a run.

    Raises:
        OSError: The file cannot be read.
        msgspec.DecodeError: It is not a run, or one of another format.
    """
    return msgspec.json.decode(path.read_bytes(), type=Run)
