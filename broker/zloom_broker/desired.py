"""The desired config of an attempt: of each key the value that its revisions make of it."""

from array import array
from bisect import bisect_right, insort
from collections.abc import Container, Iterable

from zloom.model import Key, Revision, Value
from zloom_broker.blocks import Block
from zloom_broker.ledger import Ledger, Setting
from zloom_broker.ledgers import Ledgers


class DesiredConfig:
    """A fold over ledgers. Not thread-safe.

    Args:
        ledgers: Those of the attempt, to which revisions are appended before they are told here.
    """

    def __init__(self, ledgers: Ledgers) -> None:
        self._ledgers = ledgers
        self.baseline: dict[str, Value] = {}
        """What each key had when it was declared first."""
        self._settings: dict[str, Setting] = {}
        self._touching: dict[str, array[int]] = {}
        """The revisions that say something about each key, in order …"""
        self._standing: dict[str, array[int]] = {}
        """… and those of them that are not void: many in a row may be refused."""

    def now(self) -> dict[str, Setting]:
        """Return each key's value and the revision that set it, which is 0 for the baseline."""
        return self._of_baseline() | self._settings

    def at(self, revision: int) -> dict[str, Setting]:
        """Return the same as it was at a revision."""
        settings = self._of_baseline()
        for key in self._standing:
            if (setting := self._setting(key, revision)) is not None:
                settings[key] = setting
        return settings

    def without(self, pending: Iterable[Revision]) -> dict[str, Value]:
        """Return the values that revisions set, but for those of revisions that are still to come."""
        to_come = {revision.revision: self._changes(revision) for revision in pending}
        settings = dict(self._settings)
        for key in {key for changes in to_come.values() for key in changes}:
            self._settle(settings, key, to_come.keys())
        return {key: setting.value for key, setting in settings.items()}

    def touching(self, key: str, after: int) -> Iterable[int]:
        """Return the revisions after one that may say something about a key, in order."""
        numbers = self._touching.get(key, array("I"))
        return numbers[bisect_right(numbers, after) :]

    def stands(self, revision: int, key: str) -> bool:
        """Return whether a revision says something about a key, and is not void."""
        return _has(self._standing.get(key, array("I")), revision)

    @property
    def settings(self) -> dict[str, Setting]:
        """What revisions have set; only to be read."""
        return self._settings

    # --- records -----------------------------------------------------------------------------

    def declare(self, keys: Iterable[Key]) -> None:
        """Keys were declared, some of them perhaps for the first time."""
        for key in keys:
            self.baseline.setdefault(key.name, key.baseline)

    def append(self, ledger: Ledger) -> None:
        """Take in the newest revision."""
        number, void = ledger.revision.revision, ledger.void
        for key, value in ledger.changes.items():
            _insert(self._touching, key, number)
            if not void:
                _insert(self._standing, key, number)
                self._settings[key] = Setting(value, number)

    def change(self, ledger: Ledger, keys: Iterable[str]) -> None:
        """Take in that the outcomes of a revision have changed what it makes of some keys."""
        number, changes = ledger.revision.revision, {} if ledger.void else ledger.changes
        for key in keys:
            _insert(self._touching, key, number)
            if key in changes:
                _insert(self._standing, key, number)
            elif self.stands(number, key):
                numbers = self._standing[key]
                del numbers[bisect_right(numbers, number) - 1]
            self._settle(self._settings, key)

    def restore(self, baseline: dict[str, Value], blocks: Iterable[Block]) -> None:
        """Take in all ledgers at once, of a snapshot.

        Args:
            baseline: As it was.
            blocks: All of them, in order.
        """
        self.baseline = dict(baseline)
        for block in blocks:
            void = frozenset(block.void)
            for key, numbers in block.keys.items():
                self._touching.setdefault(key, array("I")).extend(numbers)
                standing = [number for number in numbers if number not in void] if void else numbers
                self._standing.setdefault(key, array("I")).extend(standing)
        for key in self._standing:
            self._settle(self._settings, key)

    # --- inside ------------------------------------------------------------------------------

    def _of_baseline(self) -> dict[str, Setting]:
        return {key: Setting(value, 0) for key, value in self.baseline.items()}

    def _changes(self, revision: Revision) -> dict[str, Value]:
        """Return what a revision makes of the config; of a cancel its outcomes tell that."""
        if revision.kind != "cancel":
            return revision.changes
        return self._ledgers[revision.revision].changes

    def _settle(self, settings: dict[str, Setting], key: str, without: Container[int] = ()) -> None:
        """Give a key the value that its revisions make of it, in whatever order their outcomes came."""
        settings.pop(key, None)
        if (setting := self._setting(key, len(self._ledgers), without)) is not None:
            settings[key] = setting

    def _setting(self, key: str, newest: int, without: Container[int] = ()) -> Setting | None:
        """Return what the revisions up to one make of a key.

        One that ends a ramp counts where no other change came after that.
        """
        numbers = self._standing.get(key, array("I"))
        ends: dict[int, Revision] = {}
        """Of ramps, by their revision."""
        for place in range(bisect_right(numbers, newest) - 1, -1, -1):
            revision = self._ledgers.revision(numbers[place])
            if revision.revision in without:
                continue
            if revision.kind != "cancel":
                last = ends.get(revision.revision, revision)
                return Setting(self._changes(last)[key], last.revision)
            ends[revision.cancels] = revision
        return None


def _has(numbers: "array[int]", number: int) -> bool:
    place = bisect_right(numbers, number)
    return place > 0 and numbers[place - 1] == number


def _insert(by_key: "dict[str, array[int]]", key: str, revision: int) -> None:
    """Add a revision to those of a key, in order; a cancel says something about one once it is answered."""
    numbers = by_key.setdefault(key, array("I"))
    if not numbers or numbers[-1] < revision:
        numbers.append(revision)
    elif not _has(numbers, revision):
        insort(numbers, revision)
