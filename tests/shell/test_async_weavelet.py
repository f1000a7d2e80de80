"""A weavelet on a running loop: against a real broker over all transports, and against a scripted one."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

import zloom
from tests.support import DEADLINE, TRANSPORTS, RunningBroker, Transport, free_endpoint, running_broker
from zloom import codec, status_source
from zloom import messages as m
from zloom.async_weavelet import AsyncWeavelet
from zloom.client import Operator, Result
from zloom.hold_watch import HoldWatch
from zloom.model import MAX_METRICS, Outcome, Revision
from zloom.session_effects import CollectStatus
from zloom.session_state import State
from zloom.socket_options import Context, new_context
from zloom.sockets import DrainSocket

T = TypeVar("T")
TOO_LONG = 2 * codec.MAX_MESSAGE_SIZE


@pytest.fixture(params=TRANSPORTS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunningBroker]:
    transport: Transport = request.param
    async with running_broker(tmp_path, transport) as broker:
        yield broker


@asynccontextmanager
async def steered(broker: RunningBroker) -> AsyncIterator[tuple[AsyncWeavelet, Operator]]:
    """A weavelet with two keys, declared before the start, and an operator."""
    weavelet = AsyncWeavelet("run", broker=broker.endpoint, attempt="one", context=broker.context)

    @weavelet.on_config("learning_rate", initial=0.1)
    def set_learning_rate(value: float) -> None:
        if value < 0:
            raise ValueError("below 0")

    async with weavelet, zloom.connect(broker.endpoint, context=broker.context) as operator:
        assert await weavelet.wait_until_active(DEADLINE)
        yield weavelet, operator


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something is true."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


async def train_while(weavelet: AsyncWeavelet, request: "asyncio.Task[T]") -> T:
    async with asyncio.timeout(DEADLINE):
        while not request.done():
            await weavelet.tick()
            await asyncio.sleep(0)
    return request.result()


async def test_a_change_a_refusal_of_the_handler_and_a_pause(
    broker: RunningBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async with steered(broker) as (weavelet, operator):
        request = asyncio.create_task(operator.set("run", {"learning_rate": 0.5}))
        assert (await train_while(weavelet, request)).applied_everywhere
        request = asyncio.create_task(operator.set("run", {"learning_rate": -1.0}))
        [outcome] = (await train_while(weavelet, request)).outcomes
        assert (outcome.outcome, outcome.error) == ("rejected", "learning_rate: ValueError: below 0")
        assert "the handler of learning_rate raised; what was asked for is rejected\nTraceback" in caplog.text
        assert "in set_learning_rate\n" in caplog.text
        request = asyncio.create_task(_pause_and_resume(weavelet, operator))
        assert (await train_while(weavelet, request)).applied_everywhere
        assert not weavelet.paused
    assert weavelet.state is State.CLOSED


async def _pause_and_resume(weavelet: AsyncWeavelet, operator: Operator) -> Result:
    paused = await operator.pause("run")
    step = weavelet.step
    changed = await operator.set("run", {"learning_rate": 0.4})
    assert weavelet.paused
    assert [each.step for each in (*paused.outcomes, *changed.outcomes)] == [step, step]
    return await operator.resume("run")


async def test_closing_ends_a_pause(broker: RunningBroker) -> None:
    async with steered(broker) as (weavelet, operator):
        request = asyncio.create_task(operator.pause("run"))
        training = asyncio.create_task(train_while(weavelet, request))
        await request
        await weavelet.close()
        async with asyncio.timeout(DEADLINE):
            await training


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")  # these ranks share no store
async def test_g9_ranks_whose_handlers_close_end_the_change_first_on_all_of_them(
    broker: RunningBroker,
) -> None:
    closing: list[asyncio.Task[None]] = []

    async def train(rank: int) -> None:
        weavelet = AsyncWeavelet(
            "run", broker=broker.endpoint, attempt="one", rank=rank, world_size=2, context=broker.context
        )

        @weavelet.on_config("rate", initial=1.0)
        def change(value: float) -> None:
            closing.append(asyncio.create_task(weavelet.close("it has its rate")))

        async with weavelet:
            while weavelet.state is not State.CLOSED:
                await weavelet.tick()
                await asyncio.sleep(0.001)

    async with (
        zloom.connect(broker.endpoint, context=broker.context) as operator,
        asyncio.TaskGroup() as ranks,
    ):
        for rank in range(2):
            ranks.create_task(train(rank))
        paces: dict[int, object] = {}
        async with operator.watch("run") as feed:
            async for told in feed:
                if isinstance(told, m.Reported):
                    paces[told.status.rank] = told.status.step_time
                    if len(paces) == 2 and None not in paces.values():
                        break
        result = await operator.set("run", {"rate": 2.0})
    await asyncio.gather(*closing)
    assert [each.outcome for each in result.outcomes] == ["applied", "applied"]


async def test_another_thread_may_end_a_pause(broker: RunningBroker) -> None:
    asyncio.get_running_loop().set_debug(True)  # so that what only this thread may do raises in another
    async with steered(broker) as (weavelet, operator):
        request = asyncio.create_task(operator.pause("run"))
        training = asyncio.create_task(train_while(weavelet, request))
        await request
        async with asyncio.timeout(DEADLINE), operator.watch("run") as feed:
            await asyncio.to_thread(weavelet.depart, "SIGTERM")
            await training
            assert await anext(
                each async for each in feed if isinstance(each, m.Reported) and each.status.state == "live"
            )
    assert not weavelet.paused


async def test_reports_and_own_topics(broker: RunningBroker) -> None:
    async with steered(broker) as (weavelet, operator):
        got: asyncio.Queue[bytes] = asyncio.Queue()
        weavelet.subscribe("net/", lambda topic, payload, sender: got.put_nowait(payload))
        async with operator.watch("run") as feed, asyncio.timeout(DEADLINE):
            await weavelet.tick(7)
            weavelet.report(loss=0.5)
            with weavelet.phase("saving"):
                assert await anext(
                    each.metrics["loss"].steps.tolist()
                    async for each in feed
                    if isinstance(each, m.Reported) and "loss" in each.metrics
                ) == [7]
            await operator.publish("net/x", b"1")
            assert await got.get() == b"1"


async def test_what_is_too_long_is_dropped_and_counted(
    broker: RunningBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async with steered(broker) as (weavelet, _):
        weavelet.publish("net/", b"x" * TOO_LONG)
        assert weavelet.counters is not None
        assert weavelet.counters.unsent == 1
        assert weavelet.state is State.ACTIVE
    assert [each.levelno for each in caplog.records if "Publish has" in each.message] == [logging.WARNING]


# --- a scripted broker ---------------------------------------------------------------------------


class Script:
    """The broker's sockets, with what a test says in them."""

    def __init__(self, context: Context, endpoint: str) -> None:
        self.control = DrainSocket(context, "router", self._on_control)
        self.updates = DrainSocket(context, "xpub", self._on_subscription)
        self.endpoint = self.control.bind(endpoint)
        self.updates_endpoint = self.updates.bind(f"{endpoint}.updates")
        self.peer = b""
        self.topics: list[bytes] = []
        self._inbox: asyncio.Queue[m.ToBroker] = asyncio.Queue()

    def _on_control(self, frames: list[bytes]) -> None:
        self.peer = frames[0]
        self._inbox.put_nowait(codec.to_broker.decode(codec.control_payload(frames[1:])))

    def _on_subscription(self, frames: list[bytes]) -> None:
        topic = frames[0][1:]
        self.topics.append(topic)
        if frames[0][:1] == b"\1" and topic.startswith(b"echo/"):
            self.publish(topic, m.Echo(nonce=topic.decode().split("/")[1]))

    async def expect(self, kind: type[T]) -> T:
        """Return the next message of a kind."""
        async with asyncio.timeout(DEADLINE):
            while not isinstance(message := await self._inbox.get(), kind):
                continue
        return message

    def send(self, message: m.Message) -> None:
        self.control.send([self.peer, *codec.control_frames(message)])

    def publish(self, topic: bytes, message: m.Message) -> None:
        self.updates.send([topic, codec.encode(message)])

    def close(self) -> None:
        self.control.close()
        self.updates.close()

    def welcome(self, updates: str) -> m.Welcome:
        """A welcome after which nothing happens by itself for a long while."""
        size = codec.MAX_MESSAGE_SIZE
        return m.Welcome(
            protocol=1, epoch="e1", updates=updates, beat=30.0, credit=100, max_message_size=size
        )

    async def activate(self) -> m.Hello:
        """Take the weavelet from its hello to being active at revision 0."""
        hello = await self.expect(m.Hello)
        self.send(self.welcome(self.updates_endpoint))
        await self.expect(m.Sync)
        self.send(m.Snapshot(epoch="e1", revision=0, chain=b""))
        return hello


