"""An operator, a broker and a trainer on one loop, over real sockets."""

import asyncio
import contextlib
import queue
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import pytest

import zloom
from tests.shell.journal_driver import start
from tests.support import (
    DEADLINE,
    TRANSPORTS,
    RunningBroker,
    Transport,
    broker_process,
    free_endpoint,
    running_broker,
)
from zloom.client import Feed, Observation, Silence
from zloom.client.blocking import SyncOperator
from zloom.errors import BrokerUnreachable, LocalProtocolError, Refused, SettingsError, TransportError
from zloom.messages import Answered, Happened, Reported, Revised
from zloom.model import Replica
from zloom.settings import ClientSettings
from zloom.socket_options import new_context
from zloom_broker.journal import open_journal
from zloom_broker.records import AttemptStarted, ReplicaJoined, ReplicaLeft, encode
from zloom_broker.server import running
from zloom_broker.settings import BrokerSettings

T = TypeVar("T")


class Trainer:
    """A trainer in a task of its own, with keys that say what was applied."""

    def __init__(self, weavelet: zloom.AsyncWeavelet) -> None:
        self.weavelet = weavelet
        self.applied: list[float] = []
        self.ready = True
        weavelet.on_config("learning_rate", initial=0.5)(self.set_learning_rate)
        weavelet.on_config("late", initial=0, ready=lambda _: self.ready)(self.set_late)
        weavelet.on_command("checkpoint")(self.checkpoint)
        weavelet.on_command("stop")(self.stop)
        self.going = True

    def set_learning_rate(self, value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> None:
        self.applied.append(value)

    def set_late(self, value: int) -> None:
        if value < 0:
            raise ValueError("below zero")

    def checkpoint(self) -> str:
        return "/tmp/step.ckpt"

    def stop(self) -> None:
        self.going = False

    async def train(self) -> None:
        while self.going:
            await self.weavelet.tick()
            self.weavelet.report(loss=1.0)
            await asyncio.sleep(0.001)  # the step's work


@contextlib.asynccontextmanager
async def training(broker: RunningBroker, run: str = "lm") -> AsyncIterator[Trainer]:
    weavelet = zloom.AsyncWeavelet(run, broker=broker.endpoint, context=broker.context, attempt="one")
    trainer = Trainer(weavelet)
    async with weavelet:
        assert await weavelet.wait_until_active(DEADLINE)
        task = asyncio.ensure_future(trainer.train())
        try:
            yield trainer
        finally:
            trainer.going = False
            await weavelet.close()  # ends a pause
            await task


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[RunningBroker]:
    async with running_broker(tmp_path) as broker:
        yield broker


@pytest.fixture
async def operator(broker: RunningBroker) -> AsyncIterator[zloom.Operator]:
    async with zloom.connect(broker.endpoint, user="ann@test", context=broker.context) as operator:
        yield operator


@pytest.fixture
async def trainer(broker: RunningBroker) -> AsyncIterator[Trainer]:
    async with training(broker) as trainer:
        yield trainer


async def first(feed: Feed[Observation], kind: type[T], wanted: Callable[[T], bool] = lambda _: True) -> T:
    async with asyncio.timeout(DEADLINE):
        async for item in feed:
            if isinstance(item, kind) and wanted(item):
                return item
    raise AssertionError("the feed ended")


# --- changes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_change_is_applied_and_answered_for(tmp_path: Path, transport: Transport) -> None:
    async with (
        running_broker(tmp_path, transport) as broker,
        training(broker) as trainer,
        zloom.connect(broker.endpoint, user="ann@test", context=broker.context) as operator,
    ):
        result = await operator.set("lm", {"learning_rate": 0.25})
        assert (result.run, result.attempt, result.revision) == ("lm", "one", 1)
        assert result.applied_everywhere
        assert result.durable
        assert 0 < result.latency < DEADLINE
        (outcome,) = result.outcomes
        assert (outcome.outcome, outcome.replica) == ("applied", trainer.weavelet.replica_id)
        assert outcome.step is not None
        assert trainer.applied == [0.25]
        assert await operator.get("lm") == {"learning_rate": 0.25, "late": 0}
        (entry,) = await operator.history("lm")
        assert (entry.revision.by, entry.revision.changes) == ("ann@test", {"learning_rate": 0.25})


async def test_rollback_brings_an_earlier_value_back(operator: zloom.Operator, trainer: Trainer) -> None:
    await operator.set("lm", {"learning_rate": 0.25})
    await operator.set("lm", {"learning_rate": 0.125})
    result = await operator.rollback("lm", 1)
    assert (result.revision, result.applied_everywhere) == (3, True)
    assert trainer.applied == [0.25, 0.125, 0.25]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"rate": 1}, "unknown_key"),
        ({"learning_rate": 5.0}, "out_of_bounds"),
        ({"learning_rate": "fast"}, "wrong_type"),
        ({"learning_rate": float("nan")}, "bad_value"),
        ({"late": 1.0}, "wrong_type"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    operator: zloom.Operator, trainer: Trainer, changes: dict[str, object], code: str
) -> None:
    with pytest.raises(Refused) as caught:
        await operator.set("lm", changes)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert next(iter(changes)) in caught.value.text
    assert await operator.history("lm") == []


