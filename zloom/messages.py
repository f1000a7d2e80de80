"""Every message of the protocol, as a type. `docs/protocol.md` says the same in words.

A message is one MessagePack map whose `type` field names it: the class's name in snake case.
Fields with their default value are left out; unknown fields are ignored, so a newer peer may add some.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from zloom.model import (
    Command,
    Count,
    DeviceReport,
    DeviceStatus,
    Event,
    HistoryEntry,
    Hold,
    Key,
    KeyState,
    Left,
    Mode,
    Outcome,
    Phase,
    Problem,
    Ramp,
    RampState,
    Replica,
    ReplicaStatus,
    Revision,
    RunStatus,
    Seconds,
    State,
    ThreadStack,
    Value,
)
from zloom.series import Series

PROTOCOL = 1
"""The version of the protocol that this package speaks; a hello lists all that its sender knows."""

Beats = Annotated[float, Meta(ge=0.01, le=3600.0)]
"""Seconds between what a broker asks to be done again and again: no broker's mistake makes a trainer spin."""


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


class Message(Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type", tag=_snake):
    """Base of all messages."""


# --- any peer → broker, on control ---------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True):
    """The first message of a peer on each new connection, sent again until it is answered.

    A weavelet sends its `replica`; `nonce` names the topic that it keeps subscribed as long as it lives.
    """

    protocols: list[int]
    role: Literal["weavelet", "operator"]
    user: str = ""
    """Who the peer says that it is; not proven."""
    software: str = ""
    endpoint: str = ""
    """The control endpoint as the peer reached it: the broker picks the updates endpoint beside it."""
    nonce: str = ""
    replica: Replica | None = None
    inherit: bool = False
    """Begin a new attempt with the newest attempt's config instead of the trainer's own."""


class Sync(Message, frozen=True, kw_only=True):
    """A weavelet asks for what it lacks, once it has heard the echo of its nonce.

    With `revision`, `chain` and `epoch` of what it holds, the log after it; with none (-1), a snapshot.
    """

    nonce: str
    epoch: str = ""
    revision: int = -1
    chain: bytes = b""


class Declare(Message, frozen=True, kw_only=True):
    """A weavelet's keys and commands changed; the whole of them, sent again until `Declared`."""

    seq: int
    keys: list[Key]
    commands: list[Command]


class Status(Message, frozen=True, kw_only=True):
    """What a weavelet reports now and then; answered by nobody, a gap in `seq` is counted."""

    seq: Count
    step: Count
    phase: Phase = "training"
    paused: bool = False
    pause_left: Left | None = None
    """Seconds until the pause ends by itself, when this was made; None: it has no limit."""
    holding: bool = False
    """It waits at a safe point for what the ranks decide about a consistent revision."""
    waits: bool | None = None
    """The training thread was in a collective of torch.distributed; None where it was not looked at."""
    lacks_config: bool = False
    """It was given a snapshot with values that all ranks must apply at one step, and has them not yet."""
    revision: Count = 0
    step_time: Seconds | None = None
    """Median seconds a step; None before two steps were seen."""
    metrics: dict[str, Series] = field(default_factory=dict)
    awaited: Count | None = None
    """The oldest step of which points may still come; null: that of `step`."""
    ramps: dict[str, RampState] = field(default_factory=dict)
    """By key: those that are under way, or ended because a handler raised."""
    devices: list[DeviceStatus] = field(default_factory=list)
    values: dict[str, int] = field(default_factory=dict)
    """A digest of the value in force of each key, by which ranks can be compared."""
    at: float = 0.0
    """Seconds since the Unix epoch, by the replica's clock; 0 where it was not told."""
    dropped: Count = 0
    """Points of metrics that this weavelet has dropped since it began."""


class Outcomes(Message, frozen=True, kw_only=True):
    """What became of revisions at this replica; sent again until a `Ping` names them."""

    epoch: str
    outcomes: dict[int, Outcome]
    """By revision."""


class Promise(Message, frozen=True, kw_only=True):
    """Answer to `Prepare`; sent again until the `Decision` of that round, or a later round, is there."""

    epoch: str
    revision: int
    round: Count
    step: Count
    """The step that the sender will not begin before it knows the decision. Without `promised` the step that
    it has reached, which was too far."""
    promised: bool = True
    store: bool = False
    """The ranks share a store, which decides; without one the broker does."""
    refused: str = ""
    """Why this replica can never apply the revision; empty when it can."""


class Confirm(Message, frozen=True, kw_only=True):
    """An agreed update was carried out here; sent again until its `Conclusion`, or with an outcome."""

    epoch: str
    revision: int
    round: Count
    step: Count


class Goodbye(Message, frozen=True, kw_only=True):
    """The sender leaves on its own account; nothing of it will come again."""

    reason: str = "finished"
    step: Count = 0
    """The last step that the trainer began."""


class Publish(Message, frozen=True, kw_only=True):
    """A payload for a topic that only its users know; at most once."""

    topic: str
    payload: bytes
    seq: Count


class Pong(Message, frozen=True, kw_only=True):
    """Answer to `Ping`."""

    id: int
    received: Count


class Credit(Message, frozen=True, kw_only=True):
    """How many messages the sender has received on this connection, so the other side may send on."""

    received: Count


class FailureReceived(Message, frozen=True, kw_only=True):
    """The weavelet was told of a failure."""

    id: int


class StacksTaken(Message, frozen=True, kw_only=True):
    """Answer to `TakeStacks`."""

    id: int
    threads: list[ThreadStack] = field(default_factory=list)
    """The training thread first, without zloom's own."""
    reason: str = ""
    """Why there are none."""
    hold: Hold | None = None
    """The newest one."""


# --- operator → broker: requests, each answered under its id ---------------------------------------


class Request(Message, frozen=True, kw_only=True):
    """Base of the requests of an operator; `id` is unique for ever, a request sent again keeps it."""

    id: str


class ListRequest(Request, frozen=True, kw_only=True):
    """A request for a list that may be longer than one message; a page of it answers."""

    after: str = ""
    """Where the page before ended; empty for the first. One that is gone means the first again."""


class RunRequest(Request, frozen=True, kw_only=True):
    """A request about one attempt of a run; an empty `attempt` means the one that is chosen."""

    run: str
    attempt: str = ""


class SetConfig(RunRequest, frozen=True, kw_only=True):
    """Change keys, all or none."""

    changes: dict[str, Value]
    ramps: dict[str, Ramp] = field(default_factory=dict)
    """Of keys that get to their value step by step."""
    mode: Mode | None = None
    at_step: int | None = None
    after: int | None = None
    """In place of `at_step`: so many steps after the one at which the broker accepts it."""
    expected_revision: int | None = None
    supersede: bool = False
    """End what still waits for one of these keys, rather than to be refused because of it."""
    queue: bool = False
    """Wait behind what waits for one of these keys, where that is for no later step than this."""
    note: str = ""
    """Why, in words."""
    revert_if: str = ""
    """When the broker takes the change back: `loss > 2 * baseline within 200 steps`."""
    preview: bool = False
    """Change nothing; say what would come of it."""


class Rollback(RunRequest, frozen=True, kw_only=True):
    """Set every key to its value at an earlier revision, as a new revision."""

    to_revision: int
    mode: Mode | None = None
    expected_revision: int | None = None
    supersede: bool = False
    note: str = ""
    preview: bool = False


class SendCommand(RunRequest, frozen=True, kw_only=True):
    """Have a command carried out once."""

    command: str
    arguments: dict[str, Value] = field(default_factory=dict)
    mode: Mode | None = None
    expected_revision: int | None = None
    note: str = ""
    preview: bool = False


class Cancel(RunRequest, frozen=True, kw_only=True):
    """Take back a revision wherever it has not been applied yet."""

    revision: int
    chain: bytes = b""
    """Its digest, where that is known: after a backup was restored the number may be another's."""


class Follow(RunRequest, frozen=True, kw_only=True):
    """Ask for the state of a revision now, and for each change of it from now on."""

    revision: int
    chain: bytes = b""
    """Its digest, where that is known: after a backup was restored the number may be another's."""


class GetHistory(RunRequest, frozen=True, kw_only=True):
    """Ask for revisions, newest first."""

    before: int | None = None
    limit: int = 100


class GetKeys(RunRequest, frozen=True, kw_only=True):
    """Ask for the keys of an attempt with their values, and its commands."""


class GetRuns(ListRequest, frozen=True, kw_only=True):
    """Ask for all attempts of all runs, or of one; `after` is run and attempt with a slash between."""

    run: str = ""


class GetReplicas(ListRequest, frozen=True, kw_only=True):
    """Ask for all replicas, or those of one run; `after` is a replica's id."""

    run: str = ""
    attempt: str = ""


class GetDevices(ListRequest, frozen=True, kw_only=True):
    """Ask for all devices; `after` is a device's id."""


class FailDevice(Request, frozen=True, kw_only=True):
    """Report that a device failed; each replica on it is told."""

    device: str
    reason: str = ""


class Forget(RunRequest, frozen=True, kw_only=True):
    """Forget a finished attempt: its config and history."""


class GetStacks(Request, frozen=True, kw_only=True):
    """Ask what the threads of a replica do right now."""

    replica: str


class GetStats(Request, frozen=True, kw_only=True):
    """Ask for the broker's counters."""


# --- broker → peer, on control ------------------------------------------------------------------


class Welcome(Message, frozen=True, kw_only=True):
    """Answer to `Hello`: the peer is known from now on."""

    protocol: int
    epoch: str
    updates: str
    """Endpoint to subscribe at; `*` as a TCP host means the host that the peer reached."""
    beat: Beats
    """Seconds between two beats."""
    credit: Annotated[int, Meta(ge=4, le=2**31)]
    """How many messages may be unanswered in each direction."""
    max_message_size: int
    """Bytes of payload; a longer message closes the connection."""
    software: str = ""


class Wait(Message, frozen=True, kw_only=True):
    """Answer to a `Hello` that cannot be taken yet; ask again after `retry` seconds."""

    reason: str
    retry: Beats


class HelloRequired(Message, frozen=True, kw_only=True):
    """The broker does not know the sender: say hello first."""


class Snapshot(Message, frozen=True, kw_only=True):
    """The attempt's state for a new incarnation: config at `revision`, and what is still to come."""

    epoch: str
    revision: int
    chain: bytes
    config: dict[str, Value] = field(default_factory=dict)
    """Only keys that were changed, by revision 1 or later."""
    pending: list[Revision] = field(default_factory=list)
    rolled_back: bool = False
    """The weavelet held revisions that this broker does not have; the broker's state holds."""


class Log(Message, frozen=True, kw_only=True):
    """Revisions that the weavelet lacks, in order."""

    epoch: str
    revisions: list[Revision]
    more: bool = False


class Prepare(Message, frozen=True, kw_only=True):
    """Round `round` of a consistent revision: promise not to begin `step` before the decision is known."""

    epoch: str
    round: Count
    """Counts up in one epoch; a later one ends all earlier rounds of the same revision."""
    step: Count
    revision: Revision


class Decision(Message, frozen=True, kw_only=True):
    """What became of a round: the ranks carry the revision out at the promised step, or none does."""

    epoch: str
    revision: int
    round: int
    commit: bool
    reason: str = ""


class Conclusion(Message, frozen=True, kw_only=True):
    """All replicas carried a consistent update out and keep it, or not all did and it is undone."""

    epoch: str
    revision: int
    round: int
    keep: bool
    reason: str = ""


class Declared(Message, frozen=True, kw_only=True):
    """Answer to `Declare`."""

    seq: int


class Ping(Message, frozen=True, kw_only=True):
    """Are you there? At most one is outstanding."""

    id: int
    received: Count
    recorded: list[int] = field(default_factory=list)
    """Revisions whose outcomes at this replica are in the journal, or need not be."""
    beat: Seconds | None = None
    """Seconds until the next beat, more in a large fleet; None if they are as many as before."""


class TakeStacks(Message, frozen=True, kw_only=True):
    """Tell what the threads of the trainer do right now; not sent again."""

    id: int


class Failure(Message, frozen=True, kw_only=True):
    """Something that this replica must know failed; sent again until `FailureReceived`."""

    id: int
    kind: Literal["device", "replica"]
    device: str = ""
    replica: str = ""
    rank: int | None = None
    reason: str = ""


class RevisionState(Message, frozen=True, kw_only=True):
    """Answer to a request that made a revision or follows one; sent again when outcomes come."""

    id: str
    run: str
    attempt: str
    revision: int
    chain: bytes = b""
    """Its digest, which names it whatever becomes of the broker's history."""
    durable: bool = True
    """False when the broker runs with `--durability buffered`."""
    duplicate: bool = False
    """The request had been accepted before; this is its one effect."""
    at_step: int | None = None
    """The step that it waits for, where one was named or counted."""
    outcomes: list[Outcome] = field(default_factory=list)
    settled: bool = False


class Preview(Message, frozen=True, kw_only=True):
    """Answer to a request with `preview`: what would come of it now. Nothing was changed."""

    id: str
    run: str
    attempt: str
    revision: Revision | None = None
    """What would be accepted; its author, time and digest are left open. None when it would be refused."""
    targets: list[str] = field(default_factory=list)
    """Ids of the replicas that would have to answer."""
    problems: list[Problem] = field(default_factory=list)
    """Why it would be refused."""


class Refusal(Message, frozen=True, kw_only=True):
    """The request was refused and changed nothing."""

    id: str
    code: str
    text: str


class Error(Message, frozen=True, kw_only=True):
    """The peer sent what could not be read or is not allowed here; the text says what."""

    code: str
    text: str
    topic: str = ""
    """The subscription that it is about, if it is about one."""


class History(Message, frozen=True, kw_only=True):
    """Answer to `GetHistory`."""

    id: str
    run: str
    attempt: str
    entries: list[HistoryEntry]
    more: bool = False


class Keys(Message, frozen=True, kw_only=True):
    """Answer to `GetKeys`."""

    id: str
    run: str
    attempt: str
    revision: int
    keys: list[KeyState]
    commands: list[Command]
    early: bool = False
    """No replica that is there has told a step above 0 yet, so more keys and commands may come."""


class Page(Message, frozen=True, kw_only=True):
    """Base of the answers to a `ListRequest`."""

    id: str
    more: bool = False
    """The list goes on: ask again with `after`."""


class Runs(Page, frozen=True, kw_only=True):
    """Answer to `GetRuns`: the attempts, the newest last."""

    runs: list[RunStatus]


class Replicas(Page, frozen=True, kw_only=True):
    """Answer to `GetReplicas`: those of the newest attempt first."""

    replicas: list[ReplicaStatus]


class Devices(Page, frozen=True, kw_only=True):
    """Answer to `GetDevices`."""

    devices: list[DeviceReport]


class Done(Message, frozen=True, kw_only=True):
    """Answer to `FailDevice` and `Forget`: carried out; `replicas` were concerned."""

    id: str
    replicas: list[str] = field(default_factory=list)
    attempt: str = ""
    """The one that was forgotten."""


class Stacks(Message, frozen=True, kw_only=True):
    """Answer to `GetStacks`."""

    id: str
    replica: str
    rank: int = 0
    host: str = ""
    pid: int = 0
    state: State = "live"
    step: int | None = None
    threads: list[ThreadStack] = field(default_factory=list)
    reason: str = ""
    """Why there are none."""
    hold: Hold | None = None


class Stats(Message, frozen=True, kw_only=True):
    """Answer to `GetStats`."""

    id: str
    epoch: str
    counters: dict[str, int]
    """Since the broker began."""
    gauges: dict[str, float] = field(default_factory=dict)
    """As of now; those of the broker's loop, sockets, journal and disk are up to a beat old."""
    at: float = 0.0
    """Seconds since the Unix epoch, by the broker's clock."""


# --- broker → all, on updates -------------------------------------------------------------------


class Publication(Message, frozen=True, kw_only=True):
    """Base of what is fanned out; `seq` counts per topic, so a gap is what a receiver missed."""

    seq: int = 0


class Beat(Publication, frozen=True, kw_only=True):
    """The broker lives. On an attempt's topic it tells the newest revision too."""

    epoch: str
    revision: int | None = None
    beat: Seconds | None = None
    """Seconds until the next, more in a large fleet; None if they are as many as before."""


class Echo(Publication, frozen=True, kw_only=True):
    """The subscription to the nonce has arrived, and with it all that were made before."""

    nonce: str


class Revised(Publication, frozen=True, kw_only=True):
    """A new revision of an attempt."""

    epoch: str
    run: str
    attempt: str
    revision: Revision


class Reported(Publication, frozen=True, kw_only=True):
    """Status of a replica, for those who watch."""

    status: ReplicaStatus
    metrics: dict[str, Series] = field(default_factory=dict)
    devices: list[DeviceStatus] = field(default_factory=list)


class Answered(Publication, frozen=True, kw_only=True):
    """Outcomes that came in, for those who watch."""

    run: str
    attempt: str
    revision: int
    outcomes: list[Outcome]
    settled: bool


class Happened(Publication, frozen=True, kw_only=True):
    """An event, for those who watch."""

    event: Event


class Own(Publication, frozen=True, kw_only=True):
    """A payload on a user's own topic; `sender_seq` counts per sender and topic."""

    topic: str
    payload: bytes
    sender: str
    sender_seq: int


FromWeavelet = (
    Hello
    | Sync
    | Declare
    | Status
    | Outcomes
    | Promise
    | Confirm
    | Goodbye
    | Publish
    | Pong
    | Credit
    | FailureReceived
    | StacksTaken
)
FromOperator = (
    SetConfig
    | Rollback
    | SendCommand
    | Cancel
    | Follow
    | GetHistory
    | GetKeys
    | GetRuns
    | GetReplicas
    | GetDevices
    | FailDevice
    | Forget
    | GetStacks
    | GetStats
)
ToBroker = FromWeavelet | FromOperator
Answer = (
    RevisionState | Preview | Refusal | History | Keys | Runs | Replicas | Devices | Done | Stacks | Stats
)
FromBroker = (
    Welcome
    | Wait
    | HelloRequired
    | Snapshot
    | Log
    | Prepare
    | Decision
    | Conclusion
    | Declared
    | Ping
    | Credit
    | TakeStacks
    | Failure
    | Error
    | Answer
)
Published = Beat | Echo | Revised | Reported | Answered | Happened | Own
