"""The process that tests of the journal kill: ``python -m tests.shell.journal_child MODE FOLDER ...``."""

import resource
import sys
import threading
from pathlib import Path

from tests.shell.journal_driver import payload, start, state
from zloom_broker.journal import open_journal


def burst(folder: Path, durability: str) -> None:
    """Commit bursts until killed; prints the last row of each commit, and nothing before its confirmation."""
    journal = open_journal(folder, durability="buffered" if durability == "buffered" else "fsync")
    room = threading.Semaphore(300)

    def on_committed(seq: int) -> None:
        print(seq, flush=True)
        room.release()

    journal.start(on_committed, lambda seq, reason: sys.exit(f"{seq}: {reason}"))
    seq = journal.recovered.last_seq
    for size in range(1, 100_000):
        rows = [payload(seq + number) for number in range(1, size % 7 + 2)]
        journal.submit(seq + 1, rows, durable=size % 3 == 0)
        seq += len(rows)
        room.acquire(timeout=0.001)
        if size % 50 == 0:
            journal.write_snapshot(seq, state(seq))


def write(folder: Path, last: int, snapshot: int) -> None:
    """Commit rows one by one, say so, and wait to be killed; the write-ahead log is left behind."""
    journal = open_journal(folder)
    listener = start(journal)
    for seq in range(journal.recovered.last_seq + 1, last + 1):
        journal.submit(seq, [payload(seq)])
        listener.wait_committed(seq)
        if seq == snapshot:
            journal.write_snapshot(seq, state(seq))
    print("written", flush=True)
    threading.Event().wait()


def full(folder: Path) -> None:
    """Run into a disk that is full, and out of it again."""
    with open_journal(folder) as journal:
        listener = start(journal)
        journal.submit(1, [payload(1)])
        listener.wait_committed(1)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        journal.submit(2, [payload(2), bytes(1_000_000)])
        listener.wait_failed()
        journal.submit(4, [payload(4)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        journal.resume(2)
        journal.submit(2, [payload(2)])
        listener.wait_committed(2)
        ((seq, reason),) = listener.failed
        print(f"{seq}|{reason}|{journal.counters.dropped}|{listener.committed}", flush=True)


if __name__ == "__main__":
    mode, path, *rest = sys.argv[1:]
    if mode == "burst":
        burst(Path(path), *rest)
    elif mode == "write":
        write(Path(path), *map(int, rest))
    else:
        full(Path(path))