async def test_a_run_that_is_not_there_is_refused(operator: zloom.Operator) -> None:
    with pytest.raises(Refused, match="nobody"):
        await operator.get("nobody")


async def test_what_cannot_be_sent_is_the_callers_error(operator: zloom.Operator, trainer: Trainer) -> None:
    with pytest.raises(SettingsError, match="cannot be sent"):
        await operator.set("lm", {"learning_rate": object()})  # type: ignore[dict-item]
    with pytest.raises(LocalProtocolError, match="at most"):
        await operator.set("lm", {"learning_rate": "x" * 2**21})
    assert (await operator.set("lm", {"learning_rate": 0.25})).applied_everywhere


async def test_a_handler_that_raises_is_an_outcome(operator: zloom.Operator, trainer: Trainer) -> None:
    result = await operator.set("lm", {"late": -1})
    assert result.settled
    assert not result.applied_everywhere
    assert result.outcomes[0].outcome == "rejected"
    assert "below zero" in result.outcomes[0].error


async def test_commands_are_carried_out_once_and_say_what_they_returned(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    assert (await operator.checkpoint("lm")).outcomes[0].detail == "/tmp/step.ckpt"
    assert (await operator.pause("lm", 60.0)).applied_everywhere
    assert trainer.weavelet.paused
    assert (await operator.resume("lm")).applied_everywhere
    assert (await operator.stop("lm")).applied_everywhere
    assert not trainer.going


async def test_expected_revision_guards_against_changes_in_between(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    await operator.set("lm", {"learning_rate": 0.25}, expected_revision=0)
    with pytest.raises(Refused) as caught:
        await operator.set("lm", {"learning_rate": 0.75}, expected_revision=0)
    assert caught.value.code == "revision_conflict"


async def test_a_step_can_be_named(operator: zloom.Operator, trainer: Trainer) -> None:
    step = trainer.weavelet.step + 50
    result = await operator.set("lm", {"learning_rate": 0.25}, at_step=step)
    assert result.outcomes[0].step == step


# --- waiting -------------------------------------------------------------------------------------


async def test_without_waiting_it_returns_when_the_change_is_accepted(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    trainer.ready = False
    result = await operator.set("lm", {"late": 1}, wait=False)
    assert (result.revision, result.settled, len(result.missing)) == (1, False, 1)
    trainer.ready = True
    followed = await operator.follow("lm", 1)
    assert followed.applied_everywhere


async def test_the_end_of_the_wait_is_not_the_end_of_the_change(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    trainer.ready = False
    seen: list[bool] = []
    result = await operator.set(
        "lm", {"late": 1}, timeout=0.2, on_progress=lambda newer: seen.append(newer.settled)
    )
    assert not result.settled
    assert result.latency >= 0.2
    assert seen == [False]
    trainer.ready = True
    assert (await operator.follow("lm", result.revision)).applied_everywhere


async def test_what_looks_at_the_progress_may_time_out_itself(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    def give_up(_: object) -> None:
        raise TimeoutError("of the caller")

    with pytest.raises(TimeoutError, match="of the caller"):
        await operator.set("lm", {"learning_rate": 0.25}, on_progress=give_up)


async def test_cancel_on_timeout_takes_back_what_is_pending(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    trainer.ready = False
    result = await operator.set("lm", {"late": 1}, timeout=0.2, cancel_on_timeout=True)
    assert (result.revision, result.settled) == (1, True)
    assert result.outcomes[0].outcome == "cancelled"
    trainer.ready = True
    assert (await operator.get("lm"))["late"] == 0


async def test_a_cancel_that_comes_too_late_is_refused(operator: zloom.Operator, trainer: Trainer) -> None:
    await operator.set("lm", {"learning_rate": 0.25})
    with pytest.raises(Refused) as caught:
        await operator.cancel("lm", 1)
    assert caught.value.code == "already_settled"


async def test_a_cancelled_call_loses_nothing_else(operator: zloom.Operator, trainer: Trainer) -> None:
    trainer.ready = False
    accepted = asyncio.Event()
    waiting = asyncio.ensure_future(operator.set("lm", {"late": 1}, on_progress=lambda _: accepted.set()))
    async with asyncio.timeout(DEADLINE):
        await accepted.wait()
    assert operator.counters.requests_open == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert operator.counters.requests_open == 0
    assert (await operator.set("lm", {"learning_rate": 0.25})).applied_everywhere
    trainer.ready = True
    assert (await operator.follow("lm", 1)).applied_everywhere


async def test_a_request_that_is_made_again_has_one_effect(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    once = await operator.set("lm", {"learning_rate": 0.25}, request_id="mine-1")
    again = await operator.set("lm", {"learning_rate": 0.25}, request_id="mine-1")
    assert (once.revision, once.duplicate) == (1, False)
    assert (again.revision, again.duplicate, again.applied_everywhere) == (1, True, True)
    assert trainer.applied == [0.25]
    with pytest.raises(Refused) as caught:
        await operator.set("lm", {"learning_rate": 0.75}, request_id="mine-1")
    assert caught.value.code == "request_id_reused"


async def test_a_request_that_is_made_twice_at_a_time_is_one(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    calls = [operator.set("lm", {"learning_rate": 0.25}, request_id="mine-1") for _ in range(2)]
    both = await asyncio.gather(*calls)
    assert [(each.revision, each.applied_everywhere) for each in both] == [(1, True)] * 2
    assert trainer.applied == [0.25]
    assert operator.counters.requests_open == 0


async def test_who_joins_a_request_late_gets_what_was_answered_before(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    trainer.ready = False
    accepted = asyncio.Event()
    early = asyncio.ensure_future(
        operator.set("lm", {"late": 1}, request_id="mine-1", on_progress=lambda _: accepted.set())
    )
    async with asyncio.timeout(DEADLINE):
        await accepted.wait()
    late = await operator.set("lm", {"late": 1}, request_id="mine-1", wait=False)
    assert (late.revision, late.settled) == (1, False)
    with pytest.raises(Refused, match="another request with the id 'mine-1' is still open") as caught:
        await operator.set("lm", {"late": 2}, request_id="mine-1")
    assert caught.value.code == "request_id_reused"
    trainer.ready = True
    assert (await early).applied_everywhere


async def test_a_burst_beyond_the_credit_is_answered_to_the_last(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    calls = (operator.set("lm", {"learning_rate": (n + 1) / 1000}) for n in range(600))
    results = await asyncio.gather(*calls)
    assert sorted(result.revision for result in results) == list(range(1, 601))
    assert all(result.applied_everywhere for result in results)
    entries = await operator.history("lm")
    assert [entry.revision.revision for entry in entries] == list(range(600, 0, -1))
    assert len(await operator.history("lm", 150)) == 150


# --- questions -----------------------------------------------------------------------------------


async def test_questions_are_answered_with_types(operator: zloom.Operator, trainer: Trainer) -> None:
    keys = await operator.keys("lm")
    assert [(state.key.name, state.value) for state in keys.keys] == [("learning_rate", 0.5), ("late", 0)]
    assert {"checkpoint", "pause", "resume", "stop"} <= {command.name for command in keys.commands}
    (replica,) = await operator.replicas("lm")
    assert (replica.replica, replica.state) == (trainer.weavelet.replica_id, "live")
    (run,) = await operator.runs()
    assert (run.run, run.attempt, run.live) == ("lm", "one", 1)
    (device,) = await operator.devices()
    assert device.replicas == [trainer.weavelet.replica_id]
    assert (await operator.stats()).counters["received_hello"] == 2


def finished_replicas(count: int) -> Iterator[AttemptStarted | ReplicaJoined | ReplicaLeft]:
    yield AttemptStarted(run="lm", attempt="old", world_size=1, at=1.0)
    for number in range(count):
        who = Replica(f"r{number}", "lm", "old", host="h" * 200)
        yield ReplicaJoined(replica=who, at=1.0)
        yield ReplicaLeft(
            run="lm", attempt="old", replica=who.id, outcome="not_reached", reason="r" * 200, at=2.0
        )


async def test_more_replicas_than_a_message_holds_come_all(tmp_path: Path) -> None:
    with open_journal(tmp_path / "broker") as journal:
        listener = start(journal)
        rows = [encode(record) for record in finished_replicas(3000)]
        journal.submit(1, rows)
        listener.wait_committed(len(rows))
    async with (
        running_broker(tmp_path) as broker,
        training(broker),
        zloom.connect(broker.endpoint, context=broker.context) as operator,
    ):
        replicas = await operator.replicas("lm")
        assert [replica.state for replica in replicas] == ["live"] + 3000 * ["finished"]
        assert [replica.replica for replica in replicas[1:]] == [f"r{n}" for n in range(3000)]
        assert [run.replicas for run in await operator.runs()] == [3000, 1]


async def test_a_failed_device_is_told_to_its_replicas(operator: zloom.Operator, trainer: Trainer) -> None:
    (report,) = await operator.devices()
    told = await operator.fail_device(report.device.id, "fell off the bus")
    assert told == [trainer.weavelet.replica_id]
    assert (await operator.devices())[0].failed == "fell off the bus"
    with pytest.raises(Refused) as caught:
        await operator.fail_device("GPU-none")
    assert caught.value.code == "unknown_device"


async def test_only_a_finished_run_can_be_forgotten(broker: RunningBroker, operator: zloom.Operator) -> None:
    async with operator.watch("lm") as feed:
        async with training(broker):
            with pytest.raises(Refused) as caught:
                await operator.forget("lm")
            assert caught.value.code == "still_live"
        await first(feed, Happened, lambda item: item.event.kind == "finished")
    assert await operator.forget("lm") == "one"
    assert await operator.runs() == []


# --- feeds ---------------------------------------------------------------------------------------


async def test_a_watcher_sees_all_of_its_run_and_nothing_of_another(
    broker: RunningBroker, operator: zloom.Operator
) -> None:
    async with operator.watch("lm") as feed, training(broker, "lm2"), training(broker, "lm"):
        await operator.set("lm2", {"learning_rate": 0.75})
        await operator.set("lm", {"learning_rate": 0.25})
        joined = await first(feed, Happened, lambda item: item.event.kind == "joined")
        assert joined.event.run == "lm"
        changed = await first(feed, Revised)
        assert (changed.run, changed.revision.changes) == ("lm", {"learning_rate": 0.25})
        answered = await first(feed, Answered)
        assert (answered.revision, answered.settled) == (1, True)
        reported = await first(feed, Reported, lambda item: bool(item.metrics))
        assert reported.status.run == "lm"
        assert set(reported.metrics["loss"].values) == {1.0}
        assert (feed.missed, feed.dropped) == (0, 0)


async def test_two_feeds_each_get_everything_and_end_apart(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    async with operator.watch() as everything:
        async with operator.watch("lm") as one:
            await operator.set("lm", {"learning_rate": 0.25})
            assert (await first(one, Revised)).revision.revision == 1
        assert (await first(everything, Revised)).revision.revision == 1
        await operator.set("lm", {"learning_rate": 0.75})
        assert (await first(everything, Revised)).revision.revision == 2


async def test_own_topics_go_from_operator_to_operator(
    broker: RunningBroker, operator: zloom.Operator
) -> None:
    async with operator.subscribe("net/bandwidth/") as feed:
        async with zloom.connect(broker.endpoint, user="bob@test", context=broker.context) as other:
            await other.publish("net/latency/a", b"no")
            await other.publish("net/bandwidth/a", b"12")
        async with asyncio.timeout(DEADLINE):
            message = await anext(feed)
    assert (message.topic, message.payload, message.sender) == ("net/bandwidth/a", b"12", "bob@test")


async def test_an_own_topic_that_is_no_unicode_is_refused(operator: zloom.Operator) -> None:
    with pytest.raises(zloom.SettingsError, match=r"topic is 'net/\\udc80'; expected a str of Unicode"):
        operator.subscribe("net/\udc80")
    with pytest.raises(zloom.SettingsError, match="expected a str of Unicode"):
        await operator.publish("net/\udc80", b"12")


@pytest.mark.parametrize("reached", [0, 1])
async def test_a_watcher_of_a_broker_with_several_endpoints_is_told_the_updates_beside_its_own(
    tmp_path: Path, reached: int
) -> None:
    with free_endpoint("tcp") as tcp, free_endpoint("ipc") as ipc:
        at_both = BrokerSettings(bind=(tcp, ipc), data_dir=tmp_path / "broker", no_auth=True)
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(running(at_both))
            there = server.addresses.bound[reached].control
            operator = await stack.enter_async_context(zloom.connect(there))
            feed = await stack.enter_async_context(operator.subscribe("net/"))
            await operator.publish("net/a", b"12")
            async with asyncio.timeout(DEADLINE):
                assert (await anext(feed)).payload == b"12"


# --- the broker comes and goes -------------------------------------------------------------------


@pytest.fixture
def endpoint() -> Iterator[str]:
    with free_endpoint("ipc") as endpoint:
        yield endpoint


async def test_an_operator_and_its_feeds_outlive_the_broker(tmp_path: Path, endpoint: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        context = new_context()
        stack.callback(context.term)
        enter = stack.enter_async_context
        async with running_broker(tmp_path, endpoint=endpoint, context=context) as broker:
            trainer = await enter(training(broker))
            operator = await enter(zloom.connect(endpoint, context=context))
            feed = await enter(operator.watch("lm"))
            trainer.ready = False
            accepted = asyncio.Event()
            waiting = asyncio.ensure_future(
                operator.set("lm", {"late": 1}, on_progress=lambda _: accepted.set())
            )
            async with asyncio.timeout(DEADLINE):
                await accepted.wait()
        trainer.ready = True
        async with running_broker(tmp_path, endpoint=endpoint, context=context):
            async with asyncio.timeout(DEADLINE):
                result = await waiting
            assert (result.revision, result.applied_everywhere) == (1, True)
            await operator.set("lm", {"learning_rate": 0.25})
            assert (await first(feed, Revised, lambda item: item.revision.revision == 2)).run == "lm"
            # Before the broker goes, so that nobody waits for its farewell.
            feed.close()
            trainer.going = False
            await trainer.weavelet.close()


async def test_nobody_there_says_where_and_what_to_do(endpoint: str) -> None:
    begun = asyncio.get_running_loop().time()
    with pytest.raises(BrokerUnreachable, match="zloom broker") as caught:
        async with zloom.connect(endpoint, settings=ClientSettings(connect_timeout=0.3)):
            raise AssertionError("there is no broker")
    assert endpoint in str(caught.value)
    assert asyncio.get_running_loop().time() - begun < 2.0


async def test_a_broker_that_dies_leaves_a_request_unanswered(tmp_path: Path, endpoint: str) -> None:
    context = new_context()
    settings = ClientSettings(timeout=0.3)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(context.term)
        async with running_broker(tmp_path, endpoint=endpoint, context=context):
            operator = await stack.enter_async_context(
                zloom.connect(endpoint, context=context, settings=settings)
            )
        with pytest.raises(BrokerUnreachable, match="whether it was accepted is unknown"):
            await operator.set("lm", {"learning_rate": 0.25}, request_id="mine-1")


async def test_a_closed_operator_says_so_and_its_feeds_end(broker: RunningBroker) -> None:
    async with zloom.connect(broker.endpoint, context=broker.context) as operator:
        feed = operator.watch()
    assert [item async for item in feed] == []
    with pytest.raises(TransportError, match="closed"):
        await operator.runs()


# --- blocking ------------------------------------------------------------------------------------


async def test_the_blocking_operator_does_the_same_from_a_thread(
    broker: RunningBroker, trainer: Trainer
) -> None:
    def script() -> list[object]:
        with zloom.connect_sync(broker.endpoint, user="ann@test") as operator:
            with operator.watch("lm") as feed:
                result = operator.set("lm", {"learning_rate": 0.25})
                seen = next(item for item in feed if isinstance(item, Revised))
            with pytest.raises(Refused):
                operator.set("lm", {"rate": 1})
            return [result.applied_everywhere, seen.revision.revision, operator.get("lm")["learning_rate"]]

    assert await asyncio.to_thread(script) == [True, 1, 0.25]


def test_the_blocking_operator_has_all_that_the_other_has() -> None:
    offered = {name for name in dir(zloom.Operator) if not name.startswith("_")}
    assert offered <= set(dir(SyncOperator))


async def test_the_blocking_operator_tells_that_the_broker_is_silent(tmp_path: Path, endpoint: str) -> None:
    told: queue.Queue[Silence] = queue.Queue()

    def script() -> None:
        with contextlib.ExitStack() as stack:
            with broker_process(tmp_path / "broker", endpoint) as broker:
                operator = stack.enter_context(zloom.connect_sync(endpoint))
                operator.on_silence(told.put)
                stack.enter_context(operator.watch())  # so that the broker is listened for
                broker.process.kill()
            silence = told.get(timeout=DEADLINE)
            assert not silence.over
            silent_for = operator.silent_for
            assert silent_for is not None
            assert silent_for >= silence.seconds
            with broker_process(tmp_path / "broker", endpoint):
                back = told.get(timeout=DEADLINE)
                assert (back.over, back.restarted) == (True, True)
                assert operator.silent_for is None

    await asyncio.to_thread(script)


async def test_the_blocking_operator_works_on_a_thread_that_runs_a_loop(
    tmp_path: Path, endpoint: str
) -> None:
    # As in a notebook. The loop is blocked meanwhile, so the broker has a process of its own.
    with broker_process(tmp_path / "broker", endpoint), zloom.connect_sync(endpoint) as operator:
        assert operator.runs() == []
        assert operator.counters.reconnects == 0


async def test_the_blocking_operator_lets_go_of_its_thread_when_nobody_is_there(endpoint: str) -> None:
    settings = ClientSettings(connect_timeout=0.2)
    before = threading.active_count()
    with pytest.raises(BrokerUnreachable), zloom.connect_sync(endpoint, settings=settings):
        raise AssertionError("there is no broker")
    assert threading.active_count() == before


async def test_the_blocking_operator_is_connected_at_once_and_until_it_is_closed(
    tmp_path: Path, endpoint: str
) -> None:
    before = threading.active_count()
    with broker_process(tmp_path / "broker", endpoint):
        operator = zloom.connect_sync(endpoint)
        feed = operator.watch()
        assert operator.runs() == []
        operator.close()
        operator.close()
        feed.close()
        with pytest.raises(TransportError, match="closed"):
            operator.runs()
    assert threading.active_count() == before


_LEFT_OPEN = """
import sys, time, zloom
operator = zloom.connect_sync(sys.argv[1])
feed = operator.watch()
print(operator.runs(), time.monotonic(), flush=True)
"""


def test_a_blocking_operator_that_nobody_closed_lets_the_process_end(tmp_path: Path, endpoint: str) -> None:
    with broker_process(tmp_path / "broker", endpoint):
        command = [sys.executable, "-c", _LEFT_OPEN, endpoint]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
        ended = time.monotonic()
    assert (done.returncode, done.stderr) == (0, "")
    runs, last_line = done.stdout.split()
    assert runs == "[]"
    assert ended - float(last_line) < 2.0


# --- precautions ---------------------------------------------------------------------------------


async def test_a_ramp_is_applied_when_it_begins_and_seen_while_it_runs(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    ramps = {"learning_rate": zloom.Ramp(10**6, 0.1)}
    result = await operator.set("lm", {"learning_rate": 1.0}, ramps=ramps)
    assert result.applied_everywhere
    async with operator.watch("lm") as feed:
        seen = await first(feed, Reported, lambda told: bool(told.status.ramps))
    state = seen.status.ramps["learning_rate"]
    assert result.outcomes[0].step is not None
    assert (state.revision, state.end, state.until) == (1, 1.0, result.outcomes[0].step + 10**6)
    assert 0.1 <= state.value < 1.0
    ended = await operator.cancel("lm", result.revision)
    assert ended.applied_everywhere
    values = ended.outcomes[0].values
    assert trainer.applied[-1] == values["learning_rate"]
    assert await operator.get("lm") == {"learning_rate": values["learning_rate"], "late": 0}


def paused_after(step: int, told: Reported) -> bool:
    return told.status.state == "paused" and (told.status.step or 0) > step


async def test_a_bounded_resume_trains_so_many_steps(operator: zloom.Operator, trainer: Trainer) -> None:
    paused = await operator.pause("lm")
    step = paused.outcomes[0].step
    assert step is not None
    for turn in (1, 2):
        async with operator.watch("lm") as feed:
            assert (await operator.resume("lm", steps=5)).applied_everywhere
            told = await first(feed, Reported, partial(paused_after, step + 5 * (turn - 1)))
        assert told.status.step == trainer.weavelet.step == step + 5 * turn


async def test_a_change_some_steps_ahead_names_its_step(operator: zloom.Operator, trainer: Trainer) -> None:
    async with operator.watch("lm") as feed:
        await first(feed, Reported, lambda told: told.status.step_time is not None)
    result = await operator.set("lm", {"learning_rate": 0.25}, after=500)
    assert result.applied_everywhere
    assert result.outcomes[0].step == result.at_step
    [entry] = await operator.history("lm")
    assert entry.revision.note.startswith("500 steps after about ")


async def test_a_change_supersedes_what_waits(operator: zloom.Operator, trainer: Trainer) -> None:
    waiting = await operator.set("lm", {"learning_rate": 0.25}, at_step=10**9, wait=False)
    with pytest.raises(Refused, match="waits in revision 1 for step"):
        await operator.set("lm", {"learning_rate": 0.75})
    assert (await operator.set("lm", {"learning_rate": 0.75}, supersede=True)).applied_everywhere
    ended = await operator.follow("lm", waiting.revision)
    assert [each.outcome for each in ended.outcomes] == ["superseded"]


async def test_a_preview_changes_nothing(operator: zloom.Operator, trainer: Trainer) -> None:
    found = await operator.preview_set("lm", {"learning_rate": 0.25})
    assert found.revision is not None
    assert (found.revision.changes, found.targets) == ({"learning_rate": 0.25}, [trainer.weavelet.replica_id])
    found = await operator.preview_set("lm", {"learning_rate": 25.0})
    assert [problem.replicas for problem in found.problems] == [[trainer.weavelet.replica_id]]
    assert (await operator.preview_command("lm", "pause", {"limit": 5})).problems == []
    assert [each.code for each in (await operator.preview_rollback("lm", 0)).problems] == ["no_change"]
    assert await operator.history("lm") == []


async def test_a_checkpoint_comes_first_and_the_history_links_the_two(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    changed = {"learning_rate": 0.25}
    result = await operator.set("lm", changed, checkpoint_first=True, note="why", request_id="once")
    assert result.applied_everywhere
    assert result.checkpoint is not None
    assert result.checkpoint.outcomes[0].detail == "/tmp/step.ckpt"
    change, checkpoint = await operator.history("lm")
    assert checkpoint.revision.command == "checkpoint"
    assert checkpoint.revision.note == "before a change of learning_rate"
    assert change.revision.note == f"after checkpoint {checkpoint.revision.revision}; why"
    again = await operator.set("lm", changed, checkpoint_first=True, note="why", request_id="once")
    assert (again.revision, again.duplicate) == (result.revision, True)
    assert len(await operator.history("lm")) == 2


async def test_a_checkpoint_that_fails_leaves_all_as_it_was(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    def fail() -> None:
        raise OSError("disk full")

    trainer.weavelet.on_command("checkpoint")(fail)
    with pytest.raises(zloom.CheckpointFailed, match="rank 0: rejected: checkpoint: OSError: disk full"):
        await operator.set("lm", {"learning_rate": 0.25}, checkpoint_first=True)
    assert trainer.applied == []
    assert len(await operator.history("lm")) == 1


async def test_of_a_checkpoint_that_does_not_come_it_is_said_that_the_time_was_over(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    trainer.weavelet.on_command("checkpoint", ready=lambda: False)(lambda: None)
    said = r"rank 0: cancelled; it was taken back after 0\.5 s"
    with pytest.raises(zloom.CheckpointFailed, match=said):
        await operator.set("lm", {"learning_rate": 0.25}, checkpoint_first=True, timeout=0.5)


async def test_no_checkpoint_is_saved_for_what_would_be_refused(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    with pytest.raises(Refused, match="out of bounds"):
        await operator.set("lm", {"learning_rate": 25.0}, checkpoint_first=True)
    with pytest.raises(Refused, match="expected revision 4"):
        await operator.rollback("lm", 0, checkpoint_first=True, expected_revision=4)
    with pytest.raises(Refused, match="the note has 535 characters; at most 500 fit"):
        await operator.set("lm", {"learning_rate": 0.25}, checkpoint_first=True, note="x" * 500)
    assert await operator.history("lm") == []


async def test_a_checkpoint_comes_first_under_the_longest_id_and_note(
    operator: zloom.Operator, trainer: Trainer
) -> None:
    for _ in range(2):
        result = await operator.set(
            "lm", {"learning_rate": 0.25}, checkpoint_first=True, note="x" * 465, request_id="i" * 128
        )
        assert result.applied_everywhere
    assert len(await operator.history("lm")) == 2


async def test_a_checkpoint_keeps_the_expected_revision(operator: zloom.Operator, trainer: Trainer) -> None:
    await operator.set("lm", {"learning_rate": 0.25})
    result = await operator.rollback("lm", 0, checkpoint_first=True, expected_revision=1)
    assert result.revision == 3
