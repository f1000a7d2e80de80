"""The desired config of an attempt: of each key the value that its revisions make of it."""

from array import array
from bisect import bisect_right, insort
from collections.abc import Collection, Container, Iterable

from zloom.model import Key, Revision, Value
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
        """The revisions that say something about each key, in order."""

    def now(self) -> dict[str, Setting]:
        """Return each key's value and the revision that set it, which is 0 for the baseline."""
        return self._of_baseline() | self._settings

    def at(self, revision: int) -> dict[str, Setting]:
        """Return the same as it was at a revision."""
        settings = self._of_baseline()
        for key in self._touching:
            if (setting := self._setting(key, revision)) is not None:
                settings[key] = setting
        return settings

    def without(self, pending: Iterable[Revision]) -> dict[str, Value]:
        """Return the values that revisions set, but for those of revisions that are still to come."""
        ledgers = {revision.revision: self._ledgers[revision.revision - 1] for revision in pending}
        settings = dict(self._settings)
        for key in {key for ledger in ledgers.values() for key in ledger.changes}:
            self._settle(settings, key, ledgers.keys())
        return {key: setting.value for key, setting in settings.items()}

    def touching(self, key: str, after: int) -> Iterable[int]:
        """Return the revisions after one that may say something about a key, in order."""
        numbers = self._touching.get(key, array("I"))
        return numbers[bisect_right(numbers, after) :]

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
            self._touch(key, number)
            if not void:
                self._settings[key] = Setting(value, number)

    def change(self, revision: int, keys: Iterable[str]) -> None:
        """Take in that the outcomes of a revision have changed what it makes of some keys."""
        for key in keys:
            self._touch(key, revision)
            self._settle(self._settings, key)

    def restore(self, baseline: dict[str, Value], blocks: Collection[dict[str, list[int]]]) -> None:
        """Take in all ledgers at once, of a snapshot.

        Args:
            baseline: As it was.
            blocks: In order, the revisions that say something about each key.
        """
        self.baseline = dict(baseline)
        for keys in blocks:
            for key, numbers in keys.items():
                self._touching.setdefault(key, array("I")).extend(numbers)
        for key in self._touching:
            self._settle(self._settings, key)

    # --- inside ------------------------------------------------------------------------------

    def _of_baseline(self) -> dict[str, Setting]:
        return {key: Setting(value, 0) for key, value in self.baseline.items()}

    def _touch(self, key: str, revision: int) -> None:
        """Remember that a revision says something about a key; a cancel does once it is answered."""
        numbers = self._touching.setdefault(key, array("I"))
        if not numbers or numbers[-1] < revision:
            numbers.append(revision)
        elif numbers[bisect_right(numbers, revision) - 1] != revision:
            insort(numbers, revision)

    def _settle(self, settings: dict[str, Setting], key: str, without: Container[int] = ()) -> None:
        """Give a key the value that its revisions make of it, in whatever order their outcomes came."""
        settings.pop(key, None)
        if (setting := self._setting(key, len(self._ledgers), without)) is not None:
            settings[key] = setting

    def _setting(self, key: str, newest: int, without: Container[int] = ()) -> Setting | None:
        """Return what the revisions up to one make of a key.

        One that ends a ramp counts where no other change came after that.
        """
        numbers = self._touching.get(key, array("I"))
        ends: dict[int, Ledger] = {}
        """Of ramps, by their revision."""
        for place in range(bisect_right(numbers, newest) - 1, -1, -1):
            number = numbers[place]
            ledger = self._ledgers[number - 1]
            if number in without or key not in ledger.changes or ledger.void:
                continue
            if ledger.revision.kind != "cancel":
                settled = ends.get(number, ledger)
                return Setting(settled.changes[key], settled.revision.revision)
            ends[ledger.revision.cancels] = ledger
        return None
