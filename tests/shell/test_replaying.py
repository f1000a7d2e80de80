"""Recording and replaying with a real broker and a real weavelet, and what is refused or taken back."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pytest

import zloom
from tests.support import DEADLINE, free_endpoint, running_broker
from zloom import recording
from zloom.client.attempts import OnWait, training_attempt
from zloom.client.recorder import CATCH_UP, STOPPED, Recorded, Recorder
from zloom.client.replaying import Replay, Replayed
from zloom.errors import RecordingError, Refused
from zloom.messages import Reported, Revised
from zloom.model import Key, RunStatus, Schema, Value
from zloom.recording_file import RecordingReader
from zloom.replay_schedule import Change

T = TypeVar("T")

HEADER = recording.Header(
    magic=recording.MAGIC,
    version=1,
    run="old",
    attempt="one",
    world_size=2,
    keys=[Key("rate", Schema(["number"]), 0.25)],
)


class Trainer:
    """A weavelet that is ticked by the test."""

    def __init__(self, endpoint: str, run: str = "lm") -> None:
        self.weavelet = zloom.Weavelet(run, broker=endpoint, attempt="one")
        self.rates: list[float] = []

        @self.weavelet.on_config("rate", initial=0.5)
        def set_rate(value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> None:
            self.rates.append(value)

    async def train(self, steps: int) -> None:
        """Train so many steps; a safe point may take its time."""
        for _ in range(steps):
            await asyncio.to_thread(self.weavelet.tick)
            self.weavelet.report(loss=1.0)

    async def serve(self, work: "asyncio.Task[T]") -> T:
        """Stand at a safe point, where changes and cancels are answered, until something is done."""
        while not work.done():
            self.weavelet.safe_point()
            await asyncio.sleep(0.001)
        return await work

    async def told(self, operator: zloom.Operator) -> None:
        """Wait until the broker knows the step."""
        async with operator.watch("lm") as feed:
            async for seen in feed:
                if isinstance(seen, Reported) and seen.status.step == self.weavelet.step:
                    return


@asynccontextmanager
async def trainer(endpoint: str, run: str = "lm") -> AsyncIterator[Trainer]:
    trainer = Trainer(endpoint, run)
    with trainer.weavelet:
        assert await asyncio.to_thread(trainer.weavelet.wait_until_active, DEADLINE)
        yield trainer


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[str]:
    async with running_broker(tmp_path) as broker:
        yield broker.endpoint


@pytest.fixture
async def operator(endpoint: str) -> AsyncIterator[zloom.Operator]:
    async with zloom.connect(endpoint) as operator:
        yield operator


def replay(operator: zloom.Operator, *changes: tuple[int, dict[str, Value]]) -> Replay:
    made = [Change(number, step, values, {}) for number, (step, values) in enumerate(changes, 1)]
    return Replay(operator, HEADER, made, "lm", "one")


async def begun(recorder: Recorder) -> recording.Header:
    """Wait until a recorder has written its header."""
    header: asyncio.Future[recording.Header] = asyncio.get_running_loop().create_future()
    recorder.on_begin = header.set_result
    return await asyncio.wait_for(header, DEADLINE)


async def ended(recording_it: "asyncio.Task[Recorded]") -> Recorded:
    return await asyncio.wait_for(recording_it, DEADLINE)


async def first(replaying: Replay) -> Replayed:
    return await anext(replaying.outcomes())


# --- record ----------------------------------------------------------------------------------


async def test_what_was_and_what_comes_is_recorded_until_somebody_stops_it(
    endpoint: str, operator: zloom.Operator, tmp_path: Path
) -> None:
    async with trainer(endpoint) as training:
        await training.train(3)
        await training.serve(asyncio.create_task(operator.set("lm", {"rate": 0.1})))
        recorder = Recorder(operator, "lm")
        recording_it = asyncio.create_task(recorder.record(tmp_path / "file"))
        assert (await begun(recorder)).revision == 1
        await training.train(2)
        await training.serve(asyncio.create_task(operator.set("lm", {"rate": 0.2})))
        recorder.stop()
        recorded = await ended(recording_it)
    assert (recorded.end.reason, recorded.end.complete, recorded.revisions) == (STOPPED, True, 2)
    records = list(RecordingReader(tmp_path / "file").records())
    revised = [each.revision.changes for each in records if isinstance(each, recording.Revised)]
    answered = [each.outcomes[0].step for each in records if isinstance(each, recording.Answered)]
    assert (revised, answered) == ([{"rate": 0.1}, {"rate": 0.2}], [3, 5])


async def test_a_run_that_is_over_is_recorded_at_once(
    endpoint: str, operator: zloom.Operator, tmp_path: Path
) -> None:
    async with trainer(endpoint) as training:
        await training.serve(asyncio.create_task(operator.set("lm", {"rate": 0.1})))
    recorded = await ended(asyncio.create_task(Recorder(operator, "lm").record(tmp_path / "file")))
    assert (recorded.end.reason, recorded.revisions, recorded.end.points) == ("finished", 1, 0)


async def test_no_file_is_made_for_a_run_that_there_is_not(operator: zloom.Operator, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="unknown run"):
        await Recorder(operator, "lm").record(tmp_path / "file")
    assert not (tmp_path / "file").exists()


async def test_a_restart_of_the_broker_leaves_out_no_revision_and_is_told(tmp_path: Path) -> None:
    with free_endpoint("ipc") as place:
        async with running_broker(tmp_path, endpoint=place):
            operator_context = zloom.connect(place)
            operator = await operator_context.__aenter__()
            training_context = trainer(place)
            training = await training_context.__aenter__()
            recorder = Recorder(operator, "lm")
            recording_it = asyncio.create_task(recorder.record(tmp_path / "file"))
            await begun(recorder)
        async with running_broker(tmp_path, endpoint=place):
            async with zloom.connect(place) as another:
                changed = await training.serve(asyncio.create_task(another.set("lm", {"rate": 0.1})))
                assert changed.applied_everywhere
            await training_context.__aexit__(None, None, None)
            recorded = await ended(recording_it)
            await operator_context.__aexit__(None, None, None)
    assert (recorded.end.restarts, recorded.end.complete, recorded.revisions) == (1, True, 1)


async def test_an_end_that_nobody_told_is_found(
    endpoint: str, operator: zloom.Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it was published before a broker that came back was subscribed again."""
    monkeypatch.setattr("zloom.client.recorder.QUIET", 0.05)
    monkeypatch.setattr(Recorder, "_write", lambda *_: False)
    monkeypatch.setattr("zloom.client.recorder.Happened", Revised)  # so that none is taken note of
    async with trainer(endpoint):
        recorder = Recorder(operator, "lm")
        recording_it = asyncio.create_task(recorder.record(tmp_path / "file"))
        await begun(recorder)
    assert (await ended(recording_it)).end.reason == "finished"