@pytest.fixture
def context() -> Iterator[Context]:
    context = new_context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
async def script(context: Context) -> AsyncIterator[Script]:
    with free_endpoint("ipc") as endpoint:
        script = Script(context, endpoint)
        yield script
        script.close()


@pytest.fixture
async def weavelet(script: Script) -> AsyncIterator[AsyncWeavelet]:
    async with AsyncWeavelet("run", broker=script.endpoint, attempt="one") as weavelet:
        yield weavelet


async def test_the_hello_says_who_it_is(script: Script, weavelet: AsyncWeavelet) -> None:
    hello = await script.activate()
    assert await weavelet.wait_until_active(DEADLINE)
    assert hello.endpoint == script.endpoint
    assert hello.replica is not None
    assert (hello.replica.id, hello.replica.run, hello.replica.attempt) == (weavelet.replica_id, "run", "one")
    assert [each.name for each in hello.replica.commands] == ["pause", "resume"]
    assert hello.replica.devices


async def test_a_refusal_is_warned_of_once_and_training_goes_on(
    script: Script, weavelet: AsyncWeavelet, caplog: pytest.LogCaptureFixture
) -> None:
    await script.expect(m.Hello)
    script.send(m.Error(code="protocol_version", text="this broker speaks 2"))
    await until(lambda: weavelet.state is State.CLOSED)
    await weavelet.tick()
    weavelet.report(loss=1.0)
    weavelet.publish("net/", b"1")
    weavelet.on_command("save")(lambda: None)
    assert [each.name for each in caplog.records if "this broker speaks 2" in each.message] == ["zloom"]
    assert weavelet.step == 1


