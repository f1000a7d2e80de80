"""What ends a guard that has not fired. Pure."""

from zloom.model import Revision
from zloom_broker.attempt import Attempt
from zloom_broker.guard_watch import Watch
from zloom_broker.ledger import Ledger


def touches(revision: Revision, guarded: Revision) -> bool:
    """Whether a later revision ends the guard of another."""
    cancels = revision.kind == "cancel" and revision.cancels == guarded.revision
    return cancels or not revision.changes.keys().isdisjoint(guarded.changes)


def moot(attempt: Attempt, ledger: Ledger) -> str:
    """Return why a revision is not in force; empty if it is, or is still to come."""
    config, number = attempt.config.now(), ledger.revision.revision
    if ledger.void:
        return "no replica applied it"
    other = next((key for key in ledger.revision.changes if config[key].revision != number), None)
    return "" if other is None else f"{other} has its value from revision {config[other].revision}"


def is_over(attempt: Attempt, ledger: Ledger, target: str, watch: Watch) -> bool:
    """Whether a target will not make the guard fire any more. One that was lost may come back."""
    outcome, left = ledger.outcomes.get(target), attempt.left.get(target)
    if watch.past or (left is not None and left.outcome != "lost"):
        return True
    if left is not None:
        return attempt.rank(target) in {replica.rank for replica in attempt.present()}
    return outcome is not None and outcome.outcome not in ("applied", "lost")
