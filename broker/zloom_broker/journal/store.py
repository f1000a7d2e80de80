"""The journal's database, open for writing, together with its head file."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from zloom.errors import JournalError
from zloom_broker.journal.chain import GENESIS, Link, extend
from zloom_broker.journal.folder import JournalFolder
from zloom_broker.journal.head import HeadFile, sync_path
from zloom_broker.journal.reading import read_base, read_chain
from zloom_broker.journal.rows import commit_rows, insert_rows
from zloom_broker.journal.schema import DATABASE_ERRORS, connect, migrate, transaction
from zloom_broker.journal.snapshots import (
    Snapshot,
    copies_kept,
    insert_parts,
    insert_snapshot,
    keep_newest,
)
from zloom_broker.parts import Parts

# Milliseconds, of the 2 s in which a broker is to be gone: a reader may hold the last checkpoint up.
_CLOSING_BUSY_TIMEOUT_MS = 100


def create_database(
    folder: JournalFolder,
    base: Link = GENESIS,
    rows: Iterable[tuple[Link, bytes]] = (),
    snapshots: Iterable[Snapshot] = (),
) -> None:
    """Write a database under the name `folder.fresh_database`, complete and on disk.

    Under its own name it would be half made after a crash, and look damaged.
    """
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{folder.fresh_database}{suffix}").unlink(missing_ok=True)
    with closing(connect(folder.fresh_database)) as connection:
        migrate(connection)
        with transaction(connection):
            connection.execute("INSERT INTO base VALUES (?, ?)", base)
            insert_rows(connection, rows)
            for snapshot in snapshots:
                insert_parts(connection, snapshot.parts, copies_kept(base.seq))
                insert_snapshot(connection, snapshot, copies_kept(base.seq))
    sync_path(folder.fresh_database)


class Store:
    """A verified journal, open for writing. One thread at a time.

    Attributes:
        end: The link of the last row.
    """

    def __init__(
        self, folder: JournalFolder, end: Link, parts: Collection[bytes] = (), damaged: Collection[int] = ()
    ) -> None:
        """Open the journal in `folder`, which is locked and in order up to `end`, the last row that it has.

        Args:
            folder: Where it is.
            end: The link of its last row.
            parts: Digests of parts of snapshots of which each copy is known to be intact; others are written
                anew.
            damaged: Rows of snapshots that are known not to be intact: the next one takes their place.

        Raises:
            JournalError: A newer version of zloom wrote it.
            OSError, sqlite3.Error: The disk does not let us.
        """
        self.end = end
        self._synchronous = True
        self._broken: str | None = None
        self._parts = set(parts)
        """Digests of those that are there and intact."""
        self._damaged = set(damaged)
        self._surplus = False
        """There are rows after `end` that were neither confirmed nor taken back."""
        # Rows may be in the system's memory only; once the head names them, losing them counts as damage.
        folder.flush()
        self._connection = connect(folder.database)
        self._connection.text_factory = bytes  # as in `reading`
        with ExitStack() as undo:
            undo.callback(self._connection.close)
            migrate(self._connection)
            self._head = HeadFile(folder.head, end)
            undo.callback(self._head.close)
            self._custody = folder.custody()
            self._copies = copies_kept(read_base(self._connection).seq)
            undo.pop_all()

    def append(self, payloads: Sequence[bytes], *, sync: bool) -> None:
        """Commit rows, all or none.

        Args:
            payloads: Of the rows that follow `end`.
            sync: Whether they, and all before them, are to be on the medium when this returns. If not, they
                survive the end of the process, but not of the system.

        Raises:
            JournalError, OSError, sqlite3.Error: They could not be; `end` is what it was.
        """
        if self._broken is not None:
            raise JournalError(self._broken)
        self._custody.check()
        if self._surplus:
            self._take_back()
        self._set_synchronous(sync)
        rows = list(_chained(self.end, payloads))
        commit_rows(self._connection, rows)
        end = rows[-1][0]
        if sync:
            self._confirm(end)
        self._check_still_there()
        self.end = end

    def write_snapshot(self, seq: int, payload: bytes, parts: Parts) -> None:
        """Commit a snapshot of the owner's state as of row `seq`; the newest intact two are kept.

        Of its parts those are written that an earlier one does not have.

        Raises:
            JournalError, OSError, sqlite3.Error: It could not be; the older ones are still there.
        """
        self._custody.check()
        connection = self._connection
        chain = read_chain(connection, seq)
        if chain is None:
            raise JournalError(f"row {seq} is not in the journal")
        fresh = {digest: content for digest, content in parts.items() if digest not in self._parts}
        with transaction(connection):
            insert_parts(connection, fresh, self._copies)
            insert_snapshot(connection, Snapshot(Link(seq, chain), payload, parts), self._copies)
            stale = keep_newest(connection, self._damaged - {seq})
        self._parts = self._parts.union(fresh) - stale
        self._damaged.discard(seq)

    def reject_snapshots(self, numbers: Collection[int]) -> None:
        """Have the next snapshot take the place of these, as of those that are damaged."""
        self._damaged.update(numbers)

    def close(self) -> None:
        """Fold the write-ahead log into the database and close; what cannot be folded stays in the log."""
        try:
            with suppress(JournalError, OSError, *DATABASE_ERRORS):
                self._custody.check()
                if self._surplus:
                    self._take_back()
                self._connection.execute(f"PRAGMA busy_timeout = {_CLOSING_BUSY_TIMEOUT_MS}")
                (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                # A checkpoint has synced the rows that `append` did not, so the head may name them.
                if not busy and self._broken is None and self._head.link != self.end:
                    self._head.write(self.end)
        finally:
            self._connection.close()
            self._head.close()

    def _set_synchronous(self, wanted: bool) -> None:
        # NORMAL leaves out nothing but the sync at the end of a commit: the log is still synced before it is
        # folded into the database, so a loss of power costs the newest rows and never the order. The
        # next commit under FULL syncs the whole log, hence all rows before it.
        if wanted != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._synchronous = wanted

    def _confirm(self, end: Link) -> None:
        try:
            self._head.write(end)
        except OSError:
            self._surplus = True
            self._take_back()
            raise

    def _check_still_there(self) -> None:
        # What was written just now may be in a file that has no name any more. To take it back would be no
        # better: by now the database may be another broker's.
        try:
            self._custody.check()
        except (JournalError, OSError) as error:
            self._broken = f"rows after {self.end.seq} may be lost: {error}"
            raise

    def _take_back(self) -> None:
        """Undo a commit whose head could not be written: its rows were never confirmed."""
        try:
            self._head.write(self._head.link)  # it may be on disk in spite of the error
            with transaction(self._connection):
                self._connection.execute("DELETE FROM rows WHERE seq > ?", (self.end.seq,))
        except (OSError, *DATABASE_ERRORS) as error:
            # Tried again with the next rows. Should the process die before that, these may be there.
            raise JournalError(
                f"rows after {self.end.seq} could be neither confirmed nor taken back ({error}); "
                "check the disk: the next change tries it again"
            ) from error
        self._surplus = False


def _chained(link: Link, payloads: Iterable[bytes]) -> Iterator[tuple[Link, bytes]]:
    for payload in payloads:
        link = extend(link, payload)
        yield link, payload
