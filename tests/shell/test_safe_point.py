"""Where handlers run: on the training thread, between two steps, one at a time."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import zloom
from tests.shell.test_weavelet import Background, Operating, broker_thread, until_declared
from tests.support import DEADLINE, free_endpoint, running_broker
from zloom import SyncOperator, Weavelet
from zloom.model import Mode


class Witness:
    """Takes down which handlers ran, and what was wrong about when and where they did."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.wrong: list[str] = []
        self.in_step = False
        self._thread = threading.current_thread()
        self._running = threading.Lock()

    @contextmanager
    def watch(self, handler: str) -> Iterator[None]:
        """Watch one run of a handler."""
        self.ran.append(handler)
        if threading.current_thread() is not self._thread:
            self.wrong.append(f"{handler} ran on {threading.current_thread().name}")
        if self.in_step:
            self.wrong.append(f"{handler} ran inside a step")
        alone = self._running.acquire(blocking=False)
        if not alone:
            self.wrong.append(f"{handler} ran beside another handler")
        try:
            yield
        finally:
            if alone:
                self._running.release()

    @contextmanager
    def step(self) -> Iterator[None]:
        """The work of a step."""
        self.in_step = True
        yield
        self.in_step = False


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with free_endpoint("ipc") as endpoint, broker_thread(tmp_path_factory.mktemp("data"), endpoint):
        yield endpoint


@pytest.fixture(scope="module")
def operator(endpoint: str) -> Iterator[SyncOperator]:
    with zloom.connect_sync(endpoint) as operator:
        yield operator


@pytest.fixture
def weavelet(endpoint: str, request: pytest.FixtureRequest) -> Iterator[Weavelet]:
    run = str(request.node.name).replace("[", "-").replace("]", "")
    with Weavelet(run, broker=endpoint, attempt="one") as weavelet:
        assert weavelet.wait_until_active(DEADLINE)
        yield weavelet


def test_g7_handlers_run_between_steps_on_the_training_thread(
    weavelet: Weavelet, operator: SyncOperator, witness: Witness
) -> None:
    operating = Operating(operator, weavelet.run)

    @weavelet.on_config("rate", initial=0.1)
    def set_rate(value: float) -> None:
        with witness.watch("rate"):
            places.append(weavelet.step)

    @weavelet.on_command("save")
    def save() -> None:
        with witness.watch("save"):
            places.append(weavelet.step)

    places: list[int] = []
    asks: list[Callable[[], Background]] = [
        lambda: operating.set(rate=0.5),
        lambda: operating.command("save"),
    ]
    for ask in asks:
        weavelet.tick()
        weavelet._arrived.hush()
        before = list(witness.ran)
        with witness.step():
            asked = ask()
            assert weavelet._arrived.wait(DEADLINE)
            weavelet.report(loss=1.0)
            with weavelet.phase("validating"):
                weavelet.publish("net/", b"1")
        assert witness.ran == before
        weavelet.tick()
        [outcome] = asked.result.outcomes
        assert (outcome.outcome, outcome.step) == ("applied", weavelet.step)
        assert outcome.replica == weavelet.replica_id
    assert witness.ran == ["rate", "save"]
    assert witness.wrong == []
    assert places == [2, 4]


@pytest.mark.parametrize("mode", ["next", "immediate"])
def test_g7_handlers_run_one_at_a_time(
    weavelet: Weavelet, operator: SyncOperator, witness: Witness, mode: Mode
) -> None:
    """What comes while a handler runs waits until it has returned, an immediate change too."""
    slow_runs = threading.Event()

    @weavelet.on_config("slow", initial=0)
    def set_slow(value: int) -> None:
        with witness.watch("slow"):
            slow_runs.set()
            assert weavelet._arrived.wait(DEADLINE)

    @weavelet.on_config("quick", initial=0, immediate=True)
    def set_quick(value: int) -> None:
        with witness.watch("quick"):
            weavelet._arrived.ring()  # for the case that this runs before its time

    operating = Operating(operator, weavelet.run)
    first = operating.set(slow=1)

    def change_quick() -> zloom.Result:
        assert slow_runs.wait(DEADLINE)
        return operator.set(weavelet.run, {"quick": 1}, mode=mode)

    second = Background(change_quick)
    while not second.done:
        weavelet.tick()
    assert first.result.applied_everywhere
    assert second.result.applied_everywhere
    assert witness.ran == ["slow", "quick"]
    assert witness.wrong == []


def test_g7_an_immediate_handler_runs_on_the_weavelets_loop_inside_a_step(
    weavelet: Weavelet, operator: SyncOperator
) -> None:
    places: list[threading.Thread] = []

    @weavelet.on_config("verbose", initial=0, immediate=True)
    def set_verbose(value: int) -> None:
        places.append(threading.current_thread())

    until_declared(operator, weavelet.run, "verbose")
    weavelet.tick()
    changed = operator.set(weavelet.run, {"verbose": 2}, mode="immediate")  # no safe point comes meanwhile
    assert [(each.outcome, each.step) for each in changed.outcomes] == [("applied", weavelet.step)]
    assert places == [weavelet._thread]


async def test_g7_handlers_of_an_async_weavelet_run_in_its_safe_points(
    tmp_path: Path, witness: Witness
) -> None:
    async with running_broker(tmp_path) as broker:
        weavelet = zloom.AsyncWeavelet("run", broker=broker.endpoint, attempt="one")

        @weavelet.on_config("rate", initial=0.1)
        def set_rate(value: float) -> None:
            with witness.watch("rate"):
                pass

        async with weavelet, zloom.connect(broker.endpoint) as operator, asyncio.timeout(DEADLINE):
            assert await weavelet.wait_until_active(DEADLINE)
            await weavelet.tick()
            with witness.step():
                changing = asyncio.create_task(operator.set("run", {"rate": 0.5}))
                await weavelet._arrived.wait()
                weavelet.report(loss=1.0)
            assert witness.ran == []
            await weavelet.tick()
            assert (await changing).outcomes[0].step == weavelet.step == 2
            assert witness.ran == ["rate"]
            assert witness.wrong == []
