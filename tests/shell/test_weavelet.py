"""A weavelet in a trainer with a loop of its own, against a real broker."""

import asyncio
import contextlib
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import zmq

from tests.support import DEADLINE, broker_process, free_endpoint, running_broker
from zloom import Meta, SettingsError, TransportError, UndoError, introduction
from zloom.client import Result, SyncOperator, connect_sync
from zloom.messages import Answered, Declare, Failure, Happened, Outcomes, Reported, Status, ToBroker
from zloom.model import MAX_COUNT, Device, ReplicaStatus
from zloom.pause import PAUSE_LIMIT
from zloom.session_sockets import SessionSockets
from zloom.session_state import State
from zloom.settings import WeaveletSettings
from zloom.status_source import StatusSource
from zloom.steerable import reason_of
from zloom.weavelet import Weavelet

QUICK = WeaveletSettings(pause_poll=0.05)


@contextlib.contextmanager
def broker_thread(tmp_path: Path, endpoint: str) -> Iterator[None]:
    """Run a broker on a thread, because the tests below block theirs as a trainer does."""
    ready, ended = threading.Event(), threading.Event()

    async def serve() -> None:
        async with running_broker(tmp_path, endpoint=endpoint):
            ready.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(DEADLINE)
        yield
    finally:
        ended.set()
        thread.join(DEADLINE)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with free_endpoint("ipc") as endpoint, broker_thread(tmp_path_factory.mktemp("data"), endpoint):
        yield endpoint


@pytest.fixture(scope="module")
def operator(endpoint: str) -> Iterator[SyncOperator]:
    with connect_sync(endpoint) as operator:
        yield operator


@pytest.fixture
def run(request: pytest.FixtureRequest) -> str:
    """A run of the test's own: they share a broker."""
    return str(request.node.name).replace("[", "-").replace("]", "")


@pytest.fixture
def weavelet(endpoint: str, run: str) -> Iterator[Weavelet]:
    with Weavelet(run, broker=endpoint, attempt="one", settings=QUICK) as weavelet:
        assert weavelet.wait_until_active(DEADLINE)
        yield weavelet


def until_declared(operator: SyncOperator, run: str, *names: str) -> None:
    """Wait until the broker knows keys or commands: declarations travel like everything else."""
    end = time.monotonic() + DEADLINE
    while True:
        known = operator.keys(run)
        if set(names) <= {each.key.name for each in known.keys} | {each.name for each in known.commands}:
            return
        assert time.monotonic() < end, f"{names} were not declared in time"


class Operating:
    """Requests of an operator on another thread, while the test's own thread trains."""

    def __init__(self, operator: SyncOperator, run: str) -> None:
        self._operator = operator
        self._run = run

    def set(self, **changes: object) -> "Background":
        def call() -> Result:
            until_declared(self._operator, self._run, *changes)
            return self._operator.set(self._run, changes)  # type: ignore[arg-type]

        return Background(call)

    def command(self, name: str, /, **arguments: object) -> "Background":
        def call() -> Result:
            until_declared(self._operator, self._run, name)
            return self._operator.command(self._run, name, arguments)  # type: ignore[arg-type]

        return Background(call)


class Background:
    """A call on another thread."""

    def __init__(self, call: Callable[[], Result]) -> None:
        self._call = call
        self._result: Result | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._result = self._call()
        except Exception as error:  # noqa: BLE001 - handed to the test
            self._error = error

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    @property
    def result(self) -> Result:
        self._thread.join(DEADLINE)
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


@pytest.fixture
def operating(operator: SyncOperator, run: str) -> Operating:
    return Operating(operator, run)


def train(weavelet: Weavelet, until: Callable[[], bool]) -> None:
    """Train on this thread until something is true."""
    end = time.monotonic() + DEADLINE
    while not until():
        assert time.monotonic() < end, "the training waited in vain"
        weavelet.tick()


def train_while(weavelet: Weavelet, background: Background) -> Result:
    """Train on this thread until an operator has its answer."""
    train(weavelet, lambda: background.done)
    return background.result


def status(operator: SyncOperator, run: str, until: Callable[[ReplicaStatus], bool]) -> ReplicaStatus:
    """Wait for a status of the run's only replica."""
    with operator.watch(run) as feed:
        for each in feed:
            if isinstance(each, Reported) and until(each.status):
                return each.status
    raise AssertionError("the feed ended")


def until_finished(operator: SyncOperator, run: str, reason: str) -> None:
    """Wait for the goodbye of the run's only replica."""
    end = time.monotonic() + DEADLINE
    while [(each.state, each.reason) for each in operator.replicas(run)] != [("finished", reason)]:
        assert time.monotonic() < end, "it said no goodbye"
        time.sleep(0.01)


def until_hello(weavelet: Weavelet) -> None:
    """Return within a moment of its first hello."""
    deadline = time.monotonic() + DEADLINE
    while weavelet.counters is None or not weavelet.counters.session.hellos:
        assert time.monotonic() < deadline, "it said no hello"
        time.sleep(0)


def declare_rate(weavelet: Weavelet) -> list[float]:
    seen: list[float] = []

    @weavelet.on_config("learning_rate", initial=0.1)
    def set_learning_rate(value: Annotated[float, Meta(gt=0, le=1)]) -> None:
        """The base learning rate."""
        if value == 0.666:
            raise ValueError("not that one")
        seen.append(value)

    return seen


