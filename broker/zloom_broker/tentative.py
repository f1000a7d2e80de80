"""Revisions of an attempt that are being written. Pure.

A change is judged as if they were on disk already, and in a burst there are many: what is asked of all of
them is added up as they come and go.
"""

from collections.abc import Iterator

import msgspec

from zloom.model import Revision
from zloom_broker.ledger import Setting, is_scheduled


class Tentative:
    """Revisions in the order in which they are numbered."""

    def __init__(self) -> None:
        self._revisions: list[Revision] = []
        self._sizes: list[int] = []
        """Bytes of the values of each."""
        self.scheduled: list[Revision] = []
        """Those that will wait for a step, or for all ranks to agree."""
        self.size = 0
        """Bytes of the values of all."""

    def __len__(self) -> int:
        return len(self._revisions)

    def __iter__(self) -> Iterator[Revision]:
        return iter(self._revisions)

    def add(self, revision: Revision) -> None:
        """A revision is being written."""
        self._revisions.append(revision)
        self._sizes.append(values_size(revision))
        self.size += self._sizes[-1]
        if is_scheduled(revision):
            self.scheduled.append(revision)

    def remove(self, revision: Revision) -> None:
        """It is on disk, or could not be written."""
        position = self._revisions.index(revision)  # the first, as a rule
        del self._revisions[position]
        self.size -= self._sizes.pop(position)
        if is_scheduled(revision):
            self.scheduled.remove(revision)

    def chain(self, before: bytes) -> bytes:
        """Return the digest over all revisions, `before` being the one over those on disk."""
        return self._revisions[-1].chain if self._revisions else before

    def settings(self) -> dict[str, Setting]:
        """Return what they make of the config."""
        return {
            key: Setting(value, revision.revision)
            for revision in self
            for key, value in revision.changes.items()
        }


def values_size(revision: Revision) -> int:
    """Return the bytes of a revision's values."""
    return len(msgspec.msgpack.encode(revision.changes))
