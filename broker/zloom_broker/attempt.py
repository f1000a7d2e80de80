"""One attempt of a run: its replicas, its revisions, and what became of them. Durable state only."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from zloom.model import HistoryEntry, Key, Outcome, OutcomeKind, Replica, Revision, Value
from zloom_broker.records import (
    Accepted,
    AttemptImage,
    AttemptStarted,
    OutcomesRecorded,
    ReplicaJoined,
    ReplicaLeft,
    RevisionAccepted,
)

VOIDING: frozenset[OutcomeKind | None] = frozenset({"rejected", "aborted", "cancelled", "superseded"})
"""Outcomes that take a revision out of the desired config when nobody applied it. `lost` and
`not_reached` do not: the operator still wants the value, there was nobody to take it."""

UNDECLARED = "undeclared"
"""The error of a replica that declares none of a revision's keys, so has nothing to say about it."""


class Setting(NamedTuple):
    """The desired value of a key, and the revision that set it."""

    value: Value
    revision: int


class Ledger:
    """A revision with its targets and outcomes."""

    __slots__ = ("outcomes", "request", "revision", "targets")

    def __init__(
        self, revision: Revision, targets: list[str], outcomes: Mapping[str, Outcome], request: bytes
    ) -> None:
        self.revision = revision
        self.targets = targets
        self.outcomes = dict(outcomes)
        self.request = request

    @property
    def settled(self) -> bool:
        """Each target has answered."""
        return all(target in self.outcomes for target in self.targets)

    @property
    def void(self) -> bool:
        """Nobody has applied it and nobody will."""
        kinds = {outcome.outcome for outcome in self.outcomes.values()}
        return self.settled and "applied" not in kinds and bool(kinds & VOIDING)


