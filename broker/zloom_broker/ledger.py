"""One revision with its targets, and what became of it on each. Durable state only."""

from collections import Counter
from collections.abc import Iterable, Set
from typing import NamedTuple, Self

from zloom.model import GuardEnd, Mode, Outcome, OutcomeKind, Revision, Value
from zloom_broker.blocks import LedgerRow, pack
from zloom_broker.records import RevisionAgreed, RevisionConcluded

VOIDING: frozenset[OutcomeKind | None] = frozenset({"rejected", "aborted", "cancelled", "superseded"})
"""Outcomes that take a revision out of the desired config when nobody applied it. `lost` and
`not_reached` do not: the operator still wants the value, there was nobody to take it."""


SNAPSHOT = "snapshot"
"""The detail of a joiner's outcome: it took the config as a whole."""

UNDECLARED = "undeclared"
"""The error of a replica that declares none of a revision's keys, so has nothing to say about it."""

NOBODY: frozenset[str] = frozenset()
"""One for all revisions that are settled, of which there may be a million."""


class Setting(NamedTuple):
    """The desired value of a key, and the revision that set it."""

    value: Value
    revision: int


DEFERRED: frozenset[Mode] = frozenset({"at_step", "consistent"})
"""Modes of what is not just carried out at each replica's next safe point."""


def is_scheduled(revision: Revision) -> bool:
    """Whether a revision is config that is not just carried out at each replica's next safe point."""
    return revision.kind == "config" and revision.mode in DEFERRED


