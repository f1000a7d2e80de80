"""The words of zloom as types: what is declared, changed, answered for and seen.

They travel inside messages (`zloom.messages`), stand in the journal, and are what the operator's
client returns. All are immutable and may be shared between threads.
"""

import math
import re
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

JsonType = Literal["null", "boolean", "integer", "number", "string", "array", "object"]
Scalar = None | bool | int | float | str
Flat = Scalar | list[Scalar] | dict[str, Scalar]
# Three levels and no more: a recursive type would let a hostile message exhaust the stack.
Value = Scalar | list[Flat] | dict[str, Flat]

# What a peer says is added to and divided by: a count near 2^64 would give numbers that no message can carry,
# a NaN or a zero an exception in whoever asks next.
MAX_COUNT = 2**53
"""A double of another language still tells this from the integer before it."""
MAX_NAMED_STEP = 2**52
"""The last step that a trainer may name: nobody counts on from there to where messages end."""
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
"""A step, or a number of messages."""
MAX_NOTE = 500
"""Characters of an operator's note."""
MAX_REQUEST_ID = 128
"""Characters of a request's id: it is kept as long as history."""
Seconds = Annotated[float, Meta(ge=1e-9, le=1e9)]
"""A duration that is neither nothing nor longer than a life."""
MAX_LEFT = 1e9
"""Seconds until something ends, at most: what is further away does not end in a life."""
Left = Annotated[float, Meta(ge=0, le=MAX_LEFT)]
"""Seconds until something ends."""

Mode = Literal["next", "at_step", "consistent", "immediate"]
OutcomeKind = Literal["applied", "rejected", "aborted", "cancelled", "superseded", "not_reached", "lost"]
State = Literal["live", "paused", "holding", "stalled", "unresponsive", "lost", "finished"]
GONE: tuple[State, ...] = ("lost", "finished")
"""The states of a replica that is not there any more."""
Phase = Literal["training", "validating", "saving", "compiling"]

# Names become parts of topics and shell words; a separator inside would let run `a/b` read run `a`.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@:-]{0,127}")
NAME_RULE = "1 to 128 of letters, digits and . _ + @ : -, beginning with a letter or digit"

MAX_SCHEMA_DEPTH = 4
"""Levels of schemas inside schemas: a command's arguments are an object of values, and a value has three."""


