"""One attempt of a run: its replicas, its revisions, and what became of them. Durable state only."""

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import NamedTuple

import msgspec

from zloom.model import HistoryEntry, Key, Outcome, Replica
from zloom_broker.desired import DesiredConfig
from zloom_broker.ledger import DEFERRED, Ledger
from zloom_broker.ledgers import Ledgers
from zloom_broker.parts import ImageError, Parts, digest_of_part, part_of
from zloom_broker.records import (
    AttemptImage,
    AttemptStarted,
    GuardEnded,
    GuardMeasured,
    OutcomesRecorded,
    ReplicaJoined,
    ReplicaLeft,
    RevisionAccepted,
    RevisionAgreed,
    RevisionConcluded,
    Roster,
    decode_roster,
    encode,
)
from zloom_broker.traces import Traces

MAX_TEXT = 2000
"""Characters that are kept of an outcome's error, and of its detail."""

TEXTS_SIZE = 128 * 1024
"""Characters of errors, and of details, in one list of outcomes: a thousand replicas that all tell why must
still fit into one message."""

_encoder = msgspec.msgpack.Encoder()

AttemptKey = tuple[str, str]
"""The run and the attempt."""


class Place(NamedTuple):
    """Where the revision is that a request made: a block has one for all, so that a long history has few."""

    attempt: AttemptKey
    first: int
    """The first revision that it may be …"""
    last: int
    """… and the last."""


Places = dict[str, dict[str, Place]]
"""By user and request id."""


