"""One attempt of a run: its replicas, its revisions, and what became of them. Durable state only."""

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import NamedTuple

import msgspec

from zloom.model import HistoryEntry, Key, Outcome, Replica
from zloom_broker.desired import DesiredConfig
from zloom_broker.ledger import DEFERRED, Ledger
from zloom_broker.ledgers import Ledgers
from zloom_broker.parts import Parts
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
)

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
        self.open: dict[int, Ledger] = {}
        """Revisions that are not settled, by number and in order."""
        self.deferred: dict[int, Ledger] = {}
        """Those of them that wait for a step or for all ranks, and not just for the next safe point."""
        self.losses: set[int] = set()
        """Revisions in which somebody was lost, who may come back and amend that."""
        self.noted: set[int] = set()
        """Revisions that somebody may look for; see `Ledger.noted`."""

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

    def leave(self, record: ReplicaLeft) -> None:
        """A replica left; what it still owed ends with the record's outcome."""
        owed = self.owed(record.replica)
        self.left[record.replica] = record
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

    def image(self) -> AttemptImage:
        """Return the attempt as an image, from which `restore` makes it again."""
        replicas, left = list(self.replicas.values()), list(self.left.values())
        return AttemptImage(self.started, replicas, left, self.config.baseline, self.ledgers.digests())

    @classmethod
    def restore(cls, image: AttemptImage, parts: Parts, requests: Places) -> "Attempt":
        """Return the attempt of an image.

        Args:
            image: As `image` returned it.
            parts: At least those that it names.
            requests: Takes the places of its revisions.
        """
        attempt = cls(image.started)
        attempt.replicas = {replica.id: replica for replica in image.replicas}
        attempt.left = {left.replica: left for left in image.left}
        blocks = []
        for block in attempt.ledgers.restore(image.blocks, parts):
            first = attempt.revision - len(block.revisions) + 1
            place = Place(attempt.key, first, attempt.revision)
            for user, ids in block.requests.items():
                requests.setdefault(user, {}).update(zip(ids, repeat(place)))
            for revision in block.open:
                attempt._open(attempt.ledgers[revision - 1])
            attempt.losses.update(block.losses)
            attempt.noted.update(block.noted)
            blocks.append(block.keys)
        attempt.config.restore(image.baseline, blocks)
        return attempt

    # --- inside ------------------------------------------------------------------------------

    def _append(self, ledger: Ledger) -> None:
        self.ledgers.append(ledger)
        if not ledger.settled:
            self._open(ledger)
        if ledger.lost:
            self.losses.add(ledger.revision.revision)
        if ledger.noted:
            self.noted.add(ledger.revision.revision)
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
            if outcome.outcome == "lost":
                self.losses.add(number)
        if ledger.settled:
            self.open.pop(number, None)
            self.deferred.pop(number, None)
        if ledger.void != was_void or ledger.changes != before:
            self.config.change(number, {**before, **ledger.changes})

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