class Ledger:
    """A revision with its targets and outcomes."""

    __slots__ = (
        "__weakref__",
        "agreed",
        "baselines",
        "concluded",
        "guard_end",
        "kinds",
        "missing",
        "outcomes",
        "packed",
        "request_digest",
        "revision",
        "targets",
    )

    def __init__(
        self, revision: Revision, targets: list[str], outcomes: Iterable[Outcome], request_digest: bytes
    ) -> None:
        self.revision = revision
        self.targets = targets
        self.outcomes = {outcome.replica: outcome for outcome in outcomes}
        self.missing: Set[str] = set(targets).difference(self.outcomes) or NOBODY
        """Targets that have not answered."""
        # Asked at each answer, so that a look at all of them would make many answers cost their square.
        self.kinds = Counter(outcome.outcome for outcome in self.outcomes.values())
        """How many outcomes there are of each kind."""
        self.request_digest = request_digest
        self.agreed: RevisionAgreed | None = None
        """Of a consistent one: at which step all replicas carry it out."""
        self.concluded: RevisionConcluded | None = None
        self.baselines: dict[str, dict[str, float]] = {}
        """Of a guarded one: what metrics were before it, by replica and metric."""
        self.guard_end: GuardEnd | None = None
        self.packed: tuple[bytes, bytes] | None = None
        """As `pack` returned it, until anything changes; who changes anything takes it away."""

    def answer(self, outcome: Outcome) -> None:
        """Take what became of it on a replica, in place of what was known."""
        before = self.outcomes.get(outcome.replica)
        if before is not None:
            self.kinds[before.outcome] -= 1
        self.kinds[outcome.outcome] += 1
        self.outcomes[outcome.replica] = outcome
        if isinstance(self.missing, set):
            self.missing.discard(outcome.replica)
            self.missing = self.missing or NOBODY

    def is_target(self, replica: str) -> bool:
        """Whether it is for this replica."""
        return replica in self.missing or replica in self.targets

    def is_new(self, outcome: Outcome) -> bool:
        """Whether an outcome says something: the first of a target wins, but a lost one may amend."""
        known = self.outcomes.get(outcome.replica)
        if known is not None:
            return known.outcome == "lost" and outcome.outcome != "lost"
        return self.is_target(outcome.replica) or outcome.error != UNDECLARED

    def is_beside_config(self, outcome: Outcome) -> bool:
        """Whether a joiner that took the config as of this revision names it, though it is no part of it.

        It did not carry the command out, and has no value of one that nobody has applied: were that taken for
        applied here, the config would have a value again that is held nowhere.
        """
        # A command's handler may return that very word; what was carried out names the revision's digest.
        joined = outcome.detail == SNAPSHOT and not outcome.chain
        return joined and (self.revision.kind != "config" or self.void)

    def is_of_another_history(self, outcome: Outcome) -> bool:
        """Whether an outcome is about another revision of that number, which this broker does not have."""
        return outcome.chain not in (b"", self.revision.chain)

    @classmethod
    def of(cls, revision: Revision, row: LedgerRow) -> Self:
        """Return a ledger of a block."""
        ledger = cls(revision, row.targets, row.outcomes, row.request_digest)
        ledger.agreed, ledger.concluded = row.agreed, row.concluded
        ledger.baselines, ledger.guard_end = dict(row.baselines), row.guard
        return ledger

    def pack(self) -> tuple[bytes, bytes]:
        """Return the revision and the rest as a block has them; these stay as long as nothing changes."""
        if self.packed is None:
            self.packed = pack(self.revision), pack(self.row())
        return self.packed

    def row(self) -> LedgerRow:
        """Return all of it but the revision."""
        return LedgerRow(
            self.targets,
            list(self.outcomes.values()),
            self.request_digest,
            self.agreed,
            self.concluded,
            self.baselines,
            self.guard_end,
        )

    @property
    def changes(self) -> dict[str, Value]:
        """What it makes of the config; the cancel of a ramp leaves the keys where that had come to."""
        if self.revision.kind != "cancel":
            return self.revision.changes
        changes: dict[str, Value] = {}
        for outcome in self.outcomes.values():
            changes = {**outcome.values, **changes}  # the first that answered speaks for all
        return changes

    @property
    def lost(self) -> list[str]:
        """The replicas that were lost in it, which may come back and amend that."""
        if not self.kinds["lost"]:
            return []
        return [name for name, outcome in self.outcomes.items() if outcome.outcome == "lost"]

    @property
    def noted(self) -> bool:
        """It is of a kind that is looked for in the whole history: guards, values that were given together,
        what waits for a step, cancels.
        """
        revision = self.revision
        return bool(
            revision.revert_if or revision.restores or revision.cancels or revision.at_step is not None
        )

    @property
    def armed(self) -> bool:
        """It is guarded, and may still be reverted."""
        return bool(self.revision.revert_if) and self.guard_end is None

    @property
    def undecided(self) -> bool:
        """It is consistent, and neither agreed on nor ended."""
        return self.revision.mode == "consistent" and self.agreed is None and not self.settled

    @property
    def settled(self) -> bool:
        """Each target has answered."""
        return not self.missing

    @property
    def scheduled(self) -> bool:
        """It is config that waits for a step, or for all ranks to agree, and not every target has it."""
        return is_scheduled(self.revision) and not self.settled

    @property
    def begun(self) -> bool:
        """A replica has applied it."""
        return self.kinds["applied"] > 0

    @property
    def first_refusal(self) -> Outcome | None:
        """What the first replica says that did not apply it, or None."""
        if self.kinds["applied"] == len(self.outcomes):
            return None
        return next(outcome for outcome in self.outcomes.values() if outcome.outcome != "applied")

    @property
    def void(self) -> bool:
        """Nobody has applied it and nobody will.

        A consistent one that a rank was lost in is for none: others, or that one when it comes back, go on
        without it.
        """
        if not self.settled or self.begun:
            return False
        if self.revision.mode == "consistent" and self.kinds["lost"]:
            return True
        return any(self.kinds[kind] for kind in VOIDING)

    @property
    def may_turn_void(self) -> bool:
        """Nobody is known to have applied it, and one that was lost may come back and say that it refused."""
        return self.kinds["lost"] > 0 and not self.begun and not self.void
