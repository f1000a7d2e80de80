"""The decision register in real stores of torch.distributed, one client for each rank."""

import _thread
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import zloom.store_register
from tests.support import DEADLINE, free_ports
from zloom.rounds import End
from zloom.store_register import ANSWER_LIMIT, StoreRegister

distributed = pytest.importorskip("torch.distributed")

TIMEOUT = timedelta(seconds=20)
ROUND = "e1/7/1"
PREFIX = "zloom/run/one/rounds"

Open = Callable[[], Any]
"""Returns one rank's client of a store."""


@contextlib.contextmanager
def tcp(tmp_path: Path) -> Iterator[Open]:
    server = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
    yield lambda: distributed.TCPStore(
        "127.0.0.1", server.port, is_master=False, wait_for_workers=False, timeout=TIMEOUT
    )


@contextlib.contextmanager
def prefixed(tmp_path: Path) -> Iterator[Open]:
    """As torch hands it out: what `init_process_group` made."""
    with tcp(tmp_path) as client:
        yield lambda: distributed.PrefixStore("default_pg", client())


@contextlib.contextmanager
def file(tmp_path: Path) -> Iterator[Open]:
    yield lambda: distributed.FileStore(str(tmp_path / "store"), 2)


@contextlib.contextmanager
def in_memory(tmp_path: Path) -> Iterator[Open]:
    store = distributed.HashStore()
    yield lambda: store


@pytest.fixture(params=[tcp, prefixed, file, in_memory], ids=lambda param: param.__name__)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    with request.param(tmp_path) as made:
        yield made


def registers(client: Open, count: int = 2, prefix: str = PREFIX) -> list[StoreRegister]:
    return [StoreRegister(client(), rank, count, prefix, serves=rank == 0) for rank in range(count)]


def test_rank_0_is_needed_until_all_others_have_left(client: Open) -> None:
    ranks = registers(client, 3)
    for rank in ranks:
        assert rank.is_needed(ROUND) is (rank is ranks[0])
        rank.leave(ROUND)
    assert [rank.is_needed(ROUND) for rank in ranks] == [False] * 3
    assert all(rank.reachable for rank in ranks[1:])


# --- decide --------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
def test_g9_the_first_writer_decides_for_all(client: Open, first: bool) -> None:
    one, other = registers(client)
    assert one.decide(ROUND, first) is first
    assert other.decide(ROUND, not first) is first
    assert one.decide(ROUND, not first) is first


def test_rounds_runs_and_attempts_are_kept_apart(client: Open) -> None:
    one, other = registers(client)
    (elsewhere, _) = registers(client, prefix="zloom/run/two/rounds")
    assert one.decide(ROUND, True) is True
    assert other.decide("e1/7/2", False) is False
    assert elsewhere.decide(ROUND, False) is False


