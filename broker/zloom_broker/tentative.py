"""Revisions of an attempt that are being written. Pure.

A change is judged as if they were on disk already, and in a burst there are many: what is asked of all of
them is added up as they come and go.
"""

from collections.abc import Iterator

import msgspec

from zloom.model import Revision
from zloom_broker.ledger import Setting, is_scheduled
from zloom_broker.records import RevisionAccepted


class Tentative:
    """Revisions in the order in which they are numbered."""

    def __init__(self) -> None:
        self._records: list[RevisionAccepted] = []
        self.scheduled: list[Revision] = []
        """Those that will wait for a step, or for all ranks to agree."""
        self.size = 0
        """Bytes of their values."""

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Revision]:
        return (record.revision for record in self._records)

    def add(self, record: RevisionAccepted) -> None:
        """A revision is being written."""
        self._records.append(record)
        self.size += values_size(record.revision)
        if is_scheduled(record.revision):
            self.scheduled.append(record.revision)

    def remove(self, record: RevisionAccepted) -> None:
        """It is on disk, or could not be written."""
        self._records.remove(record)
        self.size -= values_size(record.revision)
        if is_scheduled(record.revision):
            self.scheduled.remove(record.revision)

    def chain(self, before: bytes) -> bytes:
        """Return the digest over all revisions, `before` being the one over those on disk."""
        return self._records[-1].revision.chain if self._records else before

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