async def test_an_outage_of_the_broker_and_its_end_are_logged(
    script: Script, weavelet: AsyncWeavelet, caplog: pytest.LogCaptureFixture
) -> None:
    await script.expect(m.Hello)
    script.send(replace(script.welcome(script.updates_endpoint), beat=0.01))
    await script.expect(m.Sync)
    await script.activate()  # with the hello that follows the silence
    assert await weavelet.wait_until_active(DEADLINE)
    lost, back = [each.message for each in caplog.records if each.name == "zloom"]
    assert lost.startswith(f"no broker answers at {script.endpoint}; the training goes on")
    assert back.startswith(f"the broker at {script.endpoint} answers again after ")


async def test_reports_without_a_safe_point_are_warned_of_once(
    broker: RunningBroker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_source, "UNTICKED", 0.1)
    async with steered(broker) as (weavelet, _), asyncio.timeout(DEADLINE):
        for _ in range(2):
            while not any("without a call of tick()" in each.message for each in caplog.records):
                weavelet.report(loss=1.0)
                weavelet.phase("training")  # has a status sent
                await asyncio.sleep(0)
    assert sum("without a call of tick()" in each.message for each in caplog.records) == 1


async def test_names_of_metrics_that_never_end_are_warned_of_once(
    script: Script, weavelet: AsyncWeavelet, caplog: pytest.LogCaptureFixture
) -> None:
    await script.activate()
    await weavelet.tick()
    for step in range(2 * MAX_METRICS):
        weavelet.report(**{f"loss/{step}": 0.5})
    while not (status := await script.expect(m.Status)).metrics:
        weavelet.phase("training")
    assert (len(status.metrics), status.dropped) == (MAX_METRICS, MAX_METRICS)
    weavelet.report(another=0.5)
    weavelet.phase("training")
    assert (await script.expect(m.Status)).dropped == MAX_METRICS + 1
    told = [each.message for each in caplog.records if "is the step in the name?" in each.message]
    assert len(told) == 1
    assert told[0].endswith(f"'loss/{MAX_METRICS}'")
    assert weavelet.counters is not None
    assert weavelet.counters.points_dropped == MAX_METRICS + 1


async def test_g11_points_are_not_taken_for_a_status_that_no_credit_is_left_for(
    script: Script, weavelet: AsyncWeavelet
) -> None:
    await script.activate()
    await script.expect(m.Status)
    assert weavelet._engine is not None
    while not weavelet._engine.counters.session.publish_dropped:
        weavelet.publish("net/", b"1")
    weavelet.report(loss=0.5)
    weavelet._engine._carry_out(CollectStatus())
    assert len(weavelet._metrics) == 1
    script.send(m.Credit(received=100))
    while not (status := await script.expect(m.Status)).metrics:
        pass
    assert status.metrics["loss"].values.tolist() == [0.5]


async def test_a_loop_that_is_never_idle_does_not_keep_statuses_back(
    script: Script, weavelet: AsyncWeavelet
) -> None:
    await script.activate()
    waiting = asyncio.create_task(script.expect(m.Status))
    async with asyncio.timeout(DEADLINE):
        while not waiting.done():
            weavelet.phase("saving")  # each time something that may set the timer
            await asyncio.sleep(0)


