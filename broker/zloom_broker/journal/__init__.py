"""The broker's journal: what was confirmed, kept over kill -9, loss of power and bit flips.

A folder with these files, all of which belong together:

``journal.sqlite3`` (and ``-wal``, ``-shm``)
    An SQLite database in WAL mode. Table ``rows (seq, payload, chain)`` holds opaque records, numbered
    consecutively; each is chained to the one before by a hash (`chain.extend`). Table ``snapshots (seq,
    chain, payload, parts, digest)`` holds the owner's whole state as of a row, so that a start need not read
    all rows. What snapshots share stands once, in table ``parts (digest, content)``; each names its own in
    its column ``parts``. Table ``base (seq, chain)`` says after which row the journal begins: 0, except
    after a repair that lost older rows. From then on no rows stand in for a snapshot or a part that is
    damaged, so there is another copy of each, in tables ``snapshot_copies`` and ``part_copies``. They help
    against the loss of any page but the first, on which SQLite has its schema.
``head``
    Number and hash of the last row that was confirmed, fsynced before each confirmation. SQLite takes a
    damaged frame in its WAL for the end of the WAL, so only the head can tell that rows are missing.
``lock``
    Locked by the broker that uses the folder; holds its pid and where it listens.
``quarantine-<UTC time>``
    Copies of a damaged journal, made before anything else was done with it. Never deleted by zloom.
"""

from zloom_broker.journal.journal import Durability, Journal, Recovered, open_journal
from zloom_broker.journal.repair import RepairReport, VerifyReport, repair, verify
from zloom_broker.journal.writer import JournalCounters

__all__ = [
    "Durability",
    "Journal",
    "JournalCounters",
    "Recovered",
    "RepairReport",
    "VerifyReport",
    "open_journal",
    "repair",
    "verify",
]
