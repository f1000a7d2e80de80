"""The config for replicas that came when it was steered already, as a revision of the broker's own.

Ranks that lack it take it all at one step. Of ranks that began from a checkpoint the values of then hold, and
become the config again.
"""

from zloom.errors import Refused
from zloom.model import Value
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.changes import Changes, Restoration
from zloom_broker.hub import BROKER, Hub
from zloom_broker.validation import check


class Newcomers:
    """Makes the revision once all ranks are there; not thread-safe."""

    def __init__(self, hub: Hub, changes: Changes) -> None:
        self._hub = hub
        self._changes = changes
        self._tried: dict[AttemptKey, frozenset[str]] = {}
        """For which replicas it was made last: what these cannot take they will not take the next time."""

    def look(self, attempt: Attempt, now: float) -> None:
        """A rank says that it lacks the config."""
        key = attempt.key
        present = frozenset(replica.id for replica in attempt.present())
        if self._tried.get(key) == present or not self._are_ready(attempt):
            return
        changes = _common(attempt)
        if not changes:
            return
        self._tried[key] = present
        note = "the checkpoint's config" if _is_resumed(attempt) else "the config, for ranks that came later"
        request = Restoration(
            id=f"restore:{attempt.run}:{attempt.id}:{attempt.revision}",
            run=attempt.run,
            attempt=attempt.id,
            changes=changes,
            note=note,
        )
        try:
            self._changes.receive(BROKER, request, now)
        except Refused:
            self._hub.counters["restorations_refused"] += 1

    def _are_ready(self, attempt: Attempt) -> bool:
        """Whether all ranks are there and no value is about to change."""
        peers = {replica.rank: self._hub.weavelets.get(replica.id) for replica in attempt.present()}
        all_synced = all((peer := peers.get(rank)) and peer.synced for rank in range(attempt.world_size))
        pending = (attempt.ledgers[number - 1].revision.kind for number in attempt.open)
        return all_synced and "config" not in pending


def _is_resumed(attempt: Attempt) -> bool:
    return all(replica.resumed for replica in attempt.present())


def _common(attempt: Attempt) -> dict[str, Value]:
    """Return what was steered, as far as each rank declares it and can take it."""
    values = {name: setting.value for name, setting in attempt.config().items() if setting.revision > 0}
    if _is_resumed(attempt):
        first = min(attempt.present(), key=lambda replica: replica.rank)
        values = {key.name: key.baseline for key in first.keys if key.name in values}
    schemas = [{key.name: key.schema for key in replica.keys} for replica in attempt.present()]
    return {
        name: value
        for name, value in values.items()
        if all(name in each and check(value, each[name]) is None for each in schemas)
    }