async def test_what_cannot_be_read_is_counted(script: Script, weavelet: AsyncWeavelet) -> None:
    await script.activate()
    assert await weavelet.wait_until_active(DEADLINE)
    for payload in (b"\xc1", b"\x81\xa4type\xa6future"):
        script.control.send([script.peer, codec.MAGIC, payload])
    script.control.send([script.peer, b"what"])
    script.updates.send([codec.steer_topic("run", "one"), b"\xc1"])
    script.updates.send([codec.steer_topic("run", "one")])
    cancel = Revision(1, "cancel", cancels=9)
    script.publish(
        codec.steer_topic("run", "one"), m.Revised(epoch="e1", run="run", attempt="one", revision=cancel)
    )
    await until(lambda: weavelet.counters is not None and weavelet.counters.session.bad_messages == 4)
    assert weavelet.counters is not None
    assert weavelet.counters.session.unknown_types == 1
    # The revision may come a wake-up later than what was wrong, so one tick need not find it.
    outcomes = await train_while(weavelet, asyncio.create_task(script.expect(m.Outcomes)))
    assert outcomes.outcomes[1].outcome == "rejected"


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
async def test_g2_a_handler_that_raises_loses_none_of_the_revisions_that_came_with_its_own(
    script: Script, weavelet: AsyncWeavelet, error: type[BaseException]
) -> None:
    got: list[int] = []

    @weavelet.on_config("now", initial=0, immediate=True)
    def set_now(value: int) -> None:
        got.append(value)
        if value == 1:
            raise error("no")

    await script.activate()
    assert await weavelet.wait_until_active(DEADLINE)
    revisions = [Revision(each, "config", {"now": each}, mode="immediate") for each in (1, 2, 3)]
    script.publish(codec.steer_topic("run", "one"), m.Beat(epoch="e1", revision=3))
    await script.expect(m.Sync)  # for the three, which one log brings
    assert weavelet._engine is not None
    with pytest.raises(SystemExit, match="no") if error is SystemExit else contextlib.nullcontext():
        weavelet._engine._on_control(m.Log(epoch="e1", revisions=revisions))
    assert got == [1, 2, 3]
    outcomes: dict[int, Outcome] = {}
    while len(outcomes) < 3:
        outcomes |= (await script.expect(m.Outcomes)).outcomes
    assert [outcomes[each].outcome for each in (1, 2, 3)] == ["rejected", "applied", "applied"]


async def test_an_updates_endpoint_that_is_none_is_warned_of(
    script: Script, weavelet: AsyncWeavelet, caplog: pytest.LogCaptureFixture
) -> None:
    await script.expect(m.Hello)
    script.send(script.welcome("nowhere"))
    await until(lambda: bool(caplog.records))
    assert "cannot connect to nowhere" in caplog.records[0].message


async def test_the_echo_topic_is_subscribed_and_the_goodbye_arrives(
    script: Script, weavelet: AsyncWeavelet
) -> None:
    hello = await script.activate()
    assert codec.echo_topic(hello.nonce) in script.topics
    await weavelet.wait_until_active(DEADLINE)
    await weavelet.tick()
    await weavelet.close("stopped by hand")
    assert await script.expect(m.Goodbye) == m.Goodbye(reason="stopped by hand", step=1)


async def test_one_that_closes_before_it_is_welcomed_waits_for_that(
    script: Script, weavelet: AsyncWeavelet
) -> None:
    await script.expect(m.Hello)
    closing = asyncio.create_task(weavelet.close("failed: at once"))
    await asyncio.sleep(0)
    script.send(script.welcome(script.updates_endpoint))
    await closing
    assert (await script.expect(m.Goodbye)).reason == "failed: at once"


async def test_a_close_that_is_cancelled_lets_go_all_the_same(
    script: Script, weavelet: AsyncWeavelet
) -> None:
    await script.expect(m.Hello)
    closing = asyncio.create_task(weavelet.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert weavelet.state is State.CLOSED


async def test_one_that_could_not_be_started_joins_no_run_later(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(watch: HoldWatch) -> None:
        raise RuntimeError("as it may")

    monkeypatch.setattr(HoldWatch, "start", fail)
    another = AsyncWeavelet("another", broker=script.endpoint, rank=0, world_size=1)
    with pytest.raises(RuntimeError, match="as it may"):
        await another.start()
    assert another.state is State.CLOSED


async def test_without_a_thread_for_devices_it_joins_and_has_none(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    another = AsyncWeavelet("another", broker=script.endpoint, rank=0, world_size=1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        await another.start()
    hello = await script.expect(m.Hello)
    assert hello.replica is not None
    assert hello.replica.devices == []
    await another.close()
