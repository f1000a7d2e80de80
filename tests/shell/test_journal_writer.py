import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.shell.journal_driver import DEADLINE, Listener, child, flip_bit, line, payload, start, state
from zloom.errors import LocalProtocolError
from zloom_broker.journal import Journal, open_journal, verify, writer
from zloom_broker.journal.folder import JournalFolder


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with open_journal(tmp_path) as journal:
        yield journal


def hold(journal: Journal, listener: Listener, seq: int) -> None:
    """Commit row `seq` and keep the thread inside the report of it, so that what follows queues up."""
    listener.may_go_on.clear()
    journal.submit(seq, [payload(seq)])
    listener.wait_committed(seq)


def break_disk(journal: Journal) -> None:
    """Make every commit fail, in SQLite itself, until `mend_disk`."""
    trigger = "CREATE TRIGGER broken BEFORE INSERT ON rows BEGIN SELECT RAISE(ABORT, 'disk on fire'); END"
    execute(journal, trigger)


def mend_disk(journal: Journal) -> None:
    execute(journal, "DROP TRIGGER broken")


def execute(journal: Journal, statement: str) -> None:
    with closing(sqlite3.connect(JournalFolder(journal.data_dir).database)) as connection:
        connection.execute(statement)


def crowd(journal: Journal) -> Listener:
    """Start a journal, and have rows 2 to 101 come while row 1 is committed."""
    listener = start(journal)
    hold(journal, listener, 1)
    for seq in range(2, 102):
        journal.submit(seq, [payload(seq)])
    listener.may_go_on.set()
    listener.wait_committed(101)
    return listener


def test_a_thread_that_cannot_begin_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limit:
        limit.setattr(threading.Thread, "start", no_more)
        with pytest.raises(RuntimeError, match="can't start new thread"), open_journal(tmp_path) as journal:
            start(journal)
    with open_journal(tmp_path) as journal:  # its lock is free
        start(journal)


def test_rows_that_wait_share_one_commit(journal: Journal) -> None:
    listener = crowd(journal)
    assert listener.committed == [1, 101]
    assert (journal.counters.commits, journal.counters.rows) == (2, 101)


