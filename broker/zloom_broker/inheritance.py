"""A new attempt that asked for the config of the one before it."""

from zloom.model import Replica, Revision, Value
from zloom_broker.attempt import Attempt
from zloom_broker.chain import chained
from zloom_broker.records import RevisionAccepted
from zloom_broker.state import State
from zloom_broker.users import BROKER_NAME
from zloom_broker.validation import check


def inherited(state: State, replica: Replica, at: float) -> RevisionAccepted | None:
    """Return revision 1 of a new attempt: what was steered in the newest attempt of the same run.

    Values that the new trainer does not declare or would refuse stay behind. None when nothing is left.
    """
    earlier = [attempt for attempt in state.of_run(replica.run) if attempt.id != replica.attempt]
    if not earlier:
        return None
    changes = _acceptable(earlier[-1], replica)
    if not changes:
        return None
    # Of several ranks none takes it alone: they get it from the snapshot's side, all at one step.
    together = replica.world_size > 1
    revision = Revision(
        revision=1,
        kind="config",
        changes=changes,
        mode="consistent" if together else "next",
        by=BROKER_NAME,
        at=at,
        request_id=f"inherit:{replica.run}:{replica.attempt}",
        note=f"inherited from attempt {earlier[-1].id}",
    )
    return RevisionAccepted(
        run=replica.run,
        attempt=replica.attempt,
        revision=chained(revision, b""),
        targets=[] if together else [replica.id],
    )


def _acceptable(attempt: Attempt, replica: Replica) -> dict[str, Value]:
    schemas = {key.name: key.schema for key in replica.keys}
    # What nobody has come to the step of is for that step of that attempt.
    noted = (attempt.ledgers[number] for number in sorted(attempt.noted))
    never = (each.revision for each in noted if each.revision.at_step is not None and not each.begun)
    return {
        name: value
        for name, value in attempt.config.without(never).items()
        if name in schemas and check(value, schemas[name]) is None
    }