class Attempt:
    """The fold of the records of one attempt."""

    def __init__(self, started: AttemptStarted) -> None:
        self.started = started
        self.run = started.run
        self.id = started.attempt
        self.world_size = started.world_size
        self.replicas: dict[str, Replica] = {}
        self.left: dict[str, ReplicaLeft] = {}
        self.baseline: dict[str, Value] = {}
        self.ledgers: list[Ledger] = []
        self.open: set[int] = set()
        """Revisions that are not settled."""
        self._settings: dict[str, Setting] = {}

    @property
    def revision(self) -> int:
        """The newest revision; 0 is the baseline."""
        return len(self.ledgers)

    @property
    def chain(self) -> bytes:
        """Digest over all revisions so far."""
        return self.chain_at(self.revision)

    def chain_at(self, revision: int) -> bytes:
        """Return the digest over the revisions up to and with this one."""
        return self.ledgers[revision - 1].revision.chain if revision else b""

    def ledger(self, revision: int) -> Ledger | None:
        """Return a revision with its outcomes, or None when there is none of that number."""
        return self.ledgers[revision - 1] if 1 <= revision <= len(self.ledgers) else None

    def present(self) -> Iterator[Replica]:
        """Yield the replicas that have neither been lost nor said goodbye."""
        return (replica for replica in self.replicas.values() if replica.id not in self.left)

    def lost(self) -> Iterator[Replica]:
        """Yield the replicas that were lost and may come back."""
        return (self.replicas[name] for name, left in self.left.items() if left.outcome == "lost")

    def keys(self) -> dict[str, Key]:
        """Return the keys as present replicas declare them, else as the last ones did."""
        replicas = list(self.present()) or list(self.replicas.values())
        return {key.name: key for replica in reversed(replicas) for key in replica.keys}

    def config(self) -> dict[str, Setting]:
        """Return the desired config: each key's value and the revision that set it."""
        baseline = {key: Setting(value, 0) for key, value in self.baseline.items()}
        return baseline | self._settings

    def config_at(self, revision: int) -> dict[str, Setting]:
        """Return the desired config as it was at a revision."""
        baseline = {key: Setting(value, 0) for key, value in self.baseline.items()}
        return baseline | self._fold(self.ledgers[:revision])

    def changed(self) -> dict[str, Value]:
        """Return the values that revisions set and that are due now, for a replica that joins."""
        waiting = {item.revision.revision for item in self.scheduled()}
        due = (item for item in self.ledgers if item.revision.revision not in waiting)
        return {key: setting.value for key, setting in self._fold(due).items()}

    def scheduled(self) -> list[Ledger]:
        """Return the config revisions that wait for a step which not every target has reached."""
        ledgers = (self.ledgers[number - 1] for number in sorted(self.open))
        return [
            item for item in ledgers if item.revision.kind == "config" and item.revision.mode == "at_step"
        ]

    def entry(self, ledger: Ledger) -> HistoryEntry:
        """Return a revision as history shows it."""
        return HistoryEntry(ledger.revision, self.outcomes(ledger), ledger.settled)

    def outcomes(self, ledger: Ledger) -> list[Outcome]:
        """Return the outcome of each target, then of others that applied it; None means not yet."""
        named = [*ledger.targets, *(name for name in ledger.outcomes if name not in ledger.targets)]
        return [ledger.outcomes.get(name) or Outcome(name, self._rank(name)) for name in named]

    def owed(self, replica: str) -> list[Ledger]:
        """Return the revisions that a replica has not answered."""
        ledgers = (self.ledgers[number - 1] for number in sorted(self.open))
        return [item for item in ledgers if replica in item.targets and replica not in item.outcomes]

    def is_new(self, revision: int, outcome: Outcome) -> bool:
        """Whether an outcome says something: the first of a target wins, but a lost one may amend."""
        ledger = self.ledger(revision)
        if ledger is None:
            return False
        known = ledger.outcomes.get(outcome.replica)
        if known is not None:
            return known.outcome == "lost" and outcome.outcome != "lost"
        return outcome.replica in ledger.targets or outcome.error != UNDECLARED

    # --- records -----------------------------------------------------------------------------

    def join(self, record: ReplicaJoined) -> None:
        """A replica joined, came back, or declared its keys anew."""
        replica = record.replica
        self.replicas[replica.id] = replica
        self.left.pop(replica.id, None)
        for key in replica.keys:
            self.baseline.setdefault(key.name, key.baseline)

    def leave(self, record: ReplicaLeft) -> None:
        """A replica left; what it still owed ends with the record's outcome."""
        owed = self.owed(record.replica)
        self.left[record.replica] = record
        rank = self._rank(record.replica)
        for ledger in owed:
            self._answer(ledger, Outcome(record.replica, rank, record.outcome, error=record.reason))

    def accept(self, record: RevisionAccepted) -> None:
        """A revision was accepted."""
        lost = {name: Outcome(name, self._rank(name), "lost") for name in record.lost}
        self._append(Ledger(record.revision, record.targets, lost, record.request))

    def record(self, record: OutcomesRecorded) -> None:
        """A replica answered."""
        for number, outcome in record.outcomes.items():
            ledger = self.ledger(number)
            if ledger is not None and self.is_new(number, outcome):
                self._answer(ledger, outcome)

    def image(self) -> AttemptImage:
        """Return the attempt as an image, from which `restore` makes it again."""
        revisions = [
            Accepted(item.revision, item.targets, list(item.outcomes.values()), item.request)
            for item in self.ledgers
        ]
        replicas, left = list(self.replicas.values()), list(self.left.values())
        return AttemptImage(self.started, replicas, left, self.baseline, revisions)

    @classmethod
    def restore(cls, image: AttemptImage) -> "Attempt":
        """Return the attempt of an image."""
        attempt = cls(image.started)
        attempt.replicas = {replica.id: replica for replica in image.replicas}
        attempt.left = {left.replica: left for left in image.left}
        attempt.baseline = dict(image.baseline)
        for item in image.revisions:
            outcomes = {outcome.replica: outcome for outcome in item.outcomes}
            attempt._append(Ledger(item.revision, item.targets, outcomes, item.request))
        return attempt

    # --- inside ------------------------------------------------------------------------------

    def _append(self, ledger: Ledger) -> None:
        self.ledgers.append(ledger)
        if not ledger.settled:
            self.open.add(ledger.revision.revision)
        if not ledger.void:
            self._settings.update(self._fold([ledger]))

    def _answer(self, ledger: Ledger, outcome: Outcome) -> None:
        was_void = ledger.void
        ledger.outcomes[outcome.replica] = outcome
        if ledger.settled:
            self.open.discard(ledger.revision.revision)
        if ledger.void != was_void:
            self._settings = self._fold(self.ledgers)

    @staticmethod
    def _fold(ledgers: "Iterator[Ledger] | list[Ledger]") -> dict[str, Setting]:
        settings: dict[str, Setting] = {}
        for ledger in ledgers:
            if not ledger.void:
                number = ledger.revision.revision
                settings.update({k: Setting(v, number) for k, v in ledger.revision.changes.items()})
        return settings

    def _rank(self, replica: str) -> int:
        known = self.replicas.get(replica)
        return known.rank if known else 0
