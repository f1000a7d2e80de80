"""What one run of the bench found, as it is saved."""

from pathlib import Path
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from bench.percentiles import Percentiles, Spread

Transport = Literal["inproc", "ipc", "tcp"]
Load = Literal["idle", "busy", "torch"]
Contender = Literal[
    "zloom fsync",
    "zloom buffered",
    "sockets",
    "pyzmq",
    "zmq.asyncio",
    "NATS",
    "JetStream",
    "JetStream always",
    "Redis",
    "skeleton fsync",
    "skeleton buffered",
]
OpenContender = Literal[
    "zloom fsync",
    "zloom buffered",
    "NATS",
    "JetStream",
    "JetStream always",
    "skeleton fsync",
    "skeleton buffered",
]
"""One whose operator can have many changes on their way at once; the echoes answer one after the other."""

By = Literal["ratio", "difference", "itself"]

TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
LOADS: tuple[Load, ...] = get_args(Load)
OURS: tuple[Contender, ...] = ("zloom fsync", "zloom buffered")
NATS: tuple[Contender, ...] = ("NATS", "JetStream", "JetStream always")
REDIS: tuple[Contender, ...] = ("Redis",)
"""They and those of NATS need a server and a client from elsewhere."""
SKELETONS: tuple[Contender, ...] = ("skeleton fsync", "skeleton buffered")
"""What zloom cannot do without, and nothing else; see `bench.skeleton`."""
SKELETON_OF: dict[str, Contender] = dict(zip(OURS, SKELETONS, strict=True))
"""By durability the same."""
CONTENDERS: tuple[Contender, ...] = get_args(Contender)
PEERS: tuple[Contender, ...] = ("sockets", "pyzmq", "zmq.asyncio", *NATS, *REDIS)
OPEN: tuple[OpenContender, ...] = get_args(OpenContender)


class Machine(Struct, frozen=True):
    """Where and when it ran.

    Attributes:
        cores: That this process may use.
        commit: Of the checkout, with `-dirty` when it was changed; empty outside one.
        date: UTC, ISO 8601.
        disk_fsync_us: Median microseconds of a small write and its fsync where the journals were.
        nats: Versions of the server and of the client; empty without them.
        redis: Likewise.
        gpu: The first GPU and torch's version, where torch can use one.
        others: Versions of what else a process loads, on which its start and memory depend.
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
    nats: str = ""
    redis: str = ""
    gpu: str = ""
    others: str = ""


class RoundTrip(Struct, frozen=True):
    """Round trips of one contender.

    Attributes:
        rounds: Of each round.
        total: Of all rounds' samples together.
        histogram: Likewise, in nanoseconds, as HdrHistogram encodes it (V2, base64), for a curve of all of
            them; empty where the package is not installed.
    """

    transport: Transport
    load: Load
    contender: Contender
    rounds: list[Percentiles]
    total: Percentiles
    histogram: str = ""


class Ratio(Struct, frozen=True):
    """How many times longer a contender's median is than a peer's."""

    transport: Transport
    load: Load
    contender: Contender
    peer: Contender
    spread: Spread


class AtRate(Struct, frozen=True):
    """Changes that one contender sent at a fixed rate, whether or not earlier ones were answered (open loop).

    Each is timed from when it should have been sent. One that had no answer when its round ended counts with
    what it had waited until then.

    Attributes:
        rate: Sent a second.
        rounds, total, histogram: See `RoundTrip`.
        answered: A second, in each round; the rate where it kept up.
        unanswered: When their round ended, of all rounds.
    """

    rate: int
    contender: OpenContender
    rounds: list[Percentiles]
    total: Percentiles
    answered: list[float]
    unanswered: int
    histogram: str = ""


class Cost(Struct, frozen=True):
    """Nanoseconds of one call, the loop around it included.

    Attributes:
        goal: That it should stay below; None where there is none.
    """

    call: str
    best: float
    median: float
    goal: float | None


class Figure(Struct, frozen=True):
    """What one contender reached in one case of a bench.

    Attributes:
        what: Was measured, such as `until all outcomes`.
        contender: Who; in most benches others than those of the round trips.
        rounds: One value each, in `unit`.
    """

    bench: str
    case: str
    what: str
    unit: str
    contender: str
    rounds: list[float]


class Verdict(Struct, frozen=True):
    """How a contender stands to a peer of the same rounds, and to the goal.

    Attributes:
        by: The contender's value divided by the peer's, less the peer's, or by itself.
        spread: Of the rounds.
        unit: Of the spread; empty for a ratio.
        limit: That its median should keep, itself included; None where there is no goal.
        at_most: The limit is an upper one, else a lower one.
    """

    bench: str
    case: str
    what: str
    contender: str
    peer: str
    by: By
    spread: Spread
    unit: str
    limit: float | None
    at_most: bool

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.limit is None:
            return None
        return self.spread.median <= self.limit if self.at_most else self.spread.median >= self.limit


class Absence(Struct, frozen=True):
    """What a bench could not measure here, and why."""

    bench: str
    what: str
    why: str


class Run(Struct, frozen=True):
    """One run of the bench; what was not asked for is empty."""

    machine: Machine
    quick: bool
    step_ms: float
    """Median milliseconds of one step of the busy training in pure Python, by itself."""
    seconds: float
    round_trips: list[RoundTrip]
    ratios: list[Ratio]
    costs: list[Cost]
    torch_step_ms: float | None = None
    """Likewise of the step of PyTorch; None without it."""
    figures: list[Figure] = []
    verdicts: list[Verdict] = []
    absent: list[Absence] = []
    open_loop: list[AtRate] = []
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
