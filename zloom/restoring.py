"""The values of a snapshot, until they are in force. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from zloom.handlers import Registry
from zloom.model import Revision, Value


@dataclass(frozen=True, slots=True)
class Restore:
    """The state that a snapshot gives: values that hold now, and revisions that are still to come."""

    revision: int
    config: dict[str, Value] = field(default_factory=dict)
    pending: list[Revision] = field(default_factory=list)
    epoch: str = ""
    """Of the broker that gave it."""
    rounds: frozenset[bytes] = frozenset()
    """Digests of the consistent revisions that this replica has still to answer."""
    rolled_back: bool = False
    """Keys that are absent from `config` return to their baseline."""
    together: bool = False
    """The values are not for this rank to take by itself: they come in a revision that all ranks apply at one
    step, or a checkpoint's values hold, which become the config by such a revision."""

    @property
    def answered(self) -> int:
        """The newest revision that the config answers for: it lacks what is pending."""
        pending = {each.revision for each in self.pending}
        newest = self.revision
        while newest in pending:
            newest -= 1
        return newest


class Restoring:
    """Values of the newest snapshot that could not be applied yet; belongs to the training thread.

    Args:
        registry: Knows which keys are declared, and their values.
    """

    def __init__(self, registry: Registry) -> None:
        self.revision = 0
        """The revision whose config this is."""
        self._registry = registry
        self._values: dict[str, Value] = {}
        self._reset = False
        self._together: dict[str, Value] = {}

    def __bool__(self) -> bool:
        """Whether values wait to be applied here."""
        return bool(self._values) or self._reset

    @property
    def lacks(self) -> bool:
        """Whether this rank trains without values that all must apply at one step. Any thread may ask."""
        return bool(self._together) and bool(self._registry.differing(self._together))

    def take(self, restore: Restore) -> None:
        """Begin with a snapshot."""
        self.revision = restore.answered
        # After a rollback each rank returns to the broker's state by itself: what it held is gone.
        together = restore.together and not restore.rolled_back
        self._values = {} if together else dict(restore.config)
        self._together = dict(restore.config) if together else {}
        self._reset = restore.rolled_back

    def changes(self) -> dict[str, Value]:
        """Return what differs from the snapshot, of the keys that are declared."""
        wanted = {**self._registry.baselines, **self._values} if self._reset else self._values
        return self._registry.differing(wanted)

    def done(self) -> bool:
        """The changes are being applied: keep what is not declared yet; return whether anything was there."""
        declared = self._registry.values
        before = len(self._values)
        self._values = {name: value for name, value in self._values.items() if name not in declared}
        self._reset = False
        return len(self._values) < before

    def note(self, changes: Mapping[str, Value]) -> None:
        """A revision sets keys: their values are newer than the snapshot's."""
        # One that waits for its key to be declared waits with the newer value.
        self._values.update({name: value for name, value in changes.items() if name in self._values})
        # Replaced, never changed in place, because the loop reads it.
        self._together = {name: value for name, value in self._together.items() if name not in changes}