class Attempt:
    """The fold of the records of one attempt."""

    def __init__(self, started: AttemptStarted) -> None:
        self.started = started
        self.run = started.run
        self.id = started.attempt
        self.key: AttemptKey = self.run, self.id
        self.replicas: dict[str, Replica] = {}
        self.left: dict[str, ReplicaLeft] = {}
        self.ledgers = Ledgers()
        self.config = DesiredConfig(self.ledgers)
        self.traces = Traces(self.ledgers)
        self.open: dict[int, Ledger] = {}
        """Revisions that are not settled, by number and in order."""
        self.deferred: dict[int, Ledger] = {}
        """Those of them that wait for a step or for all ranks, and not just for the next safe point."""
        self.losses: dict[str, set[int]] = {}
        """Revisions in which each replica was lost, which may come back and amend that."""
        self.doubtful: set[int] = set()
        """Those that may turn void by that; see `Ledger.may_turn_void`."""
        self.noted: set[int] = set()
        """Revisions that somebody may look for; see `Ledger.noted`."""
        self._roster: tuple[bytes, bytes] | None = None
        """Digest and bytes of who is there, until somebody comes, goes or declares."""

    @property
    def revision(self) -> int:
        """The newest revision; 0 is the baseline."""
        return len(self.ledgers)

    @property
    def world_size(self) -> int:
        """How many ranks there are: an elastic job may come back with more or fewer than it began with."""
        return max((replica.world_size for replica in self.present()), default=self.started.world_size)

    @property
    def chain(self) -> bytes:
        """Digest over all revisions so far."""
        return self.chain_at(self.revision)

    def chain_at(self, revision: int) -> bytes:
        """Return the digest over the revisions up to and with this one."""
        return self.ledgers.revision(revision).chain if revision else b""

    def ledger(self, revision: int) -> Ledger | None:
        """Return a revision with its outcomes, or None when there is none of that number."""
        return self.ledgers.get(revision)

    def present(self) -> Iterator[Replica]:
        """Yield the replicas that have neither been lost nor said goodbye."""
        if not self.left:  # as a rule, and asked for each change
            return iter(self.replicas.values())
        return (replica for replica in self.replicas.values() if replica.id not in self.left)

    def lost(self) -> Iterator[Replica]:
        """Yield the replicas that were lost and may come back."""
        return (self.replicas[name] for name, left in self.left.items() if left.outcome == "lost")

    def keys(self) -> dict[str, Key]:
        """Return the keys as present replicas declare them, else as the last ones did."""
        replicas = list(self.present()) or list(self.replicas.values())
        return {key.name: key for replica in reversed(replicas) for key in replica.keys}

    def size(self) -> int:
        """Return about how many bytes a snapshot for one that joins now would have."""
        scheduled = [ledger.revision for ledger in self.deferred.values() if ledger.scheduled]
        return len(_encoder.encode([self.config.settings, scheduled]))

    def entry(self, ledger: Ledger) -> HistoryEntry:
        """Return a revision as history shows it."""
        return HistoryEntry(ledger.revision, self.outcomes(ledger), ledger.settled, ledger.guard_end)

    def outcomes(self, ledger: Ledger) -> list[Outcome]:
        """Return the outcome of each target, then of others that answered; None means not yet."""
        known, targets = ledger.outcomes, frozenset(ledger.targets)
        outcomes = [known.get(name) or Outcome(name, self.rank(name)) for name in ledger.targets]
        if not known.keys() <= targets:
            outcomes += [outcome for name, outcome in known.items() if name not in targets]
        limit = TEXTS_SIZE // max(1, len(outcomes))
        return [
            _shortened(outcome, limit) if outcome.error or outcome.detail else outcome for outcome in outcomes
        ]

    def undecided(self) -> Iterator[Ledger]:
        """Yield the consistent revisions that the ranks have still to agree on."""
        return (ledger for ledger in self.deferred.values() if ledger.undecided)

    def step_of_earlier(self, ledger: Ledger) -> int:
        """Return the last step that the ranks agreed on for an update that this one waits behind, or 0."""
        own = ledger.revision
        steps = [
            each.agreed.step
            for each in self.deferred.values()
            if each.agreed
            and each.revision.revision < own.revision
            and each.revision.revision not in own.supersedes
            and not own.changes.keys().isdisjoint(each.revision.changes)
        ]
        return max(steps, default=0)

    def is_about_to_pause(self) -> bool:
        """Whether the ranks agreed on a pause that some have not come to yet.

        What they promised meanwhile for a step behind it would wait until they are resumed.
        """
        return any(each.agreed and each.revision.command == "pause" for each in self.deferred.values())

    def owed(self, replica: str) -> list[Ledger]:
        """Return the revisions that a replica has not answered."""
        return [item for item in self.open.values() if replica in item.missing]

    # --- records -----------------------------------------------------------------------------

    def join(self, record: ReplicaJoined) -> None:
        """A replica joined, came back, or declared its keys anew."""
        replica = record.replica
        self.replicas[replica.id] = replica
        self.left.pop(replica.id, None)
        self.config.declare(replica.keys)
        self._roster = None

    def leave(self, record: ReplicaLeft) -> None:
        """A replica left; what it still owed ends with the record's outcome."""
        owed = self.owed(record.replica)
        self.left[record.replica] = record
        self._roster = None
        for ledger in owed:
            self._answer(ledger, [self._gone(record)])

    def accept(self, record: RevisionAccepted) -> None:
        """A revision was accepted. A target may have left since it was proposed."""
        gone = [self._gone(self.left[name]) for name in record.targets if name in self.left]
        self._append(Ledger(record.revision, record.targets, gone, record.request_digest))

    def record(self, record: OutcomesRecorded) -> None:
        """Replicas answered."""
        for number, outcomes in record.outcomes.items():
            ledger = self.ledger(number)
            if ledger is not None:
                self._answer(ledger, (_shortened(each, MAX_TEXT) for each in outcomes if ledger.is_new(each)))

    def agree(self, record: RevisionAgreed) -> None:
        """All replicas promised to carry out a consistent revision."""
        self.ledgers.changing(record.revision).agreed = record

    def conclude(self, record: RevisionConcluded) -> None:
        """An agreed revision is kept or undone."""
        self.ledgers.changing(record.revision).concluded = record

    def measure(self, record: GuardMeasured) -> None:
        """What metrics were before a guarded revision."""
        ledger = self.ledgers.changing(record.revision)
        for replica, baselines in record.baselines.items():
            ledger.baselines[replica] = ledger.baselines.get(replica, {}) | baselines

    def end_guard(self, record: GuardEnded) -> None:
        """The guard of a revision ended."""
        self.ledgers.changing(record.revision).guard_end = record.end

    # --- snapshots ---------------------------------------------------------------------------

    def pack(self) -> Iterator[None]:
        """Do what takes long about an image, little at each turn; records may be taken in between."""
        self._pack_roster()
        yield
        yield from self.ledgers.pack()

    def parts(self) -> dict[bytes, bytes]:
        """Return what `image` names and does not hold, by digest."""
        digest, content = self._pack_roster()
        return {digest: content, **self.ledgers.parts()}

    def image(self) -> AttemptImage:
        """Return the attempt as an image, from which `restore` makes it again.

        Raises:
            ImageError: It would not be this attempt.
        """
        try:
            blocks = self.ledgers.digests()
        except ImageError as error:
            raise self._wrong(error) from error
        return AttemptImage(self.started, self._pack_roster()[0], blocks, self.revision, self.chain)

    @classmethod
    def restore(cls, image: AttemptImage, parts: Parts, requests: Places) -> "Attempt":
        """Return the attempt of an image.

        Args:
            image: As `image` returned it.
            parts: At least those that it names.
            requests: Takes the places of its revisions.

        Raises:
            ImageError: It is not what it says it is.
            msgspec.DecodeError: A part is none that this version knows.
        """
        attempt = cls(image.started)
        try:
            attempt._restore(image, parts, requests)
        except ImageError as error:
            raise attempt._wrong(error) from error
        return attempt

    def _restore(self, image: AttemptImage, parts: Parts, requests: Places) -> None:
        content = part_of(parts, image.roster)
        roster, self._roster = decode_roster(content), (image.roster, content)
        self.replicas = {replica.id: replica for replica in roster.replicas}
        self.left = {left.replica: left for left in roster.left}
        blocks = []
        for block in self.ledgers.restore(image.blocks, parts):
            place = Place(self.key, self.revision - len(block.revisions) + 1, self.revision)
            for user, ids in block.requests.items():
                requests.setdefault(user, {}).update(zip(ids, repeat(place)))
            for revision in block.open:
                self._open(self.ledgers[revision])
            for replica, numbers in block.losses.items():
                self.losses.setdefault(replica, set()).update(numbers)
            self.doubtful.update(block.doubtful)
            self.noted.update(block.noted)
            blocks.append(block)
        if (self.revision, self.chain) != (image.revision, image.chain):
            held = f"revision {self.revision} with chain {self.chain.hex()[:16]}"
            raise ImageError(f"it ends at {held}, not at {image.revision} with {image.chain.hex()[:16]}")
        self.config.restore(roster.baseline, blocks)

    def _pack_roster(self) -> tuple[bytes, bytes]:
        if self._roster is None:
            roster = Roster(list(self.replicas.values()), list(self.left.values()), self.config.baseline)
            content = encode(roster)
            self._roster = digest_of_part(content), content
        return self._roster

    def _wrong(self, error: ImageError) -> ImageError:
        return ImageError(f"attempt {self.id} of {self.run}: {error}")

    # --- inside ------------------------------------------------------------------------------

    def _append(self, ledger: Ledger) -> None:
        self.ledgers.append(ledger)
        if not ledger.settled:
            self._open(ledger)
        number = ledger.revision.revision
        for replica in ledger.lost:
            self.losses.setdefault(replica, set()).add(number)
        self._note_doubt(ledger)
        if ledger.noted:
            self.noted.add(number)
        self.config.append(ledger)

    def _open(self, ledger: Ledger) -> None:
        self.open[ledger.revision.revision] = ledger
        if ledger.revision.mode in DEFERRED:
            self.deferred[ledger.revision.revision] = ledger

    def _answer(self, ledger: Ledger, outcomes: Iterable[Outcome]) -> None:
        """Take outcomes of one revision; what follows from them is done once for all of them."""
        number = ledger.revision.revision
        was_void, before, changed = ledger.void, ledger.changes, False
        for outcome in outcomes:
            if not changed:
                self.ledgers.changing(number)
                changed = True
            ledger.answer(outcome)
            self._note_loss(number, outcome)
            self.traces.note(number, outcome)
        if ledger.settled:
            self.open.pop(number, None)
            self.deferred.pop(number, None)
        self._note_doubt(ledger)
        if ledger.void != was_void or ledger.changes != before:
            self.config.change(ledger, {**before, **ledger.changes})

    def _note_doubt(self, ledger: Ledger) -> None:
        (self.doubtful.add if ledger.may_turn_void else self.doubtful.discard)(ledger.revision.revision)

    def _note_loss(self, number: int, outcome: Outcome) -> None:
        if outcome.outcome == "lost":
            self.losses.setdefault(outcome.replica, set()).add(number)
        elif numbers := self.losses.get(outcome.replica):
            numbers.discard(number)
            if not numbers:
                del self.losses[outcome.replica]

    def _gone(self, left: ReplicaLeft) -> Outcome:
        return Outcome(left.replica, self.rank(left.replica), left.outcome, error=left.reason)

    def rank(self, replica: str) -> int:
        """Return the rank of a replica, 0 of one that is not known."""
        known = self.replicas.get(replica)
        return known.rank if known else 0


def _shortened(outcome: Outcome, limit: int) -> Outcome:
    if len(outcome.error) <= limit and len(outcome.detail) <= limit:
        return outcome
    error, detail = (
        text if len(text) <= limit else f"{text[:limit]}…" for text in (outcome.error, outcome.detail)
    )
    return msgspec.structs.replace(outcome, error=error, detail=detail)
