"""Driving a journal from a test: waiting for its thread, damaging its files, and processes to kill."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zloom_broker.journal import Journal, open_journal
from zloom_broker.journal.chain import Link
from zloom_broker.journal.folder import JournalFolder
from zloom_broker.journal.head import read_head
from zloom_broker.parts import digest_of_part

DEADLINE = 20.0
"""Seconds after which a wait has failed; nothing here takes as much as one."""

REPOSITORY = Path(__file__).parents[2]


class Listener:
    """Receives what the journal's thread reports, and waits for it."""

    def __init__(self) -> None:
        self.committed: list[int] = []
        self.failed: list[tuple[int, str]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self._reported = threading.Condition()

    def on_committed(self, seq: int) -> None:
        with self._reported:
            self.committed.append(seq)
            self._reported.notify_all()
        assert self.may_go_on.wait(DEADLINE)

    def on_failed(self, seq: int, reason: str) -> None:
        with self._reported:
            self.failed.append((seq, reason))
            self._reported.notify_all()

    def wait_committed(self, seq: int) -> None:
        with self._reported:
            done = self._reported.wait_for(lambda: seq in self.committed, DEADLINE)
        assert done, f"row {seq} was not committed: {self.committed[-1:]}, {self.failed}"

    def wait_failed(self, count: int = 1) -> None:
        with self._reported:
            done = self._reported.wait_for(lambda: len(self.failed) >= count, DEADLINE)
        assert done, "no failure was reported"


def start(journal: Journal) -> Listener:
    listener = Listener()
    journal.start(listener.on_committed, listener.on_failed)
    return listener


def payload(seq: int) -> bytes:
    """The content that row `seq` has in these tests."""
    return f"row {seq} ".encode() * 5


def write_rows(folder: Path, last: int, snapshots: tuple[int, ...] = ()) -> None:
    """Bring the journal in `folder` up to row `last`, one commit for each row, and close it."""
    with open_journal(folder) as journal:
        listener = start(journal)
        for seq in range(journal.recovered.last_seq + 1, last + 1):
            journal.submit(seq, [payload(seq)])
            listener.wait_committed(seq)
            if seq in snapshots:
                journal.write_snapshot(seq, state(seq), parts(seq))


def parts(seq: int) -> dict[bytes, bytes]:
    """The parts of the state in these tests, one of which is the same in each."""
    return {digest_of_part(content): content for content in (b"shared" * 50, f"part {seq} ".encode() * 50)}


def state(seq: int) -> bytes:
    """The content that a snapshot of row `seq` has in these tests."""
    return f"state {seq} ".encode() * 100


def flip_bit(path: Path, offset: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


@contextmanager
def child(mode: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """Run `journal_child` in a process of its own, which is killed at the end."""
    command = [sys.executable, "-m", "tests.shell.journal_child", mode, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: "subprocess.Popen[str]") -> str:
    """The next line that a child prints; pytest's time-out bounds the wait."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def head_of(folder: JournalFolder) -> Link:
    """Return what the head file of a journal says, which must be something."""
    link = read_head(folder.head)
    assert link is not None
    return link