class Schema(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The part of JSON Schema that zloom knows: type, enum, bounds, lengths, items, properties.

    Anything else of JSON Schema is refused at declaration: patterns and references cost
    unbounded time or reach out of the process.

    Raises:
        ValueError: It nests deeper than `MAX_SCHEMA_DEPTH`, or a number in it is NaN or infinite. In a
            message that is a bad field.
    """

    type: list[JsonType]
    enum: list[Scalar] | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    exclusive_minimum: int | float | None = None
    exclusive_maximum: int | float | None = None
    min_length: int | None = None
    max_length: int | None = None
    min_items: int | None = None
    max_items: int | None = None
    items: "Schema | None" = None
    properties: "dict[str, Schema] | None" = None
    required: list[str] | None = None

    def __post_init__(self) -> None:
        # One that a message may carry but that code cannot walk, or not compare with, would stop the broker.
        if self._depth() > MAX_SCHEMA_DEPTH:
            raise ValueError(f"schemas nest deeper than {MAX_SCHEMA_DEPTH}; use several keys")
        bounds = (self.minimum, self.maximum, self.exclusive_minimum, self.exclusive_maximum)
        for number in (*bounds, *(self.enum or ())):
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{number} in a schema; expected a finite number")

    def _depth(self) -> int:
        inner = [*(self.properties or {}).values(), *([self.items] if self.items is not None else [])]
        return 1 + max((schema._depth() for schema in inner), default=0)


class Key(Struct, frozen=True, omit_defaults=True):
    """A key of the config as one replica declares it."""

    name: str
    schema: Schema
    baseline: Value = None
    description: str = ""
    immediate: bool = False


class Command(Struct, frozen=True, omit_defaults=True):
    """A command as one replica declares it; `schema` describes its arguments, an object."""

    name: str
    schema: Schema
    description: str = ""


class Device(Struct, frozen=True, omit_defaults=True):
    """A device that a replica computes on."""

    id: str
    name: str
    kind: Literal["gpu", "mig", "host"]
    index: int | None = None
    memory_total: int = 0
    """Bytes; 0 when unknown."""


class DeviceStatus(Struct, frozen=True, omit_defaults=True):
    """What a device says of itself; None where the device cannot tell."""

    id: str
    utilization: float | None = None
    """0 to 1."""
    memory_used: int | None = None
    """Bytes."""
    temperature: float | None = None
    """Degrees Celsius."""
    power: float | None = None
    """Watts."""
    ecc_errors: int | None = None
    """Uncorrected, since the driver was loaded."""
    xid: int | None = None
    """The newest XID error."""


class Replica(Struct, frozen=True, omit_defaults=True):
    """One trainer process of an attempt. `id` is its incarnation: fresh at each process start."""

    id: str
    run: str
    attempt: str
    rank: int = 0
    world_size: int = 1
    host: str = ""
    pid: int = 0
    keys: list[Key] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    resumed: bool = False
    """It began from a checkpoint, whose values its keys declare: they hold over the newest of the attempt."""


class Outcome(Struct, frozen=True, omit_defaults=True):
    """What one replica answered to one revision; `outcome` is None while it has not."""

    replica: str
    rank: int = 0
    outcome: OutcomeKind | None = None
    step: Count | None = None
    error: str = ""
    detail: str = ""
    """What a command's handler returned, such as the path of a checkpoint."""
    values: dict[str, int | float] = field(default_factory=dict)
    """Of the cancel of a ramp: the value at which each of its keys stays."""
    chain: bytes = b""
    """The revision's, on the way to the broker only: after a backup was restored the same number may mean
    another revision there."""


class Ramp(Struct, frozen=True, omit_defaults=True):
    """How a number gets to its new value: step by step, from the step on at which the change is applied."""

    steps: int
    """How many until the new value is reached, 1 at least."""
    start: int | float | None = None
    """The value at the first step; None for the one that is in force then."""
    shape: Literal["linear", "cosine"] = "linear"
    """`cosine` begins and ends gently: half a wave."""


class RampState(Struct, frozen=True, omit_defaults=True):
    """Where a replica stands on a ramp."""

    revision: int
    value: int | float
    """Now in force."""
    end: int | float
    until: int
    """The step from which on `end` is in force."""
    error: str = ""
    """Why the ramp ended before that, at `value`: a handler raised."""


class Revision(Struct, frozen=True, omit_defaults=True):
    """One accepted change of an attempt: a config update, a command, or the cancelling of another.

    `chain` is a digest over this and all earlier revisions of the attempt: two sides that hold
    the same revision number with different digests have different histories.
    """

    revision: int
    kind: Literal["config", "command", "cancel"]
    changes: dict[str, Value] = field(default_factory=dict)
    ramps: dict[str, Ramp] = field(default_factory=dict)
    """Of the changes that are not made at once; `changes` has the value at the end of each."""
    command: str = ""
    arguments: dict[str, Value] = field(default_factory=dict)
    cancels: int = 0
    supersedes: list[int] = field(default_factory=list)
    """Revisions that had not happened yet, and end with this one."""
    restores: bool = False
    """It brings the config to ranks that came later; where a value is in force already, nothing is done."""
    mode: Mode = "next"
    at_step: int | None = None
    by: str = ""
    at: float = 0.0
    """Seconds since the Unix epoch, by the broker's clock."""
    request_id: str = ""
    note: str = ""
    """Why, in words: `rollback to 4`."""
    revert_if: str = ""
    """Its guard: when the broker takes it back; `docs/protocol.md` has the grammar."""
    chain: bytes = b""


class Problem(Struct, frozen=True, omit_defaults=True):
    """Why a change would be refused."""

    code: str
    text: str
    replicas: list[str] = field(default_factory=list)
    """Ids of those whose schema refuses it; empty when the broker does."""


class GuardEnd(Struct, frozen=True, omit_defaults=True):
    """How the guard of a revision ended: it fired, its steps passed, or there is nothing left to guard."""

    kind: Literal["reverted", "passed", "disarmed"]
    text: str = ""
    at: float = 0.0
    """Seconds since the Unix epoch, by the broker's clock."""
    revision: int = 0
    """The one that restored the values."""


class HistoryEntry(Struct, frozen=True, omit_defaults=True):
    """A revision with what became of it."""

    revision: Revision
    outcomes: list[Outcome] = field(default_factory=list)
    settled: bool = False
    """Each targeted replica has answered."""
    guard: GuardEnd | None = None
    """How the guard of the revision ended; None where there is none, or it is armed."""


class KeyState(Struct, frozen=True, omit_defaults=True):
    """A key with its value now and where the value comes from."""

    key: Key
    value: Value = None
    revision: int = 0
    """The revision that set the value; 0 is the trainer's own baseline."""
    pending: bool = False
    """That revision has not been answered by all replicas."""
    ramp: RampState | None = None
    """Where the first rank stands that is still on its way to the value, or stopped on it."""


MAX_METRICS = 1000
"""Metrics of one replica: one that puts the step into a name must fill nobody's memory."""

MAX_METRIC_NAME = 256
"""Characters of a metric's name: a path into a model, and a word about it."""


class ReplicaStatus(Struct, frozen=True, omit_defaults=True):
    """A replica as the broker sees it."""

    replica: str
    run: str
    attempt: str
    rank: int = 0
    world_size: int = 1
    host: str = ""
    pid: int = 0
    state: State = "live"
    straggles: str = ""
    """How it makes the other ranks wait; empty when it does not."""
    pause_left: float | None = None
    """Seconds until its pause ends by itself; None without a limit, and where it is not paused."""
    phase: Phase = "training"
    step: int | None = None
    """As it told last; until it has told one, that of its newest outcome, and None where there is none."""
    revision: int | None = None
    """The newest revision that this replica has received, as far as is known; None where nothing is."""
    step_time: float | None = None
    """Median seconds a step, as the replica measured."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The newest value of each."""
    ramps: dict[str, RampState] = field(default_factory=dict)
    """By key: those that are under way, or ended because a handler raised."""
    dropped: int = 0
    """Points of metrics that it dropped since it began, because no broker took them in time."""
    values: dict[str, int] = field(default_factory=dict)
    """A digest of the value in force of each key."""
    clock: float | None = None
    """Seconds that its clock is ahead of the broker's, less the time that a status is on its way."""
    devices: list[str] = field(default_factory=list)
    seen: float | None = None
    """Seconds since it was last heard."""
    reason: str = ""
    """Why it is lost or finished."""


class Frame(Struct, frozen=True, omit_defaults=True):
    """A call that is under way, in Python."""

    file: str
    line: int
    function: str
    source: str = ""
    """The line itself, without its indent; empty where it cannot be read."""


class ThreadStack(Struct, frozen=True, omit_defaults=True):
    """What one thread does: its calls, the outermost first."""

    name: str
    frames: list[Frame]
    training: bool = False
    """It is the thread that calls `tick`."""


class Hold(Struct, frozen=True, omit_defaults=True):
    """A time in which the weavelet could not run: a thread held the GIL, or all were stopped."""

    at: float
    """When it ended, in seconds since the Unix epoch by the replica's clock."""
    seconds: float
    """How long at most: it counts from the weavelet's look before, up to 2 s before it began."""
    threads: list[ThreadStack]


class RunStatus(Struct, frozen=True, omit_defaults=True):
    """One attempt of a run."""

    run: str
    attempt: str
    revision: int = 0
    world_size: int = 1
    replicas: int = 0
    live: int = 0
    """How many of the replicas are connected and training, paused or holding."""
    started: float = 0.0
    """Seconds since the Unix epoch."""
    chosen: bool = False
    """Whether a request that names no attempt of this run is about this one."""


class DeviceReport(Struct, frozen=True, omit_defaults=True):
    """A device with its newest status and the replicas on it."""

    device: Device
    status: DeviceStatus | None = None
    host: str = ""
    replicas: list[str] = field(default_factory=list)
    failed: str = ""
    """The reason that was reported, when it was."""


class Event(Struct, frozen=True, omit_defaults=True):
    """Something that happened to a run without anybody's revision."""

    kind: Literal[
        "attempt_started",
        "joined",
        "returned",
        "lost",
        "finished",
        "rank_conflict",
        "device_failed",
        "device_trouble",
        "device_recovered",
        "reaction_failed",
        "baseline_differs",
        "rolled_back",
        "stalled",
        "recovered",
        "straggler",
        "caught_up",
        "forgotten",
        "ramp_failed",
        "guard_reverted",
        "guard_passed",
        "guard_disarmed",
        "guard_failed",
    ]
    run: str
    attempt: str = ""
    at: float = 0.0
    """Seconds since the Unix epoch."""
    text: str = ""
    replicas: list[str] = field(default_factory=list)
    device: str = ""