def test_g9_ranks_that_race_agree(client: Open) -> None:
    shared = registers(client, 4)
    start = threading.Barrier(4)
    seen: dict[int, list[bool | None]] = {rank: [] for rank in range(4)}

    def decide(rank: int) -> None:
        for number in range(25):
            start.wait()
            seen[rank].append(shared[rank].decide(f"e1/{number}/1", rank % 2 == 0))

    threads = [threading.Thread(target=decide, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen[0]) == 25
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert None not in seen[0]


# --- part ----------------------------------------------------------------------------------------


def test_the_first_that_leaves_a_meeting_says_why_for_all(client: Open) -> None:
    one, other = registers(client)
    assert one.part(ROUND, None) is None
    assert other.part(ROUND, "SIGTERM") == "SIGTERM"
    assert [one.part(ROUND, None), one.part(ROUND, "")] == ["SIGTERM", "SIGTERM"]
    assert [one.part("e1/8/1", ""), other.part("e1/8/1", "SIGTERM")] == ["", ""]
    assert one.part("e1/8/1", None) == ""


# --- conclude ------------------------------------------------------------------------------------


def decided(client: Open, count: int = 2) -> list[StoreRegister]:
    made = registers(client, count)
    for register in made:
        assert register.decide(ROUND, True) is True
    return made


def test_all_keep_what_all_have_done_at_one_step(client: Open) -> None:
    one, other = decided(client)
    assert [one.conclude(ROUND, 5, None) for _ in range(3)] == [None] * 3
    assert other.conclude(ROUND, 5, None) == End(True)
    assert one.conclude(ROUND, 5, None) == End(True)


def test_another_step_does_not_count(client: Open) -> None:
    one, other = decided(client)
    assert (one.conclude(ROUND, 5, None), other.conclude(ROUND, 6, None)) == (None, None)
    assert (one.conclude(ROUND, 5, None), other.conclude(ROUND, 6, None)) == (None, None)


def test_the_first_end_stands(client: Open) -> None:
    one, other = decided(client)
    assert one.conclude(ROUND, 5, None) is None
    undone = End(False, "rank 1: a: ValueError: no")
    assert other.conclude(ROUND, 5, End(False, "a: ValueError: no")) == undone
    assert one.conclude(ROUND, 5, None) == undone
    assert other.conclude(ROUND, 5, None) == undone


def test_an_undo_comes_too_late_after_all_have_kept_it(client: Open) -> None:
    one, other = decided(client)
    one.conclude(ROUND, 5, None)
    other.conclude(ROUND, 5, None)
    assert one.conclude(ROUND, 5, End(False, "rank 1 was lost")) == End(True)


def test_a_rank_that_failed_need_not_have_decided(client: Open) -> None:
    one, other = registers(client)
    assert one.conclude(ROUND, 5, End(False, "no")) == End(False, "rank 0: no")
    assert other.conclude(ROUND, 5, None) == End(False, "rank 0: no")


# --- what stays ----------------------------------------------------------------------------------


def test_rank_0_removes_the_keys_of_rounds_that_are_long_over(
    client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zloom.store_register, "KEPT", 3)
    one, other = registers(client)
    store = client()
    for number in range(6):
        name = f"e1/{number}/1"
        for register in (one, other):
            register.decide(name, True)
            register.conclude(name, number, None)
        one.conclude(name, number, None)
    left = [number for number in range(6) if store.check([f"{PREFIX}/e1/{number}/1/decision"])]
    assert left == [3, 4, 5]
    assert not store.check([f"{PREFIX}/e1/0/1/done/0"])
    assert not store.check([f"{PREFIX}/e1/0/1/end"])


# --- the store is gone ---------------------------------------------------------------------------


def serve(port: int, ready: Any) -> None:
    store = distributed.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
    ready.set()
    threading.Event().wait()
    del store


@contextlib.contextmanager
def served_elsewhere() -> Iterator[tuple[Any, list[StoreRegister]]]:
    """Yield a process that serves a store, as torchrun's agent does, and the registers of two ranks in it."""
    port, spawn = free_ports(), multiprocessing.get_context("spawn")
    ready = spawn.Event()
    process = spawn.Process(target=serve, args=(port, ready), daemon=True)
    process.start()
    try:
        assert ready.wait(DEADLINE)
        store = distributed.TCPStore(
            "127.0.0.1", port, is_master=False, wait_for_workers=False, timeout=TIMEOUT
        )
        yield process, [StoreRegister(store, rank, 2, PREFIX, serves=rank == 0) for rank in (0, 1)]
    finally:
        process.kill()
        process.join()


def hang(process: Any) -> None:
    """Stop a process. The signal alone says that it will stop: meanwhile it may answer once more."""
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def test_g12_a_store_that_hangs_holds_nobody() -> None:
    """Torch waits for one without limit, and hears no signal meanwhile."""
    with served_elsewhere() as (process, (register, _)):
        assert register.decide(ROUND, True) is True
        hang(process)
        signals: list[int] = []
        before = signal.signal(signal.SIGUSR1, lambda number, _: signals.append(number))
        sends = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        try:
            sends.start()
            begun = time.monotonic()
            assert (register.decide("e1/8/1", True), register.reachable) == (None, False)
            assert signals == [signal.SIGUSR1]
            assert (register.is_needed(ROUND), register.conclude(ROUND, 1, None)) == (False, None)
            assert register.part(ROUND, "SIGTERM") is None
            assert time.monotonic() - begun < 2 * ANSWER_LIMIT, "one call waits for it, and no other"
        finally:
            sends.join()  # or the signal would end the tests
            signal.signal(signal.SIGUSR1, before)
        os.kill(process.pid, signal.SIGCONT)
        end = time.monotonic() + DEADLINE
        while register.decide("e1/8/1", False) is None:
            assert time.monotonic() < end
        assert (register.decide("e1/8/1", False), register.reachable) == (True, True), (
            "the first was not lost"
        )


def test_what_this_rank_has_done_is_noted_once_the_store_answers_again() -> None:
    with served_elsewhere() as (process, (register, other)):
        assert register.decide(ROUND, True) is True
        hang(process)
        assert register.part(ROUND, "") is None  # under way, so that none of the next is made
        assert register.conclude(ROUND, 5, None) is None
        os.kill(process.pid, signal.SIGCONT)
        end = time.monotonic() + DEADLINE
        while register.conclude(ROUND, 5, None) is None and other.conclude(ROUND, 5, None) is None:
            assert time.monotonic() < end
        assert other.conclude(ROUND, 5, None) == register.conclude(ROUND, 5, None) == End(True)


def test_a_store_whose_server_was_killed_cannot_tell() -> None:
    with served_elsewhere() as (server, (register, _)):
        assert register.decide(ROUND, True) is True
        server.kill()
        server.join()
        assert register.conclude(ROUND, 5, None) is None
        assert register.conclude(ROUND, 5, End(False, "rank 0 was lost")) is None
        assert register.decide("e1/8/1", True) is None
        assert [register.part(ROUND, reason) for reason in (None, "", "SIGTERM")] == [None] * 3
        assert not register.reachable
        register.leave(ROUND)
        assert not register.is_needed(ROUND)


class Scripted:
    """A store whose next calls raise, and of which nothing else is asked."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.added = 0

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        if self.errors:
            raise self.errors.pop(0)
        return desired.encode()

    def add(self, key: str, amount: int) -> int:
        self.added += amount
        return self.added

    def check(self, keys: list[str]) -> bool:
        return False


@pytest.mark.parametrize(
    "error", [distributed.DistStoreError("gone"), distributed.DistNetworkError("gone"), RuntimeError("gone")]
)
def test_what_torch_s_stores_raise_is_a_store_that_cannot_tell(error: Exception) -> None:
    register = StoreRegister(Scripted(error), 0, 2, PREFIX)  # type: ignore[arg-type]
    assert (register.decide(ROUND, True), register.reachable) == (None, False)
    assert (register.decide(ROUND, True), register.reachable) == (True, True)


@pytest.mark.parametrize("error", [RecursionError("no"), NotImplementedError("no"), TypeError("no")])
def test_a_fault_of_a_store_is_not_taken_for_its_silence(error: Exception) -> None:
    register = StoreRegister(Scripted(error), 0, 2, PREFIX)  # type: ignore[arg-type]
    with pytest.raises(type(error), match="no"):
        register.decide(ROUND, True)


def test_what_fails_before_the_store_is_asked_is_not_its_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    register = StoreRegister(Scripted(), 0, 2, PREFIX)  # type: ignore[arg-type]

    def interrupted(*_: object) -> None:
        raise RuntimeError("release unlocked lock")

    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", interrupted)
        with pytest.raises(RuntimeError, match="release unlocked lock"):
            register.decide(ROUND, True)
    assert register.decide(ROUND, True) is True


def test_g9_a_rank_that_a_signal_interrupts_as_it_notes_what_it_did_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else one of two ranks would make up their number."""
    register = StoreRegister(store := Scripted(), 0, 2, PREFIX)  # type: ignore[arg-type]

    def interrupted(make: Callable[[], None], _: tuple[()]) -> None:
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            register.conclude(ROUND, 5, None)
    assert [register.conclude(ROUND, 5, None) for _ in range(3)] == [None] * 3
    assert store.added == 1
