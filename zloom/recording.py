"""What a recording of a run holds: a header, and then a record for each thing that happened. Pure.

Each is one MessagePack map whose `type` names it, one after the other, so that any MessagePack reader can
stream them. `docs/recording.md` says the same in words. Fields with their default value are left out, and
unknown fields and types are passed over, so a newer version may add some.
"""

from typing import Any, get_args

import msgspec
from msgspec import Struct, field

from zloom.errors import RecordingError
from zloom.model import (
    Command,
    DeviceStatus,
    Event,
    GuardEnd,
    Key,
    Outcome,
    ReplicaStatus,
    Revision,
    Value,
)
from zloom.series import Series

MAGIC = "zloom recording"
"""Tells a recording from any other file that begins with a MessagePack map."""

VERSION = 2
"""Counts up when a reader of the version before would misunderstand what is written."""


class Record(Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type", tag=str.lower):
    """Base of all records; `at` is in seconds since the Unix epoch, by the recorder's clock."""

    at: float = 0.0


class Header(Record, frozen=True, kw_only=True):
    """The first object: which run this is, and how it stood when the recording began."""

    magic: str
    version: int
    software: str = ""
    run: str
    attempt: str
    world_size: int = 1
    revision: int = 0
    """The newest when the recording began; what came before is written too."""
    keys: list[Key] = field(default_factory=list)
    """As declared, each with its baseline."""
    commands: list[Command] = field(default_factory=list)
    config: dict[str, Value] = field(default_factory=dict)
    """The values that were desired when the recording began."""
    replicas: list[ReplicaStatus] = field(default_factory=list)
    """Where each stood then: the points of its metrics up to that step are not in the recording.

    Of one that was heard of while the recording waited, `step` and `dropped` are from before that.
    """


class Revised(Record, frozen=True, kw_only=True):
    """A change, a command or a cancel was accepted."""

    revision: Revision


class Answered(Record, frozen=True, kw_only=True):
    """What became of a revision: the outcomes that are new since the record before."""

    revision: int
    outcomes: list[Outcome] = field(default_factory=list)
    settled: bool = False
    guard: GuardEnd | None = None
    """How its guard ended, where the history told that."""


class Reported(Record, frozen=True, kw_only=True):
    """A replica told where it is; all points of its metrics since the report before."""

    status: ReplicaStatus
    metrics: dict[str, Series] = field(default_factory=dict)
    devices: list[DeviceStatus] = field(default_factory=list)


class Happened(Record, frozen=True, kw_only=True):
    """Something happened without anybody's revision."""

    event: Event


class Gap(Record, frozen=True, kw_only=True):
    """Something is missing here: reports and events. Revisions and outcomes were asked for again."""

    missed: int = 0
    """Messages that did not arrive at the recorder, or that it was too slow to take."""
    restarted: bool = False
    """The broker was restarted: what was published meanwhile is missing too, and cannot be counted."""


class End(Record, frozen=True, kw_only=True):
    """The last record, unless the recorder was killed."""

    reason: str
    complete: bool = True
    """The history was asked for once more at the end, so no revision or outcome is missing."""
    missed: int = 0
    """Messages that are missing in all, by the gaps."""
    restarts: int = 0
    """Of the broker."""
    points: int = 0
    """Points of metrics in this recording."""
    points_dropped: int = 0
    """Points that weavelets dropped while it was made, because no broker took them in time."""


AnyRecord = Header | Revised | Answered | Reported | Happened | Gap | End

_KINDS: dict[str, Any] = {str(kind.__struct_config__.tag): kind for kind in get_args(AnyRecord)}
_encoder = msgspec.msgpack.Encoder()


def encode(record: AnyRecord) -> bytes:
    """Return a record as one MessagePack object."""
    return _encoder.encode(record)


def read(content: object) -> AnyRecord | None:
    """Return the record that a MessagePack object is; None for one of a type that this version does not know.

    Raises:
        RecordingError: It is no record. The text goes on where the name of a file would end.
    """
    kind = content.get("type") if isinstance(content, dict) else None
    if not isinstance(kind, str):
        raise RecordingError("holds an object that is no record: expected a map whose 'type' names it")
    if kind not in _KINDS:
        return None
    try:
        record: AnyRecord = msgspec.convert(content, _KINDS[kind])
    except msgspec.ValidationError as error:
        raise RecordingError(f"holds a bad record {kind!r}: {error}") from error
    return record


def read_header(content: object) -> Header:
    """Return the header that the first object of a recording is.

    Raises:
        RecordingError: It is none, or of a version that this one cannot read.
    """
    if not isinstance(content, dict) or content.get("magic") != MAGIC:
        raise RecordingError("is no recording of zloom; `zloom record` writes one")
    if content.get("version") != VERSION:
        raise RecordingError(
            f"is a recording of version {content.get('version')}, and this zloom reads version {VERSION}; "
            f"{content.get('software') or 'another zloom'} wrote it"
        )
    header = read(content)
    if not isinstance(header, Header):
        raise RecordingError("is a recording that does not begin with a header")
    return header
