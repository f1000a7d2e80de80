"""Who closes a weavelet, from where and when: what is under way is answered for, and a goodbye is said."""

import contextlib
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import DEADLINE, broker_process, free_endpoint
from zloom import DeclarationError
from zloom.client import SyncOperator, connect_sync
from zloom.errors import Refused
from zloom.settings import WeaveletSettings
from zloom.weavelet import Weavelet

QUICK = WeaveletSettings(pause_poll=0.05)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncOperator]:
    folder = tmp_path_factory.mktemp("broker")
    with (
        free_endpoint("ipc") as bind,
        broker_process(folder / "data", bind) as broker,
        connect_sync(broker.endpoint) as connected,
    ):
        yield connected


@pytest.fixture
def run(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).replace("[", "-").replace("]", "")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.005)


def declared(operator: SyncOperator, run: str) -> set[str]:
    try:
        keys = operator.keys(run)
    except Refused:  # it has not come yet
        return set()
    return {each.key.name for each in keys.keys} | {each.name for each in keys.commands}


def states(operator: SyncOperator, run: str) -> list[tuple[str, str]]:
    return [(each.state, each.reason) for each in operator.replicas(run)]


# --- a process that ends behind it -----------------------------------------------------------------

SCRIPT = """
import os, signal, sys, threading
import zloom

run, broker, who = sys.argv[1:]
weavelet = zloom.Weavelet(run, broker=broker)
going = True

def close(*_):
    global going
    going = False
    weavelet.close("as asked")

@weavelet.on_config("now", initial=0, immediate=True)
def change(value: int) -> None:
    close()

@weavelet.on_command("checkpoint")
def checkpoint() -> str:
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(100):
        pass  # somewhere here it is handled
    return "saved"

def preempted(*_):
    weavelet.close("preempted")
    os._exit(0)

signal.signal(signal.SIGTERM, preempted)
with weavelet:
    assert weavelet.wait_until_active(30)
    weavelet.tick()
    if who == "thread":
        threading.Thread(target=close, daemon=True).start()
    while going:
        weavelet.tick()
"""


@contextlib.contextmanager
def trainer(operator: SyncOperator, run: str, who: str) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", SCRIPT, run, operator.endpoint, who]) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("who", ["thread", "immediate"])
def test_a_process_that_ends_while_another_thread_closes_says_goodbye(
    operator: SyncOperator, run: str, who: str
) -> None:
    with trainer(operator, run, who) as process:
        if who == "immediate":
            until(lambda: "now" in declared(operator, run))
            operator.set(run, {"now": 1}, mode="immediate")
        assert process.wait(DEADLINE) == 0
    until(lambda: states(operator, run)[0][0] != "live")
    assert states(operator, run) == [("finished", "as asked")]


def test_the_handler_of_a_signal_closes_at_once_also_above_a_handler_at_a_safe_point(
    operator: SyncOperator, run: str
) -> None:
    with trainer(operator, run, "signal") as process:
        until(lambda: "checkpoint" in declared(operator, run))
        result = operator.command(run, "checkpoint")
        assert process.wait(DEADLINE) == 0
    assert [each.outcome for each in result.outcomes] == ["not_reached"]
    assert states(operator, run) == [("finished", "preempted")]


# --- at a safe point -------------------------------------------------------------------------------


def test_g9_ranks_whose_handlers_close_end_the_change_first_on_all_of_them(
    operator: SyncOperator, run: str
) -> None:
    """They carry it out, and then have to learn whether the other one has."""
    rates: dict[int, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # there is no store
        ranks = [
            Weavelet(run, broker=operator.endpoint, attempt="one", rank=rank, world_size=2, settings=QUICK)
            for rank in range(2)
        ]

    def train(rank: int, weavelet: Weavelet) -> None:
        @weavelet.on_config("rate", initial=1.0)
        def change(value: float) -> None:
            rates[rank] = value
            weavelet.close(f"rank {rank} has its rate")

        with weavelet:
            while weavelet._thread is not None and weavelet._thread.is_alive():
                weavelet.tick()
                time.sleep(0.001)

    threads = [threading.Thread(target=train, args=each) for each in enumerate(ranks)]
    for thread in threads:
        thread.start()
    until(
        lambda: "rate" in declared(operator, run) and all(each.step_time for each in operator.replicas(run))
    )
    result = operator.set(run, {"rate": 2.0})
    for thread in threads:
        thread.join(DEADLINE)
    assert {each.outcome for each in result.outcomes} == {"applied"}
    assert rates == {0: 2.0, 1: 2.0}
    until(lambda: {state for state, _ in states(operator, run)} == {"finished"})


@pytest.mark.parametrize("where", ["wait_for_config", "wait_until_active"])
def test_g12_closing_ends_every_wait(where: str, run: str, tmp_path: Path) -> None:
    weavelet = Weavelet(run, broker=f"ipc://{tmp_path}/nobody", settings=QUICK)
    weavelet.start()
    threading.Timer(0.1, weavelet.close).start()
    began = time.monotonic()
    getattr(weavelet, where)(DEADLINE)
    assert time.monotonic() - began < DEADLINE / 2


def test_a_pause_that_comes_while_the_config_is_waited_for_holds_the_training(
    operator: SyncOperator, run: str
) -> None:
    with Weavelet(run, broker=operator.endpoint, settings=QUICK) as weavelet:
        assert weavelet.wait_until_active(DEADLINE)
        until(lambda: "pause" in declared(operator, run))
        paused = threading.Thread(target=operator.command, args=(run, "pause", {"limit": 0.5}))
        paused.start()
        until(lambda: weavelet._mailbox.waiting)
        began = time.monotonic()
        weavelet.wait_for_config(DEADLINE)
        assert time.monotonic() - began > 0.4
        paused.join(DEADLINE)


def test_g7_a_handler_that_reaches_another_safe_point_is_refused_and_stays_the_only_one(
    operator: SyncOperator, run: str
) -> None:
    seen: list[tuple[int, bool]] = []
    with Weavelet(run, broker=operator.endpoint, settings=QUICK) as weavelet:

        @weavelet.on_command("work")
        def work() -> None:
            with pytest.raises(DeclarationError, match="do not call tick"):
                weavelet.tick()
            with pytest.raises(DeclarationError, match="do not call tick"):
                weavelet.wait_for_config(0.0)
            seen.append((weavelet.step, weavelet._training.is_quiet))

        assert weavelet.wait_until_active(DEADLINE)
        until(lambda: "work" in declared(operator, run))
        asked = threading.Thread(target=operator.command, args=(run, "work"))
        asked.start()
        until(lambda: weavelet._mailbox.waiting)
        weavelet.tick()
        asked.join(DEADLINE)
    assert seen == [(1, False)]