async def test_a_recorder_that_is_stopped_without_its_broker_says_that_it_may_lack_something(
    tmp_path: Path,
) -> None:
    async with running_broker(tmp_path) as broker:
        operator_context = zloom.connect(broker.endpoint)
        operator = await operator_context.__aenter__()
        async with trainer(broker.endpoint):
            recorder = Recorder(operator, "lm")
            recording_it = asyncio.create_task(recorder.record(tmp_path / "file"))
            await begun(recorder)
            await operator.history("lm")  # the recorder's own question was answered before
    recorder.stop()
    async with asyncio.timeout(DEADLINE):
        recorded = await recording_it
    await operator_context.__aexit__(None, None, None)
    assert not recorded.end.complete


async def test_a_recorder_that_is_stopped_ends_in_time_though_nothing_is_answered(tmp_path: Path) -> None:
    stopped: list[float] = []
    async with running_broker(tmp_path) as broker:
        operator_context = zloom.connect(broker.endpoint)
        operator = await operator_context.__aenter__()
        async with trainer(broker.endpoint):
            recorder = Recorder(operator, "lm")

            def stop(header: recording.Header) -> None:
                broker.server.close()
                recorder.stop()  # when all questions but those for the header are still to come
                stopped.append(asyncio.get_running_loop().time())

            recorder.on_begin = stop
            recorded = await ended(asyncio.create_task(recorder.record(tmp_path / "file")))
            took = asyncio.get_running_loop().time() - stopped[0]
    await operator_context.__aexit__(None, None, None)
    assert (recorded.end.reason, recorded.end.complete) == (STOPPED, False)
    assert took < 2 * CATCH_UP, "one limit for all of them"


