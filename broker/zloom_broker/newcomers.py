"""The config for replicas that came when it was steered already, as a revision of the broker's own.

Ranks that lack it take it all at one step. Of ranks that began from a checkpoint the values of then hold, and
become the config again.
"""

from dataclasses import dataclass

from zloom.errors import Refused
from zloom.model import Value
from zloom_broker.attempt import Attempt, AttemptKey
from zloom_broker.changes import Changes, Restoration
from zloom_broker.hub import BROKER, Hub
from zloom_broker.requests import own_id
from zloom_broker.validation import check

RETRY = 10.0
"""Seconds until what came to nothing is tried again for the same replicas, where one was busy or cut off for
a moment. They double with each try, for it may be that one cannot take it."""


@dataclass(slots=True)
class _Try:
    """What was made last for an attempt."""

    replicas: frozenset[str]
    keys: frozenset[str]
    again: float
    """When it may be made again for these."""
    wait: float = RETRY


class Newcomers:
    """Makes the revision once all ranks are there; not thread-safe."""

    def __init__(self, hub: Hub, changes: Changes) -> None:
        self._hub = hub
        self._changes = changes
        self._tried: dict[AttemptKey, _Try] = {}

    def look(self, attempt: Attempt, now: float) -> None:
        """A rank says that it lacks the config."""
        changes = _common(attempt) if self._are_synced(attempt) else {}
        if not changes or not self._may_try(attempt, frozenset(changes), now):
            return
        note = "the checkpoint's config" if _is_resumed(attempt) else "the config, for ranks that came later"
        request = Restoration(
            id=own_id("restore", attempt.run, attempt.id, str(attempt.revision)),
            run=attempt.run,
            attempt=attempt.id,
            changes=changes,
            note=note,
        )
        try:
            self._changes.receive(BROKER, request, now)
        except Refused:
            self._hub.counters["restorations_refused"] += 1

    def _may_try(self, attempt: Attempt, keys: frozenset[str], now: float) -> bool:
        """Take note of a try, unless the last one for the same was a moment ago."""
        present = frozenset(replica.id for replica in attempt.present())
        last = self._tried.get(attempt.key)
        if _were_given(attempt, present, keys):
            return False  # what is lacked is about to change
        if last is None or (last.replicas, last.keys) != (present, keys):
            self._tried[attempt.key] = _Try(present, keys, now + RETRY)
        elif now < last.again:
            return False
        else:
            last.wait *= 2
            last.again = now + last.wait
        return True

    def _are_synced(self, attempt: Attempt) -> bool:
        """Whether all ranks are there and have what the broker has."""
        peers = {replica.rank: self._hub.weavelets.get(replica.id) for replica in attempt.present()}
        return all((peer := peers.get(rank)) and peer.synced for rank in range(attempt.world_size))


def _were_given(attempt: Attempt, replicas: frozenset[str], keys: frozenset[str]) -> bool:
    """Whether these replicas took values of these keys together before."""
    return any(
        each.revision.restores
        and not each.void
        and replicas == frozenset(each.targets)
        and keys <= each.revision.changes.keys()
        for each in (attempt.ledgers[number] for number in attempt.noted)
    )


def _is_resumed(attempt: Attempt) -> bool:
    return all(replica.resumed for replica in attempt.present())


def _common(attempt: Attempt) -> dict[str, Value]:
    """Return what was steered, as far as each rank declares it and can take it.

    Not what is about to change: all ranks get a value of that with the change, perhaps in days.
    """
    values = {name: setting.value for name, setting in attempt.config.now().items() if setting.revision > 0}
    if _is_resumed(attempt):
        first = min(attempt.present(), key=lambda replica: replica.rank)
        values = {key.name: key.baseline for key in first.keys if key.name in values}
    changing = {key for each in attempt.open.values() for key in each.revision.changes}
    schemas = [{key.name: key.schema for key in replica.keys} for replica in attempt.present()]
    return {
        name: value
        for name, value in values.items()
        if name not in changing and all(name in each and check(value, each[name]) is None for each in schemas)
    }