# --- changes -------------------------------------------------------------------------------------


@pytest.mark.fault("trainer: a handler that raises", "told")
def test_an_update_of_several_keys_is_all_or_nothing(
    weavelet: Weavelet, operating: Operating, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[object] = []

    @weavelet.on_config("first", initial=1)
    def set_first(value: int) -> Callable[[], None]:
        log.append(value)
        return lambda: log.append("undone")

    rates = declare_rate(weavelet)
    result = train_while(weavelet, operating.set(first=2, learning_rate=0.666))
    assert [each.outcome for each in result.outcomes] == ["rejected"]
    assert result.outcomes[0].error == "learning_rate: ValueError: not that one"
    assert log == [2, "undone"]
    assert rates == []
    assert "the handler of learning_rate raised; what was asked for is rejected\nTraceback" in caplog.text
    assert "in set_learning_rate\n" in caplog.text


def test_an_undo_that_raises_surfaces_from_tick(weavelet: Weavelet, operating: Operating) -> None:
    @weavelet.on_config("first", initial=1)
    def set_first(value: int) -> Callable[[], None]:
        def undo() -> None:
            raise OSError("the file is gone")

        return undo

    declare_rate(weavelet)
    background = operating.set(first=2, learning_rate=0.666)
    with pytest.raises(UndoError, match="the file is gone"):
        train(weavelet, lambda: background.done)
    assert [each.outcome for each in background.result.outcomes] == ["rejected"]


def test_a_value_out_of_bounds_never_reaches_the_trainer(weavelet: Weavelet, operating: Operating) -> None:
    seen = declare_rate(weavelet)
    train_while(weavelet, operating.set(learning_rate=0.5))
    with pytest.raises(Exception, match=r"learning_rate: 3\.0 is out of bounds"):
        train_while(weavelet, operating.set(learning_rate=3.0))
    assert seen == [0.5]


def test_a_command_reports_what_its_handler_returned(weavelet: Weavelet, operating: Operating) -> None:
    @weavelet.on_command("save")
    def save(name: str, keep: int = 1) -> str:
        return f"{name}-{keep}"

    result = train_while(weavelet, operating.command("save", name="best"))
    assert result.outcomes[0].detail == "best-1"


def test_an_immediate_undo_that_raises_surfaces_from_tick(
    weavelet: Weavelet, operator: SyncOperator, run: str
) -> None:
    def fail() -> None:
        raise OSError("gone")

    @weavelet.on_config("first", initial=False, immediate=True)
    def set_first(value: bool) -> Callable[[], None]:
        return fail

    @weavelet.on_config("second", initial=False, immediate=True)
    def set_second(value: bool) -> None:
        raise ValueError("no")

    until_declared(operator, run, "first", "second")
    result = operator.set(run, {"first": True, "second": True}, mode="immediate")
    assert [each.outcome for each in result.outcomes] == ["rejected"]
    with pytest.raises(UndoError, match="gone"):
        weavelet.tick()
    weavelet.tick()


def test_one_that_joins_late_gets_the_config(
    weavelet: Weavelet, operating: Operating, endpoint: str, run: str
) -> None:
    declare_rate(weavelet)
    train_while(weavelet, operating.set(learning_rate=0.7))
    weavelet.close()
    late = Weavelet(run, broker=endpoint, attempt="one")
    seen = declare_rate(late)
    with late:
        assert late.wait_until_active(DEADLINE)
        late.safe_point()
        assert seen == [0.7]
        assert late.step == 0


def test_a_new_attempt_begins_with_the_trainers_own_values_unless_it_inherits(
    weavelet: Weavelet, operating: Operating, endpoint: str, run: str
) -> None:
    declare_rate(weavelet)
    train_while(weavelet, operating.set(learning_rate=0.7))
    for attempt, inherit, expected in [("two", True, [0.7]), ("three", False, [])]:
        with Weavelet(run, broker=endpoint, attempt=attempt, inherit=inherit) as another:
            seen = declare_rate(another)
            assert another.wait_until_active(DEADLINE)
            another.safe_point()
            assert seen == expected


def test_one_that_inherits_joins_once_its_keys_are_declared(
    weavelet: Weavelet, operating: Operating, endpoint: str, run: str, operator: SyncOperator
) -> None:
    declare_rate(weavelet)
    train_while(weavelet, operating.set(learning_rate=0.7))
    with Weavelet(run, broker=endpoint, attempt="two", inherit=True) as another:
        for _ in range(50):  # round trips: enough time to say hello
            assert [each.replica for each in operator.replicas(run)] == [weavelet.replica_id]
        seen = declare_rate(another)
        train(another, lambda: seen == [0.7])


def test_an_immediate_change_does_not_overtake_what_waits(
    weavelet: Weavelet, operator: SyncOperator, run: str
) -> None:
    @weavelet.on_config("verbose", initial=0, immediate=True)
    def set_verbose(value: int) -> None:
        values.append(value)

    values: list[int] = []
    until_declared(operator, run, "verbose")
    operator.set(run, {"verbose": 1}, mode="next", wait=False)
    assert weavelet._arrived.wait(DEADLINE)
    weavelet._arrived.hush()
    second = Background(lambda: operator.set(run, {"verbose": 2}, mode="immediate"))
    assert weavelet._arrived.wait(DEADLINE)
    assert values == []
    assert train_while(weavelet, second).applied_everywhere
    assert values == [1, 2]


# --- pause ---------------------------------------------------------------------------------------


def test_a_pause_holds_the_training_and_serves_changes_meanwhile(
    weavelet: Weavelet, operating: Operating, operator: SyncOperator, run: str
) -> None:
    seen = declare_rate(weavelet)
    pause = operating.command("pause")

    def operate() -> Result:
        assert pause.result.applied_everywhere
        paused = status(operator, run, lambda each: each.state == "paused")
        assert paused.step == weavelet.step
        assert PAUSE_LIMIT - DEADLINE < (paused.pause_left or 0) < PAUSE_LIMIT
        changed = operator.set(run, {"learning_rate": 0.3})
        assert changed.outcomes[0].step == pause.result.outcomes[0].step
        assert weavelet.paused
        return operator.command(run, "resume")

    resumed = train_while(weavelet, Background(operate))
    assert resumed.outcomes[0].step == pause.result.outcomes[0].step
    assert not weavelet.paused
    assert seen == [0.3]
    assert status(operator, run, lambda each: each.state == "live")


def test_a_pause_ends_at_its_limit(weavelet: Weavelet, operating: Operating) -> None:
    began = time.monotonic()
    train_while(weavelet, operating.command("pause", limit=0.3))
    weavelet.tick()
    assert time.monotonic() - began >= 0.3
    assert not weavelet.paused


def test_a_training_that_starts_paused_takes_a_change_for_its_first_step_before_it_trains(
    endpoint: str, operator: SyncOperator, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZLOOM_START_PAUSED", "10")
    with Weavelet(run, broker=endpoint, settings=QUICK) as weavelet:
        seen = declare_rate(weavelet)

        def operate() -> Result:
            assert status(operator, run, lambda each: each.state == "paused").step == 1
            until_declared(operator, run, "learning_rate")
            changed = operator.set(run, {"learning_rate": 0.3}, at_step=1)
            assert [outcome.step for outcome in changed.outcomes] == [1]
            return operator.command(run, "resume")

        resumed = Background(operate)
        assert weavelet.wait_until_active(DEADLINE)
        weavelet.safe_point()
        assert not weavelet.paused  # the first step has not come
        weavelet.tick()
        assert seen == [0.3]
        assert resumed.result.outcomes[0].step == weavelet.step == 1
        weavelet.tick()
        assert not weavelet.paused


def test_a_training_that_starts_paused_goes_on_by_itself_without_a_broker(tmp_path: Path) -> None:
    settings = WeaveletSettings(start_paused=0.2)
    with Weavelet("alone", broker=f"ipc://{tmp_path}/nobody", settings=settings) as weavelet:
        began = time.monotonic()
        weavelet.tick()
        assert time.monotonic() - began >= 0.2
        assert not weavelet.paused


def test_closing_from_elsewhere_ends_a_pause(weavelet: Weavelet, operating: Operating) -> None:
    pause = operating.command("pause", limit=None)

    def close() -> Result:
        result = pause.result
        weavelet.close("another thread said so")
        return result

    train_while(weavelet, Background(close))
    weavelet.tick()
    assert not weavelet.paused


def test_a_pause_ends_at_once_when_the_trainer_says_so(
    weavelet: Weavelet, operating: Operating, operator: SyncOperator, run: str
) -> None:
    def interrupt(*_: object) -> None:
        weavelet.end_pause()

    def end() -> Result:
        assert status(operator, run, lambda each: each.state == "paused")
        os.kill(os.getpid(), signal.SIGUSR1)
        return pause.result

    pause, former = operating.command("pause", limit=None), signal.signal(signal.SIGUSR1, interrupt)
    try:
        train_while(weavelet, Background(end))
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert not weavelet.paused
    assert status(operator, run, lambda each: each.state == "live")


@pytest.mark.parametrize("name", ["stop", "save_and_leave"])
def test_a_command_may_end_the_pause_that_it_came_in_and_stop_does(
    weavelet: Weavelet, operating: Operating, operator: SyncOperator, run: str, name: str
) -> None:
    weavelet.on_command(name)(weavelet.end_pause if name != "stop" else lambda: None)
    pause = operating.command("pause", limit=None)

    def stop() -> Result:
        assert pause.result.applied_everywhere
        return operator.command(run, name)

    assert train_while(weavelet, Background(stop)).applied_everywhere
    assert not weavelet.paused


def test_ctrl_c_leaves_a_pause_and_the_next_tick_holds_again(
    weavelet: Weavelet, operating: Operating, operator: SyncOperator, run: str
) -> None:
    pause = operating.command("pause", limit=None)

    def interrupt() -> Result:
        result = pause.result
        os.kill(os.getpid(), signal.SIGINT)
        return result

    interrupting = Background(interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(weavelet, lambda: False)
    interrupting.result  # noqa: B018 - raises what went wrong
    resuming = Background(lambda: operator.command(run, "resume"))
    weavelet.tick()
    assert resuming.result.applied_everywhere


def test_a_pause_waits_until_it_may(endpoint: str, run: str, operating: Operating) -> None:
    allowed = False
    with Weavelet(run, broker=endpoint, pause_ready=lambda: allowed) as weavelet:
        assert weavelet.wait_until_active(DEADLINE)
        pause = operating.command("pause", limit=0.01)
        train(weavelet, lambda: weavelet._mailbox.waiting)
        for _ in range(3):
            weavelet.tick()
        assert not pause.done
        allowed = True
        assert train_while(weavelet, pause).applied_everywhere


def test_outcomes_leave_before_the_training_takes_the_interpreter_again(
    weavelet: Weavelet, operating: Operating, monkeypatch: pytest.MonkeyPatch
) -> None:
    weavelet.on_config("learning_rate", initial=0.1)(lambda value: None)
    monkeypatch.setattr("zloom.weavelet.HAND_OVER", DEADLINE)
    assert weavelet._engine is not None
    sockets, sent = weavelet._engine._sockets, list[object]()
    send = sockets.send

    def note(message: ToBroker) -> bool:
        sent.append(message)
        return send(message)

    monkeypatch.setattr(sockets, "send", note)
    train(weavelet, lambda: weavelet.state is State.ACTIVE)
    background = operating.set(learning_rate=0.2)
    while not weavelet._mailbox.waiting:
        time.sleep(0.001)  # and makes no step
    interval = sys.getswitchinterval()
    sys.setswitchinterval(DEADLINE)
    try:
        weavelet.tick()
        told = [each for each in sent if isinstance(each, Outcomes)]
    finally:
        sys.setswitchinterval(interval)
    assert [list(each.outcomes) for each in told] == [[1]]
    assert train_while(weavelet, background).applied_everywhere


# --- reports -------------------------------------------------------------------------------------


def test_every_point_arrives_with_its_step(weavelet: Weavelet, operator: SyncOperator, run: str) -> None:
    steps: list[int] = []
    values: list[float] = []
    with operator.watch(run) as feed:
        for number in range(200):
            weavelet.tick()
            weavelet.report(loss=number / 10)
        for each in feed:
            if isinstance(each, Reported) and "loss" in each.metrics:
                steps += each.metrics["loss"].steps
                values += each.metrics["loss"].values
            if len(steps) >= 200:
                break
    assert steps == list(range(1, 201))
    assert values == [number / 10 for number in range(200)]


def test_a_burst_of_points_does_not_wait_for_a_beat_each(
    weavelet: Weavelet, operator: SyncOperator, run: str
) -> None:
    count, begun = 50_000, time.monotonic()
    with operator.watch(run) as feed:
        for number in range(count):
            weavelet.tick()
            weavelet.report(loss=number)
        values: list[float] = []
        for each in feed:
            if isinstance(each, Reported) and "loss" in each.metrics:
                values += each.metrics["loss"].values
            if len(values) >= count:
                break
    assert values == list(range(count))
    beats = count / QUICK.status_points
    assert time.monotonic() - begun < beats / 2, "a beat for each status, were it not sent on at once"


def test_a_weavelet_before_its_process_group_warns_of_the_line_that_made_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.warns(RuntimeWarning, match="2 ranks, but torch.distributed is not initialised") as told:
        Weavelet("run", attempt="one")
    assert [each.filename for each in told] == [__file__]
    Weavelet("run", attempt="one", world_size=2)  # said on purpose: no warning


def test_what_is_declared_while_a_status_is_collected_goes_before_it(
    weavelet: Weavelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect, send = StatusSource.collect, SessionSockets.send
    sent: list[ToBroker] = []
    told = threading.Event()

    def collect_late(self: StatusSource, now: float, *, look: bool = True) -> Status:
        status = collect(self, now, look=look)
        if not sent:
            weavelet.on_command("late")(lambda: None)
            sent.append(status)
        return status

    def note(self: SessionSockets, message: ToBroker) -> bool:
        if sent and isinstance(message, Declare | Status):
            sent.append(message)
            told.set()
        return send(self, message)

    monkeypatch.setattr(StatusSource, "collect", collect_late)
    monkeypatch.setattr(SessionSockets, "send", note)
    weavelet.tick()
    assert told.wait(DEADLINE)
    assert isinstance(sent[1], Declare)


def test_who_sees_a_step_sees_what_was_declared_before_it(
    weavelet: Weavelet, operator: SyncOperator, run: str
) -> None:
    seen, ended = set[int](), threading.Event()

    def declare_and_step() -> None:
        for number in itertools.count(1):
            weavelet.on_config(f"key{number}", initial=0, type=int)(lambda _: None)
            weavelet.tick()
            with weavelet.phase("validating"):  # has a status told soon
                if ended.wait(0.01):
                    return

    training = threading.Thread(target=declare_and_step)
    training.start()
    try:
        end = time.monotonic() + DEADLINE
        while len(seen) < 20:
            assert time.monotonic() < end, f"only steps {seen} were seen"
            (replica,) = operator.replicas(run)
            declared = {each.key.name for each in operator.keys(run).keys}
            assert {f"key{number}" for number in range(1, (replica.step or 0) + 1)} <= declared
            seen.add(replica.step or 0)
    finally:
        ended.set()
        training.join(DEADLINE)


def test_a_phase_is_told_at_once_and_ends_with_its_block(
    weavelet: Weavelet, operator: SyncOperator, run: str
) -> None:
    with weavelet.phase("validating"):
        assert status(operator, run, lambda each: each.phase == "validating")
        with pytest.raises(SettingsError, match="phase is 'sleeping'; expected one of training, validating"):
            weavelet.phase("sleeping")  # type: ignore[arg-type]
    assert status(operator, run, lambda each: each.phase == "training")


def test_steps_are_counted_on_when_the_trainer_names_them_wrongly(run: str, endpoint: str) -> None:
    weavelet = Weavelet(run, broker=endpoint)
    weavelet.start()
    weavelet.tick()
    weavelet.tick(10)
    with pytest.warns(RuntimeWarning, match=r"tick\(10\) does not increase; steps are counted on, now 11"):
        weavelet.tick(10)
    weavelet.tick(3)  # warned of once
    assert weavelet.step == 12
    weavelet.close()


@pytest.mark.parametrize("named", [2**60, MAX_COUNT])
def test_g8_a_step_from_which_no_message_could_hold_the_next_ends_no_steering(
    named: int, weavelet: Weavelet, operating: Operating, operator: SyncOperator, run: str
) -> None:
    declare_rate(weavelet)
    weavelet.tick(7)
    with pytest.warns(
        RuntimeWarning, match=r"tick\(\d+\) is beyond 2\^52, which no training reaches; .* now 8"
    ):
        weavelet.tick(named)
    weavelet.tick()
    result = train_while(weavelet, operating.set(learning_rate=0.5))
    assert result.applied_everywhere
    assert status(operator, run, lambda each: 8 < (each.step or 0) < MAX_COUNT)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
def test_g8_what_a_handler_raises_on_the_weavelets_thread_ends_no_steering(
    error: type[BaseException], weavelet: Weavelet, operator: SyncOperator, run: str
) -> None:
    taken = threading.Event()

    @weavelet.on_config("now", initial=0, immediate=True)
    def set_now(value: int) -> None:
        if value == 1:
            raise error("no")

    def take(topic: str, payload: bytes, sender: str) -> None:
        taken.set()
        raise error("no")

    weavelet.subscribe("net/", take)
    until_declared(operator, run, "now")
    while not taken.wait(0.05):  # the subscription is on its way
        weavelet.publish("net/bandwidth", b"7")
    refused = operator.set(run, {"now": 1}, mode="immediate", timeout=DEADLINE)
    assert [each.error.endswith(f"{error.__name__}: no") for each in refused.outcomes] == [True]
    assert operator.set(run, {"now": 2}, mode="immediate", timeout=DEADLINE).applied_everywhere


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_g12_a_weavelet_whose_thread_was_ended_says_so_and_leaves(
    weavelet: Weavelet, operator: SyncOperator, run: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert weavelet.wait_until_active(DEADLINE)
    assert weavelet._thread is not None
    weavelet._call(sys.exit)
    weavelet._thread.join(DEADLINE)
    assert not weavelet._thread.is_alive()
    assert "the weavelet's thread has ended; the training goes on unsteered" in caplog.text
    until_finished(operator, run, "failed: its weavelet has ended")
    weavelet.tick()


@pytest.mark.parametrize("turn", range(5))
def test_one_that_fails_before_it_is_welcomed_says_why(
    endpoint: str, operator: SyncOperator, run: str, turn: int
) -> None:
    """Its hello is on its way to the disk: it was taken for one that had died without a word."""
    with Weavelet(run, broker=endpoint, settings=QUICK) as weavelet:
        if turn:  # else it looks for devices before its hello
            until_hello(weavelet)
        weavelet.close("failed: ZeroDivisionError")
    until_finished(operator, run, "failed: ZeroDivisionError")


def test_one_where_nobody_listens_waits_for_no_welcome(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introduction, "FIRST_ANSWER", DEADLINE)
    with free_endpoint("ipc") as nowhere, Weavelet(run, broker=nowhere) as weavelet:
        until_hello(weavelet)
        weavelet.close()
        assert weavelet._thread is not None
        assert not weavelet._thread.is_alive()


def test_a_trainer_that_forgot_to_start_its_weavelet_is_warned_once(run: str, endpoint: str) -> None:
    weavelet = Weavelet(run, broker=endpoint)
    with pytest.warns(
        RuntimeWarning, match=r"never started, .*; use it in a `with` block, or call start\(\)"
    ) as warned:
        weavelet.tick()
    assert [each.filename for each in warned] == [__file__]
    weavelet.tick()
    assert weavelet.step == 2
    weavelet.close()
    weavelet.tick()


def test_own_topics_reach_a_trainer(weavelet: Weavelet, operator: SyncOperator) -> None:
    got: list[tuple[str, bytes, str]] = []
    arrived = threading.Event()

    def take(topic: str, payload: bytes, sender: str) -> None:
        got.append((topic, payload, sender))
        arrived.set()
        raise ValueError("a subscriber's error is logged")

    weavelet.subscribe("net/", take)
    with operator.subscribe("net/") as feed:
        while not arrived.wait(0.05):  # the weavelet's own subscription is on its way
            weavelet.publish("net/bandwidth", b"7")
        assert next(feed).payload == b"7"
    assert got[0] == ("net/bandwidth", b"7", weavelet.replica_id)


def test_a_failure_reaches_a_training_that_hangs(
    weavelet: Weavelet, operator: SyncOperator, run: str
) -> None:
    failures: list[Failure] = []
    told = threading.Event()

    @weavelet.on_failure
    def fails(failure: Failure) -> None:
        raise RuntimeError("this one is logged, and the next is told all the same")

    @weavelet.on_failure
    def note(failure: Failure) -> None:
        failures.append(failure)
        told.set()

    [device] = [each for each in operator.devices() if weavelet.replica_id in each.replicas]
    operator.fail_device(device.device.id, "it burns")
    assert told.wait(DEADLINE)
    assert [(each.device, each.reason) for each in failures] == [(device.device.id, "it burns")]


def test_devices_that_are_found_late_are_told(endpoint: str, run: str, operator: SyncOperator) -> None:
    found = threading.Event()

    class Slow:
        """A driver in trouble."""

        def devices(self) -> list[Device]:
            found.wait(DEADLINE)
            return [Device("GPU-slow", "A GPU", "gpu", 0)]

        def status(self) -> list[object]:
            return []

        def close(self) -> None:
            return

    quick = WeaveletSettings(device_patience=0.05)
    with (
        operator.watch(run) as feed,
        Weavelet(run, broker=endpoint, settings=quick, devices=Slow()) as weavelet,  # type: ignore[arg-type]
    ):
        assert weavelet.wait_until_active(DEADLINE)
        assert operator.replicas(run)[0].devices == []
        found.set()
        assert any(isinstance(each, Reported) and each.status.devices == ["GPU-slow"] for each in feed)


# --- life ----------------------------------------------------------------------------------------


def test_goodbye_says_why(endpoint: str, run: str, operator: SyncOperator) -> None:
    with operator.watch(run) as feed:
        with contextlib.suppress(ValueError), Weavelet(run, broker=endpoint) as weavelet:
            assert weavelet.wait_until_active(DEADLINE)
            raise ValueError("the loss diverged")
        finished = next(each for each in feed if isinstance(each, Happened) and each.event.kind == "finished")
    assert "failed: ValueError: the loss diverged" in finished.event.text


@pytest.mark.parametrize("leaves", [False, True], ids=["returns", "exits"])
def test_a_handler_that_closes_the_weavelet_answers_first(
    weavelet: Weavelet, operator: SyncOperator, run: str, operating: Operating, leaves: bool
) -> None:
    @weavelet.on_command("stop")
    def stop() -> str:
        weavelet.close("stopped by hand")
        if leaves:
            sys.exit(3)
        return "stops"

    stopped = operating.command("stop")
    with pytest.raises(SystemExit) if leaves else contextlib.nullcontext():
        train(weavelet, lambda: not weavelet._thread.is_alive())  # type: ignore[union-attr]
    (outcome,) = stopped.result.outcomes
    assert outcome.outcome == ("rejected" if leaves else "applied")
    until_finished(operator, run, "stopped by hand")


def test_what_was_not_reached_is_said(endpoint: str, run: str, operator: SyncOperator) -> None:
    with operator.watch(run) as feed, Weavelet(run, broker=endpoint) as weavelet:
        assert weavelet.wait_until_active(DEADLINE)
        declare_rate(weavelet)
        until_declared(operator, run, "learning_rate")
        operator.set(run, {"learning_rate": 0.5}, wait=False)
        weavelet.close()
        answered = next(each for each in feed if isinstance(each, Answered))
    assert [each.outcome for each in answered.outcomes] == ["not_reached"]


def test_what_is_published_must_be_text_and_bytes(run: str) -> None:
    weavelet: Any = Weavelet(run)
    with pytest.raises(SettingsError, match=r"payload is of type str; expected bytes"):
        weavelet.publish("net/", "text")
    for topic in (b"net/", "net/\udc80"):
        with pytest.raises(SettingsError, match=r"topic is b?'net/.*'; expected a str of Unicode"):
            weavelet.publish(topic, b"bytes")


def test_g8_a_subscription_that_cannot_be_is_refused_and_steering_begins(endpoint: str, run: str) -> None:
    weavelet = Weavelet(run, broker=endpoint)
    with pytest.raises(SettingsError, match=r"topic is 'net/\\udc80'; expected a str of Unicode"):
        weavelet.subscribe("net/\udc80", lambda *_: None)
    with weavelet:
        assert weavelet.wait_until_active(DEADLINE)


def test_without_a_broker_training_goes_on_with_one_warning(
    run: str, caplog: pytest.LogCaptureFixture
) -> None:
    with free_endpoint("ipc") as nowhere, Weavelet(run, broker=nowhere) as weavelet:
        began = time.monotonic()
        for _ in range(10_000):
            weavelet.tick()
            weavelet.report(loss=1.0)
        weavelet.publish("net/", b"lost")
        assert not weavelet.wait_until_active(0.01)
        assert time.monotonic() - began < 2.0
        assert weavelet.state in (State.NEW, State.CONNECTING)
        assert weavelet.counters is not None
        began = time.monotonic()
    assert time.monotonic() - began < 1.0
    weavelet.tick()
    weavelet.report(loss=1.0)
    assert weavelet.step == 10_001


def test_it_finds_a_broker_that_comes_later_and_one_that_comes_back(tmp_path: Path, run: str) -> None:
    with free_endpoint("ipc") as endpoint, Weavelet(run, broker=endpoint, attempt="one") as weavelet:
        seen = declare_rate(weavelet)
        for value in (0.2, 0.3):
            with broker_thread(tmp_path, endpoint), connect_sync(endpoint) as operator:
                assert weavelet.wait_until_active(DEADLINE)
                assert status(operator, run, lambda each: each.state == "live")
                changing = Operating(operator, run).set(learning_rate=value)
                assert train_while(weavelet, changing).applied_everywhere
            assert seen[-1] == value
        assert weavelet.counters is not None
        assert weavelet.counters.session.bad_messages == 0


def test_a_weavelet_is_started_once(weavelet: Weavelet) -> None:
    with pytest.raises(SettingsError, match="started once"):
        weavelet.start()
    weavelet.close()
    weavelet.close()
    with pytest.raises(SettingsError, match="started once"):
        weavelet.start()


TOO_LONG = f"ipc:///tmp/{'x' * 200}"
"""More than the path of a socket may have."""


def test_an_endpoint_that_cannot_be_is_refused_at_the_start(run: str) -> None:
    with pytest.raises(TransportError, match="cannot connect to"):
        Weavelet(run, broker=TOO_LONG).start()


class SlowContext(zmq.Context["zmq.Socket[bytes]"]):
    """The context of a node on which nothing gets on until it is told to."""

    gate = threading.Event()

    def socket(self, *args: Any, **kwargs: Any) -> "zmq.Socket[bytes]":
        self.gate.wait(DEADLINE)
        return super().socket(*args, **kwargs)


@pytest.fixture
def slow_context(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowContext]:
    monkeypatch.setattr("zloom.weavelet.START_TIMEOUT", 0.05)
    monkeypatch.setattr(SlowContext, "gate", threading.Event())
    context = SlowContext()
    yield context
    context.gate.set()
    context.destroy(linger=0)


SLOW = "has not begun within 0.05 s; the training goes on unsteered until it has"


@pytest.mark.parametrize("inherit", [False, True])
def test_a_thread_that_begins_late_holds_up_no_training(
    endpoint: str, run: str, operating: Operating, slow_context: SlowContext, inherit: bool
) -> None:
    weavelet = Weavelet(run, broker=endpoint, context=slow_context, inherit=inherit)
    with pytest.warns(RuntimeWarning, match=SLOW):
        weavelet.start()
    seen = declare_rate(weavelet)
    weavelet.tick()
    weavelet.report(loss=1.0)
    assert not weavelet.wait_until_active(0.01)
    slow_context.gate.set()
    assert weavelet.wait_until_active(DEADLINE)
    assert train_while(weavelet, operating.set(learning_rate=0.5)).applied_everywhere
    assert seen == [0.5]
    weavelet.close()


def test_a_thread_that_begins_after_the_end_does_nothing(
    endpoint: str, run: str, slow_context: SlowContext
) -> None:
    quick = WeaveletSettings(close_timeout=0.05)
    weavelet = Weavelet(run, broker=endpoint, context=slow_context, settings=quick)
    with pytest.warns(RuntimeWarning, match=SLOW):
        weavelet.start()
    weavelet.close()
    slow_context.gate.set()
    assert weavelet._thread is not None
    weavelet._thread.join(DEADLINE)
    assert not weavelet._thread.is_alive()
    assert weavelet.state is State.CLOSED


def test_an_endpoint_that_cannot_be_is_said_late_when_the_thread_is(
    run: str, slow_context: SlowContext, caplog: pytest.LogCaptureFixture
) -> None:
    weavelet = Weavelet(run, broker=TOO_LONG, context=slow_context)
    with pytest.warns(RuntimeWarning, match=SLOW):
        weavelet.start()
    slow_context.gate.set()
    assert weavelet._thread is not None
    weavelet._thread.join(DEADLINE)
    assert [each.message.partition(" ipc")[0] for each in caplog.records] == ["cannot connect to"]
    weavelet.tick()
    weavelet.close()


def test_without_a_thread_to_be_had_the_training_goes_on(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    weavelet = Weavelet(run, broker="ipc:///nowhere")
    with pytest.warns(RuntimeWarning, match="could not begin .*; the training goes on unsteered"):
        weavelet.start()
    weavelet.tick()
    weavelet.report(loss=1.0)
    assert not weavelet.wait_until_active(DEADLINE)
    weavelet.close()
    assert weavelet.step == 1


@pytest.mark.fault("trainer: a forked child that uses the weavelet", "told")
def test_a_forked_child_does_nothing_and_the_parent_goes_on(weavelet: Weavelet, operating: Operating) -> None:
    seen = declare_rate(weavelet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on: this process has threads
        child = os.fork()
    if child == 0:
        code = 2
        signal.alarm(10)
        try:
            code = _use_in_child(weavelet)
        finally:  # whatever happens, pytest goes on in the parent alone
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert train_while(weavelet, operating.set(learning_rate=0.5)).applied_everywhere
    assert seen == [0.5]
    assert weavelet.state is State.ACTIVE


def _use_in_child(weavelet: Weavelet) -> int:
    step = weavelet.step
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        weavelet.tick()
        assert len(caught) == 1
        for _ in range(3):
            weavelet.tick()
            weavelet.safe_point()
            weavelet.report(loss=1.0)
        with weavelet.phase("saving"):
            weavelet.publish("net/", b"1")
        declare_rate(weavelet)
        weavelet.on_command("save")(lambda: None)
        weavelet.subscribe("net/", lambda *_: None)
        assert not weavelet.wait_until_active(DEADLINE)
        weavelet.close()
        del weavelet
        gc.collect()
    warned = [each for each in caught if "forked" in str(each.message)]
    return 0 if len(warned) == 1 and step == 0 else 1


# --- the interpreter's exit ----------------------------------------------------------------------

TRAINER = """
import sys, threading, time
from zloom import Weavelet
weavelet = Weavelet("run", broker=sys.argv[1], attempt="one")
weavelet.start()
if sys.argv[2] == "active":
    assert weavelet.wait_until_active(20)
for _ in range(1000):
    weavelet.tick()
    weavelet.report(loss=1.0)
    weavelet.publish("net/", b"x" * 1000)
print("trained", flush=True)
if sys.argv[2] == "active":
    input()
print(time.time(), flush=True)
"""


def _trainer(endpoint: str, mode: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "error", "-c", TRAINER, endpoint, mode]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_process_that_closes_nothing_leaves_within_2_s_without_a_broker() -> None:
    with free_endpoint("ipc") as nowhere, _trainer(nowhere, "alone") as trainer:
        out, _ = trainer.communicate(timeout=DEADLINE)
        assert time.time() - float(out.split()[1]) < 2.0
    assert trainer.returncode == 0


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.fault("trainer: closes nothing, with a broker that died or hangs", "left")
def test_a_process_leaves_within_2_s_of_a_broker_that_died_or_hangs(
    tmp_path: Path, sign: signal.Signals
) -> None:
    with (
        free_endpoint("ipc") as endpoint,
        broker_process(tmp_path / "data", endpoint) as broker,
        _trainer(broker.endpoint, "active") as trainer,
    ):
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "trained\n"
        broker.process.send_signal(sign)
        out, _ = trainer.communicate("\n", timeout=DEADLINE)
        assert time.time() - float(out) < 2.0
        broker.process.send_signal(signal.SIGCONT)
    assert trainer.returncode == 0


def test_a_process_that_closes_nothing_says_goodbye(endpoint: str, operator: SyncOperator) -> None:
    with operator.watch("run") as feed, _trainer(endpoint, "active") as trainer:
        trainer.communicate("\n", timeout=DEADLINE)
        finished = next(each for each in feed if isinstance(each, Happened) and each.event.kind == "finished")
    assert "the process ended" in finished.event.text


CRASHES = """
import sys, types
sys.modules["IPython"] = types.ModuleType("IPython")  # imported by a library, and no shell of it runs
from zloom import Weavelet
weavelet = Weavelet(sys.argv[1], broker=sys.argv[2])
weavelet.start()
assert weavelet.wait_until_active(20)
raise ValueError("boom")
"""


def test_a_process_that_crashes_says_so_where_ipython_was_imported(
    endpoint: str, operator: SyncOperator, run: str
) -> None:
    command = [sys.executable, "-c", CRASHES, run, endpoint]
    ended = subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False)
    assert b"ValueError: boom" in ended.stderr
    until_finished(operator, run, "failed: ValueError: boom")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "finished"),
        (SystemExit(), "finished"),
        (SystemExit(0), "finished"),
        (SystemExit(3), "failed: SystemExit: 3"),
        (KeyboardInterrupt(), "interrupted"),
        (asyncio.CancelledError(), "interrupted"),
        (ValueError("the loss diverged"), "failed: ValueError: the loss diverged"),
    ],
)
def test_how_a_training_ended_is_told_in_words(error: BaseException | None, reason: str) -> None:
    assert reason_of(error) == reason


def test_a_metric_may_have_any_name(weavelet: Weavelet, operator: SyncOperator, run: str) -> None:
    with operator.watch(run) as feed:
        weavelet.report(self=1.0, metrics=2.0)
        named = next(each.metrics for each in feed if isinstance(each, Reported) and each.metrics)
    assert named.keys() == {"self", "metrics"}


def test_a_surprise_does_not_end_its_tries_to_reach_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    send = SessionSockets.send
    surprised: list[ToBroker] = []

    def surprise(sockets: SessionSockets, message: ToBroker) -> bool:
        if not surprised:
            surprised.append(message)
            raise RuntimeError("nobody thought of this")
        return send(sockets, message)

    monkeypatch.setattr(SessionSockets, "send", surprise)
    with Weavelet("run", broker="ipc:///tmp/zloom-nobody.sock", attempt="one") as weavelet:
        end = time.monotonic() + DEADLINE
        while weavelet.counters is None or weavelet.counters.session.hellos < 2:
            assert time.monotonic() < end, "it has ended"
            time.sleep(0.01)
    assert surprised


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # so it is told
def test_a_surprise_at_the_end_does_not_keep_it_from_saying_goodbye(
    weavelet: Weavelet, operator: SyncOperator, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(*_: object) -> Status:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(StatusSource, "collect", surprise)
    weavelet.report(loss=0.5)
    assert weavelet._thread is not None
    weavelet.close()
    assert not weavelet._thread.is_alive()
    until_finished(operator, run, "finished")
