"""The records of the journal: the broker's state is the fold of them, and nothing else.

A record is one MessagePack map, tagged by `record`. From the first release on, what a record means never
changes; a new meaning gets a new record, so that an old journal can always be read.
"""

from typing import Literal

import msgspec
from msgspec import Struct, field

from zloom.model import GuardEnd, Outcome, Replica, Revision, Value


class Record(Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="record"):
    """Base of all records. Times are seconds since the Unix epoch, by the broker's clock."""


class EpochStarted(Record, frozen=True, kw_only=True, tag="epoch_started"):
    """A broker began its life on this data directory."""

    counter: int
    epoch: str
    at: float


class AttemptStarted(Record, frozen=True, kw_only=True, tag="attempt_started"):
    """The first replica of an attempt said hello."""

    run: str
    attempt: str
    world_size: int
    at: float


class ReplicaJoined(Record, frozen=True, kw_only=True, tag="replica_joined"):
    """A replica said hello, came back, or declared its keys anew."""

    replica: Replica
    at: float


class ReplicaLeft(Record, frozen=True, kw_only=True, tag="replica_left"):
    """A replica said goodbye or was lost; each revision that it owed an answer ends with `outcome`."""

    run: str
    attempt: str
    replica: str
    outcome: Literal["not_reached", "lost"]
    reason: str
    at: float
    step: int | None = None
    """The last step that was heard of; None where none was."""
    revision: int | None = None
    """The newest that it had received, as far as is known."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The newest value of each."""


class RevisionAccepted(Record, frozen=True, kw_only=True, tag="revision_accepted"):
    """A change was accepted; targets that are gone by then have their outcome at once."""

    run: str
    attempt: str
    revision: Revision
    targets: list[str]
    request_digest: bytes = b""
    """Digest of the request's body: another body under the same id is refused."""


class OutcomesRecorded(Record, frozen=True, kw_only=True, tag="outcomes_recorded"):
    """What replicas of an attempt answered, by revision."""

    run: str
    attempt: str
    outcomes: dict[int, list[Outcome]]


class RevisionAgreed(Record, frozen=True, kw_only=True, tag="revision_agreed"):
    """All replicas promised: the consistent revision is carried out by all of them at one step."""

    run: str
    attempt: str
    revision: int
    epoch: str
    round: int
    step: int
    store: bool
    """Whether the ranks conclude it in a store of their own."""


class RevisionConcluded(Record, frozen=True, kw_only=True, tag="revision_concluded"):
    """Without a store of the ranks: all carried the agreed revision out and keep it, or all undo it."""

    run: str
    attempt: str
    revision: int
    keep: bool
    reason: str = ""


class GuardMeasured(Record, frozen=True, kw_only=True, tag="guard_measured"):
    """What metrics were before a guarded revision: a broker that is restarted cannot measure that again."""

    run: str
    attempt: str
    revision: int
    baselines: dict[str, dict[str, float]]
    """By replica and metric; newer ones count."""


class GuardEnded(Record, frozen=True, kw_only=True, tag="guard_ended"):
    """A guard fired, together with the revision that restores the values; or it ended without that."""

    run: str
    attempt: str
    revision: int
    """The guarded one."""
    end: GuardEnd


class Errand(Record, frozen=True, kw_only=True):
    """Base of what a request had done that made no revision, and so must be remembered by itself."""

    by: str
    request_id: str
    request_digest: bytes
    """Digest of the request's body."""
    replicas: list[str]
    """Those concerned, as the answer names them."""
    at: float


class DeviceFailed(Errand, frozen=True, kw_only=True, tag="device_failed"):
    """Somebody reported that a device failed."""

    device: str
    reason: str


class AttemptForgotten(Errand, frozen=True, kw_only=True, tag="attempt_forgotten"):
    """An attempt and its history were forgotten."""

    run: str
    attempt: str


AnyRecord = (
    EpochStarted
    | AttemptStarted
    | ReplicaJoined
    | ReplicaLeft
    | RevisionAccepted
    | OutcomesRecorded
    | RevisionAgreed
    | RevisionConcluded
    | GuardMeasured
    | GuardEnded
    | DeviceFailed
    | AttemptForgotten
)


class Roster(Struct, frozen=True, omit_defaults=True):
    """Who is or was in an attempt, and what was declared first; of one that is over it does not change."""

    replicas: list[Replica]
    left: list[ReplicaLeft]
    baseline: dict[str, Value]


class AttemptImage(Struct, frozen=True, omit_defaults=True):
    """An attempt in an image of the state."""

    started: AttemptStarted
    roster: bytes
    """Digest of the part that holds its `Roster`."""
    blocks: list[bytes]
    """Digests of the parts that hold a block of revisions each, in order …"""
    revision: int
    """… and together those up to this one, …"""
    chain: bytes
    """… which has this digest."""


class Image(Struct, frozen=True, omit_defaults=True):
    """The whole state but for the parts that it names, so that a start need not read every record."""

    epoch: EpochStarted | None
    attempts: list[AttemptImage]
    """In the order in which they started."""
    failed_devices: list[DeviceFailed]
    errands: list[DeviceFailed | AttemptForgotten]


_encoder = msgspec.msgpack.Encoder()
_records = msgspec.msgpack.Decoder(AnyRecord)
_images = msgspec.msgpack.Decoder(Image)
_rosters = msgspec.msgpack.Decoder(Roster)


def encode(value: AnyRecord | Image | Roster) -> bytes:
    """Return the bytes of a record, an image or a roster."""
    return _encoder.encode(value)


def decode_record(payload: bytes) -> AnyRecord:
    """Return the record of a payload.

    Raises:
        msgspec.DecodeError: It is none that this version knows.
    """
    record: AnyRecord = _records.decode(payload)
    return record


def decode_image(payload: bytes) -> Image:
    """Return the image of a payload.

    Raises:
        msgspec.DecodeError: It is none that this version knows.
    """
    return _images.decode(payload)


def decode_roster(payload: bytes) -> Roster:
    """Return the roster of a payload.

    Raises:
        msgspec.DecodeError: It is none that this version knows.
    """
    return _rosters.decode(payload)


def size_of(entry: Struct) -> int:
    """Return the bytes of an entry in a message."""
    return len(_encoder.encode(entry))