async def test_a_recorder_that_is_stopped_gives_its_last_question_the_time_that_is_left(
    endpoint: str, operator: zloom.Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    history = operator.history

    async def ask_history(*args: Any, **options: Any) -> Any:
        asked.append("history")
        if len(asked) == 1:
            await asyncio.Event().wait()  # as a broker that does not answer
        return await history(*args, **options)

    async with trainer(endpoint):
        recorder = Recorder(operator, "lm")
        recorder.on_begin = lambda header: asyncio.get_running_loop().call_soon(recorder.stop)
        monkeypatch.setattr(operator, "history", ask_history)
        recorded = await ended(asyncio.create_task(recorder.record(tmp_path / "file")))
    assert (recorded.end.reason, recorded.end.complete, asked) == (STOPPED, True, ["history"] * 2)


async def test_a_recorder_that_is_stopped_during_its_last_question_waits_for_the_answer(
    endpoint: str, operator: zloom.Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    history = operator.history

    async def ask_history(*args: Any, **options: Any) -> Any:
        asked.append("history")
        if len(asked) == 2:
            recorder.stop()
        return await history(*args, **options)

    recorder = Recorder(operator, "lm")
    begun = asyncio.Event()
    recorder.on_begin = lambda header: begun.set()
    monkeypatch.setattr(operator, "history", ask_history)
    async with trainer(endpoint):
        recording_it = asyncio.create_task(recorder.record(tmp_path / "file"))
        await begun.wait()
    assert ((await ended(recording_it)).end.complete, len(asked)) == (True, 2)


# --- replay ----------------------------------------------------------------------------------


async def test_changes_of_one_key_are_replayed_at_each_step(endpoint: str, operator: zloom.Operator) -> None:
    async with trainer(endpoint) as training:
        changes: list[tuple[int, dict[str, Value]]] = [(step, {"rate": step / 10}) for step in (1, 2, 2, 5)]
        replaying = replay(operator, *changes)
        assert await replaying.differences() == [
            "rate began at 0.5, in the recording at 0.25",
            "it has 1 ranks, in the recording 2",
        ]
        await replaying.hand_over()
        resumed = len(replaying.accepted) + 1  # the newest revision, so all others are there before it
        await training.serve(asyncio.create_task(operator.follow("lm", resumed)))
        await training.train(6)
        replayed = [each async for each in replaying.outcomes()]
    assert [each.exact for each in replayed] == [True] * 4
    assert training.rates == [0.1, 0.2, 0.2, 0.5]


async def test_a_change_that_is_refused_takes_back_those_before_it(
    endpoint: str, operator: zloom.Operator
) -> None:
    async with trainer(endpoint) as training:
        replaying = replay(operator, (2, {"rate": 0.1}), (3, {"rate": 0.2}), (4, {"rate": 7.0}))
        with pytest.raises(Refused, match=r"rate: 7\.0 is out of bounds") as refused:
            await training.serve(asyncio.create_task(replaying.hand_over()))
        assert refused.value.__notes__ == ["it was for revision 3 of the recording"]
        await training.train(5)
    assert training.rates == []


async def test_a_missed_step_is_told_and_the_rest_can_be_taken_back(
    endpoint: str, operator: zloom.Operator
) -> None:
    async with trainer(endpoint) as training:
        await training.train(4)
        replaying = replay(operator, (2, {"rate": 0.1}), (1000, {"rate": 0.2}))
        await replaying.hand_over()
        late = await training.serve(asyncio.create_task(first(replaying)))
        assert ([outcome.step for outcome in late.result.outcomes], late.exact) == ([4], False)
        (rest,) = await training.serve(asyncio.create_task(replaying.withdraw(after=1)))
        assert [outcome.outcome for outcome in rest.result.outcomes] == ["cancelled"]


async def test_a_step_that_has_begun_is_refused(endpoint: str, operator: zloom.Operator) -> None:
    async with trainer(endpoint) as training:
        await training.train(4)
        await training.told(operator)
        with pytest.raises(
            RecordingError, match=r"its step 4 has begun, and revision 1 was applied at step 3"
        ):
            await replay(operator, (3, {"rate": 0.1})).differences()
        assert await replay(operator, (5, {"rate": 0.1})).differences()


async def test_a_key_that_is_missing_is_refused(endpoint: str, operator: zloom.Operator) -> None:
    async with trainer(endpoint):
        with pytest.raises(
            RecordingError, match="lm cannot be steered as it was recorded: it has no key 'x'"
        ):
            await replay(operator, (3, {"x": 0.1, "rate": 0.1})).differences()


async def test_a_run_that_was_steered_already_is_told(endpoint: str, operator: zloom.Operator) -> None:
    async with trainer(endpoint) as training:
        await operator.set("lm", {"rate": 0.1}, wait=False)
        await training.train(1)
        assert "it was steered already: rate" in await replay(operator, (9, {"rate": 0.1})).differences()


async def test_a_recording_that_waited_has_what_was_declared_after_the_hello(
    endpoint: str, operator: zloom.Operator, tmp_path: Path
) -> None:
    """As a Lightning module's keys are. And it has all points, though it began once the first were told."""
    recorder = Recorder(operator, "lm")
    waits: asyncio.Queue[str] = asyncio.Queue()
    beginning = asyncio.create_task(begun(recorder))
    recording_it = asyncio.create_task(recorder.record(tmp_path / "file", wait=waits.put_nowait))
    await asyncio.wait_for(waits.get(), DEADLINE)
    async with trainer(endpoint) as training:
        training.weavelet.on_config("late", initial=1)(lambda value: None)
        await training.train(3)
        header = await beginning
    assert "late" in [key.name for key in header.keys]
    assert (await ended(recording_it)).metrics == ["loss"]
    points = [
        step
        for each in RecordingReader(tmp_path / "file").records()
        if isinstance(each, recording.Reported) and "loss" in each.metrics
        for step in each.metrics["loss"].steps
    ]
    assert points[0] == 1


async def test_a_recording_that_waited_lost_nothing_meanwhile(
    endpoint: str, operator: zloom.Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zloom.client.feeds.FEED_LIMIT", 3)
    recorder = Recorder(operator, "lm")
    waits: asyncio.Queue[str] = asyncio.Queue()
    recording_it = asyncio.create_task(recorder.record(tmp_path / "file", wait=waits.put_nowait))
    await asyncio.wait_for(waits.get(), DEADLINE)
    async with operator.watch("lm") as feed, trainer(endpoint) as training:
        for number in range(4):
            training.weavelet.report(compiled=number)
            async for seen in feed:
                if isinstance(seen, Reported) and "compiled" in seen.metrics:
                    break
        beginning = asyncio.create_task(begun(recorder))
        await training.train(1)
        header = await beginning
    recorded = await ended(recording_it)
    assert (recorded.end.missed, recorded.metrics) == (0, ["compiled", "loss"])
    assert [each.step for each in header.replicas] == [0], "no points are missing"
    records = list(RecordingReader(tmp_path / "file").records())
    before = [each for each in records if each.at < header.at]
    assert [each.event.kind for each in before if isinstance(each, recording.Happened)] == [
        "attempt_started",
        "joined",
    ]
    reports = [each for each in before if isinstance(each, recording.Reported)]
    assert all(each.metrics for each in reports), "no status without points"
    compiled = [each.at for each in reports if "compiled" in each.metrics]
    assert len(compiled) == len(set(compiled)) == 4, "each with its own moment"


async def test_a_restart_of_the_broker_before_there_was_a_run_is_none_of_its_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zloom.client.attempts.PAUSE", 0.01)
    waits: asyncio.Queue[str] = asyncio.Queue()
    with free_endpoint("ipc") as place:
        async with running_broker(tmp_path, endpoint=place):
            operator_context = zloom.connect(place)
            operator = await operator_context.__aenter__()
            recorder = Recorder(operator, "lm")
            recording_it = asyncio.create_task(recorder.record(tmp_path / "file", wait=waits.put_nowait))
            await asyncio.wait_for(waits.get(), DEADLINE)
            feed = operator.watch("lm")
        async with running_broker(tmp_path, endpoint=place):
            async with asyncio.timeout(DEADLINE):
                while not feed.restarts:  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            async with trainer(place) as training:
                beginning = asyncio.create_task(begun(recorder))
                await training.train(1)
                await beginning
            recorded = await ended(recording_it)
            await operator_context.__aexit__(None, None, None)
    assert (recorded.end.missed, recorded.end.restarts, recorded.metrics) == (0, 0, ["loss"])


async def test_a_recorder_that_is_stopped_while_it_waits_makes_no_file(
    operator: zloom.Operator, tmp_path: Path
) -> None:
    recorder = Recorder(operator, "lm")
    waits: asyncio.Queue[str] = asyncio.Queue()
    recording_it = asyncio.create_task(recorder.record(tmp_path / "file", wait=waits.put_nowait))
    await asyncio.wait_for(waits.get(), DEADLINE)
    recorder.stop()
    with pytest.raises(RecordingError, match=r"stopped before .*/file was begun: nothing is recorded"):
        await asyncio.wait_for(recording_it, CATCH_UP)
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("wait", [None, lambda why: None], ids=["at once", "with a wait"])
async def test_a_recorder_that_is_stopped_before_its_broker_answered_makes_no_file(
    tmp_path: Path, wait: OnWait | None
) -> None:
    async with running_broker(tmp_path) as broker:
        operator_context = zloom.connect(broker.endpoint)
        operator = await operator_context.__aenter__()
        recorder = Recorder(operator, "lm")
        async with operator.watch("lm"):
            pass  # so that the broker has the recorder's subscription too
    recording_it = asyncio.create_task(recorder.record(tmp_path / "file", wait=wait))
    await asyncio.sleep(0.1)  # it asks
    assert not recording_it.done()
    recorder.stop()
    with pytest.raises(RecordingError, match="nothing is recorded"):
        await asyncio.wait_for(recording_it, CATCH_UP)
    await operator_context.__aexit__(None, None, None)
    assert not (tmp_path / "file").exists()


async def test_a_file_that_cannot_be_written_is_refused_before_the_wait(
    operator: zloom.Operator, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.touch()
    for path, why in (there, "is there already"), (tmp_path / "no" / "folder", "there is no folder"):
        recorder = Recorder(operator, "lm")
        with pytest.raises(RecordingError, match=why):
            await asyncio.wait_for(recorder.record(path, wait=lambda _: None), DEADLINE)


async def test_a_recorder_that_is_stopped_before_it_is_used_makes_no_file(
    operator: zloom.Operator, tmp_path: Path
) -> None:
    recorder = Recorder(operator, "lm")
    recorder.stop()
    with pytest.raises(RecordingError, match="nothing is recorded"):
        await asyncio.wait_for(recorder.record(tmp_path / "file", wait=lambda why: None), CATCH_UP)


async def test_what_is_waited_for_is_told_whenever_it_is_something_else(
    endpoint: str, operator: zloom.Operator
) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    waiting = asyncio.create_task(training_attempt(operator, "lm", wait=told.put_nowait))

    async def next_told() -> str:
        return await asyncio.wait_for(told.get(), DEADLINE)

    assert await next_told() == "there is no run lm"
    with zloom.Weavelet("lm", broker=endpoint, attempt="one", rank=0, world_size=2) as first:
        assert await asyncio.to_thread(first.wait_until_active, DEADLINE)
        assert await next_told() == "not all 2 ranks of lm (one) are live"
    assert await next_told() == "no rank of lm (one) is live"
    async with trainer(endpoint) as training:
        assert await next_told() == "lm (one) has not begun its first step"
        assert not waiting.done()
        await training.train(1)
        assert (await asyncio.wait_for(waiting, DEADLINE)).attempt == "one"
    assert told.empty(), "each once"


async def test_an_attempt_that_does_not_train_is_refused(endpoint: str, operator: zloom.Operator) -> None:
    with pytest.raises(Refused, match="there is no run lm; start it, or wait for it with --wait") as refused:
        await training_attempt(operator, "lm")
    assert refused.value.code == "no_replica"
    async with trainer(endpoint) as training:
        with pytest.raises(
            Refused, match=r"lm \(one\) has not begun its first step; wait for it with --wait"
        ):
            await training_attempt(operator, "lm")
        with pytest.raises(Refused, match="there is no attempt two of lm; start it"):
            await training_attempt(operator, "lm", attempt="two")
        await training.train(1)
        assert (await training_attempt(operator, "lm", wait=lambda why: None)).attempt == "one"
        with pytest.raises(Refused, match="no attempt of lm other than one, which was recorded; start one"):
            await training_attempt(operator, "lm", without="one")


async def test_the_recorded_attempt_is_named_where_no_other_one_is_live(
    endpoint: str, operator: zloom.Operator
) -> None:
    def weavelet(attempt: str) -> zloom.Weavelet:
        return zloom.Weavelet("lm", broker=endpoint, attempt=attempt, rank=0, world_size=1)

    for attempt in ("old", "older"):
        with weavelet(attempt) as ended:
            assert await asyncio.to_thread(ended.wait_until_active, DEADLINE)
    rest = "is live; start one, or wait for it with --wait$"
    with weavelet("two") as recorded:
        assert await asyncio.to_thread(recorded.wait_until_active, DEADLINE)
        with pytest.raises(Refused, match=f"^no attempt of lm but the recorded one {rest}"):
            await training_attempt(operator, "lm", without="two")
    while any(each.live for each in await operator.runs("lm")):
        pass  # its goodbye is on its way
    with pytest.raises(Refused, match=f"^no attempt of lm {rest}"):
        await training_attempt(operator, "lm", without="two")


async def test_however_much_happens_the_broker_is_not_asked_more_often(
    endpoint: str, operator: zloom.Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zloom.client.attempts.PAUSE", 2 * DEADLINE)
    asked: list[str] = []
    ask = operator.runs

    def runs(run: str) -> Coroutine[None, None, list[RunStatus]]:
        asked.append(run)
        return ask(run)

    monkeypatch.setattr(operator, "runs", runs)
    told: asyncio.Queue[str] = asyncio.Queue()
    async with trainer(endpoint), operator.watch("lm") as feed:
        waiting = asyncio.create_task(training_attempt(operator, "lm", wait=told.put_nowait))
        await asyncio.wait_for(told.get(), DEADLINE)
        for _ in range(20):
            await operator.set("lm", {"rate": 0.1}, supersede=True, wait=False)
            await anext(feed)
        waiting.cancel()
    assert asked == ["lm"]