def test_where_many_come_a_commit_waits_for_more(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, came = threading.Event(), threading.Event()

    def gather(seconds: float) -> None:
        waits.set()
        assert came.wait(DEADLINE)

    monkeypatch.setattr(writer, "sleep", gather)
    monkeypatch.setattr(writer, "LULL", DEADLINE)
    listener = crowd(journal)
    journal.submit(102, [payload(102)])
    assert waits.wait(DEADLINE)
    journal.submit(103, [payload(103)])
    came.set()
    listener.wait_committed(103)
    assert listener.committed == [1, 101, 103]


def test_after_a_lull_a_commit_waits_no_more(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many came before it; without it the average takes some 15 commits to forget them."""
    waited: list[float] = []
    monkeypatch.setattr(writer, "sleep", waited.append)
    monkeypatch.setattr(writer, "LULL", 0.001)
    listener = crowd(journal)
    for seq in range(102, 110):
        waited.clear()
        journal.submit(seq, [payload(seq)])
        listener.wait_committed(seq)
        if not waited:
            return
        time.sleep(0.01)  # a lull, unless the thread is held up for as long
    pytest.fail("each commit waited for more rows")


def test_who_submits_one_after_the_other_never_waits(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(writer, "sleep", waited.append)
    listener = start(journal)
    for seq in range(1, 50):
        journal.submit(seq, [payload(seq)])
        listener.wait_committed(seq)
    assert waited == []


def test_several_rows_in_one_submission(journal: Journal) -> None:
    listener = start(journal)
    journal.submit(1, [payload(1), payload(2), payload(3)])
    journal.submit(4, [])
    journal.submit(4, [payload(4)])
    listener.wait_committed(4)
    assert verify(journal.data_dir).rows == 4


@pytest.mark.parametrize("seq", [1, 3])
def test_a_gap_or_a_repetition_is_a_bug_of_the_caller(journal: Journal, seq: int) -> None:
    listener = start(journal)
    journal.submit(1, [payload(1)])
    with pytest.raises(LocalProtocolError, match=f"row {seq} was submitted where row 2 is next"):
        journal.submit(seq, [payload(seq)])
    journal.submit(2, [payload(2)])
    listener.wait_committed(2)


def test_use_before_start_after_close_or_twice_started_is_refused(journal: Journal) -> None:
    with pytest.raises(LocalProtocolError, match="call start"):
        journal.submit(1, [b""])
    start(journal)
    with pytest.raises(LocalProtocolError, match="started once"):
        start(journal)
    journal.close()
    uses: list[Callable[[], None]] = [
        lambda: journal.submit(1, [b""]),
        lambda: journal.write_snapshot(1, b""),
    ]
    for use in uses:
        with pytest.raises(LocalProtocolError, match="closed"):
            use()


def test_a_failed_commit_discards_all_that_was_queued_and_is_reported_once(journal: Journal) -> None:
    listener = start(journal)
    hold(journal, listener, 1)
    break_disk(journal)
    journal.submit(2, [payload(2)])
    journal.submit(3, [payload(3), payload(4)])
    journal.write_snapshot(4, state(4))
    listener.may_go_on.set()
    listener.wait_failed()
    journal.submit(5, [payload(5)])
    journal.write_snapshot(5, state(5))
    mend_disk(journal)
    journal.submit(17, [payload(17)])
    assert listener.failed == [(2, "the journal could not be written: disk on fire")]

    journal.resume(2)
    journal.submit(2, [b"on the state as it is"])
    listener.wait_committed(2)
    journal.close()
    assert listener.committed == [1, 2]
    assert len(listener.failed) == 1
    assert (journal.counters.failures, journal.counters.dropped) == (1, 5)
    with open_journal(journal.data_dir) as again:
        assert again.recovered.rows == [(1, payload(1)), (2, b"on the state as it is")]


def test_rows_that_were_queued_during_a_failing_commit_are_discarded_too(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = start(journal)
    syncing, may_fail = threading.Event(), threading.Event()

    def fails_once(descriptor: int) -> None:
        monkeypatch.undo()
        syncing.set()
        assert may_fail.wait(DEADLINE)
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(os, "fdatasync", fails_once)
    journal.submit(1, [payload(1)])
    assert syncing.wait(DEADLINE)
    journal.submit(2, [payload(2), payload(3)])
    may_fail.set()
    listener.wait_failed()
    journal.resume(1)
    journal.submit(1, [b"on the state as it is"])
    journal.close()
    assert listener.committed == [1]
    assert [seq for seq, _ in listener.failed] == [1]
    assert journal.counters.dropped == 3
    with open_journal(journal.data_dir) as again:
        assert again.recovered.rows == [(1, b"on the state as it is")]


def test_resume_is_for_failures_and_at_the_next_row_only(journal: Journal) -> None:
    listener = start(journal)
    with pytest.raises(LocalProtocolError, match="nothing has failed"):
        journal.resume(1)
    break_disk(journal)
    journal.submit(1, [payload(1)])
    listener.wait_failed()
    with pytest.raises(LocalProtocolError, match="row 1 is next"):
        journal.resume(2)
    mend_disk(journal)
    journal.resume(1)
    journal.submit(1, [payload(1)])
    listener.wait_committed(1)


def test_a_failure_can_follow_a_resume_at_once(journal: Journal) -> None:
    listener = start(journal)
    break_disk(journal)
    for count in (1, 2, 3):
        journal.submit(1, [payload(1)])
        listener.wait_failed(count)
        journal.resume(1)
    assert journal.counters.failures == 3


def test_a_disk_that_is_full_fails_the_commit_and_nothing_more(tmp_path: Path) -> None:
    with child("full", tmp_path) as process:
        seq, reason, dropped, committed = line(process).split("|")
        assert process.wait(10) == 0
    assert (seq, dropped, committed) == ("2", "3", "[1, 2]")
    assert reason.startswith("the journal could not be written: ")
    assert verify(tmp_path).ok
    with open_journal(tmp_path) as journal:
        assert journal.recovered.rows == [(1, payload(1)), (2, payload(2))]


def test_a_snapshot_is_written_after_the_rows_that_it_covers(journal: Journal) -> None:
    listener = start(journal)
    hold(journal, listener, 1)
    journal.submit(2, [payload(2)])
    journal.write_snapshot(1, state(1))
    journal.write_snapshot(2, state(2))
    journal.submit(3, [payload(3)])
    listener.may_go_on.set()
    journal.close()
    assert verify(journal.data_dir).snapshots == (2,)
    assert journal.counters.snapshots == 1


@pytest.mark.parametrize("seq", [0, 2])
def test_a_snapshot_of_a_row_that_was_not_submitted_is_a_bug_of_the_caller(
    journal: Journal, seq: int
) -> None:
    start(journal)
    journal.submit(1, [payload(1)])
    with pytest.raises(LocalProtocolError, match=f"snapshot of row {seq}, but the last row is 1"):
        journal.write_snapshot(seq, b"")


def test_a_snapshot_that_fails_is_counted_and_harms_no_row(journal: Journal) -> None:
    listener = start(journal)
    execute(journal, "CREATE TRIGGER b BEFORE INSERT ON snapshots BEGIN SELECT RAISE(ABORT, 'no room'); END")
    journal.submit(1, [payload(1)])
    journal.write_snapshot(1, state(1))
    journal.submit(2, [payload(2)])
    listener.wait_committed(2)
    journal.close()
    assert listener.failed == []
    assert (journal.counters.snapshot_failures, journal.counters.snapshot_error) == (1, "no room")


def test_an_error_of_which_the_text_is_damaged_is_a_failure_like_any_other(journal: Journal) -> None:
    break_disk(journal)
    journal.close()
    database = JournalFolder(journal.data_dir).database
    flip_bit(database, database.read_bytes().index(b"disk on fire"), 7)
    with open_journal(journal.data_dir) as opened:
        listener = start(opened)
        opened.submit(1, [payload(1)])
        listener.wait_failed()
        mend_disk(opened)
        opened.resume(1)
        opened.submit(1, [payload(1)])
        listener.wait_committed(1)


def test_closing_commits_what_is_queued(journal: Journal) -> None:
    listener = start(journal)
    for seq in range(1, 51):
        journal.submit(seq, [payload(seq)])
    assert journal.close() is True
    assert listener.committed[-1] == 50
    assert journal.close() is True
    assert "zloom-journal" not in {thread.name for thread in threading.enumerate()}


def test_closing_does_not_wait_for_a_disk_that_hangs_and_keeps_the_lock_meanwhile(journal: Journal) -> None:
    listener = start(journal)
    hold(journal, listener, 1)
    assert journal.close(timeout=0.01) is False
    with pytest.raises(Exception, match="in use by another broker"):
        open_journal(journal.data_dir)
    listener.may_go_on.set()
    assert journal.close(timeout=10) is True
    open_journal(journal.data_dir).close()


def test_submissions_from_many_threads_while_committing(journal: Journal) -> None:
    listener = start(journal)
    turn = threading.Lock()
    numbers = iter(range(1, 401))

    def submit() -> None:
        for _ in range(100):
            with turn:
                seq = next(numbers)
                journal.submit(seq, [payload(seq)])

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listener.wait_committed(400)
    assert listener.committed == sorted(set(listener.committed))
    assert journal.counters.rows == 400
    assert verify(journal.data_dir).rows == 400


def test_buffered_rows_are_confirmed_at_once_and_durable_ones_reach_the_head(tmp_path: Path) -> None:
    with open_journal(tmp_path, durability="buffered") as journal:
        listener = start(journal)
        journal.submit(1, [payload(1)], durable=True)
        listener.wait_committed(1)
        journal.submit(2, [payload(2)], durable=False)
        listener.wait_committed(2)
        assert (verify(tmp_path).head_seq, verify(tmp_path).last_seq) == (1, 2)
        journal.submit(3, [payload(3)], durable=True)
        listener.wait_committed(3)
        assert verify(tmp_path).head_seq == 3
        journal.submit(4, [payload(4)], durable=False)
    assert verify(tmp_path).head_seq == 4


def test_durable_rows_sync_the_buffered_ones_that_share_their_commit(tmp_path: Path) -> None:
    with open_journal(tmp_path, durability="buffered") as journal:
        listener = start(journal)
        hold(journal, listener, 1)
        journal.submit(2, [payload(2)], durable=True)
        journal.submit(3, [payload(3)], durable=False)
        listener.may_go_on.set()
        listener.wait_committed(3)
        assert verify(tmp_path).head_seq == 3


def test_under_fsync_every_row_is_durable(journal: Journal) -> None:
    listener = start(journal)
    journal.submit(1, [payload(1)], durable=False)
    listener.wait_committed(1)
    assert verify(journal.data_dir).head_seq == 1
