"""The broker on real sockets, and as a process that is stopped and killed."""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.shell.scripted_peer import RATE, Peer, connected, events, first, replica
from tests.support import (
    DEADLINE,
    TRANSPORTS,
    BrokerProcess,
    RunningBroker,
    Transport,
    broker_process,
    free_endpoint,
    free_ports,
    running_broker,
)
from zloom import codec
from zloom import messages as m
from zloom.errors import JournalError, TransportError
from zloom.model import Key, Outcome, Schema
from zloom.socket_options import new_context
from zloom_broker.addresses import Bound
from zloom_broker.core import Core
from zloom_broker.effects import Bug
from zloom_broker.pulse import Pulse
from zloom_broker.steering import Steering


@contextlib.asynccontextmanager
async def one_of_each(broker: RunningBroker) -> AsyncIterator[tuple[Peer, Peer]]:
    """An operator and a weavelet that is in step."""
    with (
        connected(broker.context, broker.endpoint) as operator,
        connected(broker.context, broker.endpoint) as weavelet,
    ):
        await operator.hello()
        await weavelet.hello(replica("a"))
        yield operator, weavelet


def change(number: int, **more: Any) -> m.SetConfig:
    """Return a config update with its own request id."""
    changes: dict[str, Any] = {"learning_rate": 1 / (number + 1)}
    return m.SetConfig(id=f"q{number}", run="run", changes=changes, mode="next", **more)


# --- on the test's loop ---------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_change_goes_round(tmp_path: Path, transport: Transport) -> None:
    async def scenario() -> None:
        async with running_broker(tmp_path, transport) as broker, one_of_each(broker) as (operator, weavelet):
            state = await operator.ask(change(1))
            assert (state.revision, state.settled, state.durable) == (1, False, True)
            revised = await weavelet.hear(m.Revised)
            assert revised.revision.changes == {"learning_rate": 0.5}
            applied = Outcome("a", 0, "applied", 7)
            weavelet.send(m.Outcomes(epoch=broker.server.epoch, outcomes={1: applied}))
            await weavelet.get(m.Ping, recorded=[1])
            settled = await operator.get(m.RevisionState, settled=True)
            assert settled.outcomes == [applied]
            assert (await operator.hear(m.Answered)).outcomes == [applied]

    asyncio.run(scenario())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_restart_keeps_history_and_request_ids(tmp_path: Path, transport: Transport) -> None:
    async def scenario() -> None:
        async with running_broker(tmp_path, transport) as broker, one_of_each(broker) as (operator, _):
            before = broker.server.epoch
            for number in range(5):
                await operator.ask(change(number))
        async with running_broker(tmp_path, transport) as broker:
            assert broker.server.epoch != before
            with connected(broker.context, broker.endpoint) as operator:
                welcome = await operator.hello()
                assert welcome.epoch == broker.server.epoch
                again = await operator.ask(change(3))
                assert (again.revision, again.duplicate) == (4, True)
                history = await operator.ask(m.GetHistory(id="h", run="run"))
                values = [entry.revision.changes["learning_rate"] for entry in history.entries]
                assert values == [1 / (number + 1) for number in reversed(range(5))]

    asyncio.run(scenario())


def test_updates_are_at_the_port_beside_control(tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        async with running_broker(tmp_path, endpoint=f"tcp://127.0.0.1:{port}") as broker:
            (pair,) = broker.server.addresses.bound
            assert pair == Bound(f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port + 1}")
            async with one_of_each(broker) as (operator, _):
                assert (await operator.ask(change(1))).revision == 1

    asyncio.run(scenario(free_ports()))


def test_a_port_for_updates_that_is_taken_is_named_with_its_reason(tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        with socket.create_server(("127.0.0.1", port + 1)):
            expected = rf"127.0.0.1:{port + 1}: another process .* \(updates of tcp://127.0.0.1:{port}, which"
            with pytest.raises(TransportError, match=expected):
                async with running_broker(tmp_path, endpoint=f"tcp://127.0.0.1:{port}"):
                    pass

    asyncio.run(scenario(free_ports()))


def test_a_peer_that_is_not_known_must_say_hello(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_broker(tmp_path) as broker:
            with connected(broker.context, broker.endpoint) as peer:
                peer.send(m.GetRuns(id="q"))
                await peer.get(m.HelloRequired)

    asyncio.run(scenario())


def raise_once(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of the core that raises at its first call."""
    calls = itertools.count()

    def broken(core: Core, *arguments: Any) -> Any:
        if next(calls) == 0:
            raise RuntimeError("a bug")
        return method(core, *arguments)

    return broken


def test_a_bug_in_the_core_costs_neither_the_beat_nor_anybody_elses_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        rang = asyncio.Event()

        def ring(*_: object) -> None:
            rang.set()
            raise RuntimeError("a bug")

        async with running_broker(tmp_path) as broker, one_of_each(broker) as (operator, weavelet):
            with monkeypatch.context() as bug:
                bug.setattr(Steering, "accepted", lambda *_: 1 / 0)
                bug.setattr(Pulse, "on_timer", ring)
                bug.setattr(Core, "next_timer", raise_once(Core.next_timer))
                bug.setattr(Core, "end_turn", raise_once(Core.end_turn))
                assert (await operator.ask(change(1))).revision == 1
                assert (await operator.ask(change(2))).revision == 2
                async with asyncio.timeout(DEADLINE):
                    await rang.wait()
            weavelet.updates.clear()
            await weavelet.hear(m.Beat, revision=2)
            stats = await operator.ask(m.GetStats(id="stats"))
            assert stats.counters["internal_errors"] >= 3

    asyncio.run(scenario())


def test_a_bug_that_ended_one_request_is_logged_with_where(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with running_broker(tmp_path) as broker:
            assert broker.server._core is not None
            try:
                raise RuntimeError("a bug")
            except RuntimeError as error:
                broker.server._carry_out(broker.server._core, [Bug(error)])

    asyncio.run(scenario())
    assert "a request could not be handled\nTraceback" in caplog.text
    assert "in scenario\n" in caplog.text


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.fault("abuse: garbage in messages, on each transport", "told", "counted")
def test_garbage_leaves_others_served(tmp_path: Path, transport: Transport) -> None:
    async def scenario() -> None:
        async with running_broker(tmp_path, transport) as broker, one_of_each(broker) as (operator, _):
            with connected(broker.context, broker.endpoint) as stranger:
                magic = codec.MAGIC
                stranger.send_frames(b"")
                stranger.send_frames(b"GET / HTTP/1.1", b"", b"")
                stranger.send_frames(magic, b"\xc1")
                stranger.send_frames(magic, b"\x91" * 5000)
                stranger.send_frames(magic, b"\xdd\xff\xff\xff\xff")
                stranger.send_frames(magic, codec.encode(m.HelloRequired()))
                await stranger.until(lambda peer: len(peer.inbox) >= 6)
                assert [error.code for error in stranger.inbox] == ["bad_message"] * 5 + ["unknown_type"]
            assert (await operator.ask(change(1))).revision == 1
            counters = (await operator.ask(m.GetStats(id="s"))).counters
            assert (counters["bad_message"], counters["unknown_type"]) == (5, 1)

    asyncio.run(scenario())


@pytest.mark.fault("abuse: a frame beyond the limit", "served")
def test_a_frame_beyond_the_limit_costs_only_its_sender(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_broker(tmp_path, "tcp") as broker, one_of_each(broker) as (operator, _):
            with connected(broker.context, broker.endpoint) as stranger:
                stranger.send_frames(codec.MAGIC, bytes(codec.MAX_MESSAGE_SIZE + 1))
                assert (await operator.ask(change(1))).revision == 1

    asyncio.run(scenario())


def test_an_answer_that_is_too_long_becomes_a_refusal(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_broker(tmp_path) as broker, one_of_each(broker) as (operator, _):
            for rank in (1, 2):
                with connected(broker.context, broker.endpoint) as weavelet:
                    keys = [
                        Key(f"key{n}-{rank}", RATE.schema, 0.1, description="x" * 600) for n in range(1000)
                    ]
                    await weavelet.hello(replica(f"r{rank}", rank, keys))
            refusal = await operator.ask(m.GetKeys(id="k", run="run"))
            assert isinstance(refusal, m.Refusal)
            assert refusal.code == "too_large"
            assert (await operator.ask(m.GetStats(id="s"))).counters["answers_too_long"] == 1

    asyncio.run(scenario())


def test_a_weavelet_that_vanishes_is_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_broker(tmp_path, "ipc") as broker, one_of_each(broker) as (operator, weavelet):
            await operator.ask(change(1))
            weavelet.close()
            settled = await operator.get(m.RevisionState, settled=True)
            assert [outcome.outcome for outcome in settled.outcomes] == ["lost"]

    asyncio.run(scenario())


def test_another_broker_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_broker(tmp_path / "one", "ipc") as broker:
            with pytest.raises(TransportError, match=r"another process already listens there[^\n]*$"):
                async with running_broker(tmp_path / "two", endpoint=broker.endpoint):
                    pass
            with pytest.raises(JournalError, match=r"^[^\n]*another broker[^\n]*$"):
                async with running_broker(tmp_path / "one", "ipc"):
                    pass
            with connected(broker.context, broker.endpoint) as operator:
                await operator.hello()

    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    asyncio.run(scenario())


@pytest.mark.fault("journal: damaged, and served read-only", "told", "kept")
def test_a_damaged_journal_is_served_read_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_broker(tmp_path) as broker, one_of_each(broker) as (operator, _):
            await operator.ask(change(1))
        (tmp_path / "broker" / "head").write_bytes(b"no head")
        async with running_broker(tmp_path) as broker, one_of_each(broker) as (operator, weavelet):
            refusal = await operator.ask(change(2))
            assert (refusal.code, refusal.id) == ("read_only", "q2")
            assert first(weavelet.inbox, m.Snapshot).revision == 1
            history = await operator.ask(m.GetHistory(id="h", run="run"))
            assert [entry.revision.revision for entry in history.entries] == [1]

    asyncio.run(scenario())


# --- in a process of its own ------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def operator_at(endpoint: str) -> AsyncIterator[Peer]:
    """An operator with a context of its own."""
    context = new_context()
    try:
        with connected(context, endpoint) as operator:
            await operator.hello()
            yield operator
    finally:
        context.destroy(linger=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.fault("broker: SIGTERM and SIGINT", "left")
def test_g12_a_signal_ends_it_within_two_seconds(tmp_path: Path, number: signal.Signals) -> None:
    async def scenario() -> None:
        with free_endpoint("ipc") as endpoint, broker_process(tmp_path / "broker", endpoint) as broker:
            async with operator_at(broker.endpoint) as operator:
                with connected(operator.context, broker.endpoint) as weavelet:
                    await weavelet.hello(replica("a"))
                    broker.process.send_signal(number)
                    began = time.monotonic()
                    assert await asyncio.to_thread(broker.process.wait, DEADLINE) == 0
                    assert time.monotonic() - began < 2.0
        assert "Traceback" not in broker.log.read_text()

    asyncio.run(scenario())


@pytest.mark.parametrize("durability", ["fsync", "buffered"])
@pytest.mark.fault("broker: killed in a burst, fsync and buffered", "kept", "consecutive", "once")
def test_g1_kill_in_a_burst_loses_nothing_accepted(tmp_path: Path, durability: Any) -> None:
    async def burst(endpoint: str, kill: Callable[[], None]) -> dict[str, int]:
        accepted: dict[str, int] = {}
        async with operator_at(endpoint) as operator:
            with connected(operator.context, endpoint) as weavelet:
                await weavelet.hello(replica("a"))
                for number in range(200):
                    operator.send(change(number))
                await operator.until(
                    lambda peer: sum(isinstance(x, m.RevisionState) for x in peer.inbox) >= 50
                )
                kill()
            for message in operator.inbox:
                if isinstance(message, m.RevisionState):
                    accepted[message.id] = message.revision
        return accepted

    async def check(endpoint: str, accepted: dict[str, int]) -> None:
        async with operator_at(endpoint) as operator:
            history = await operator.ask(m.GetHistory(id="h", run="run", limit=1000))
            made = {entry.revision.request_id: entry.revision.revision for entry in history.entries}
            assert accepted.items() <= made.items()
            assert sorted(made.values()) == list(range(1, len(made) + 1))
            again = await operator.ask(change(0))
            assert (again.revision, again.duplicate) == (accepted["q0"], True)

    with free_endpoint("ipc") as endpoint:
        with broker_process(tmp_path / "broker", endpoint, durability=durability) as broker:
            accepted = asyncio.run(burst(broker.endpoint, broker.process.kill))
        assert len(accepted) >= 50
        with broker_process(tmp_path / "broker", endpoint, durability=durability) as broker:
            asyncio.run(check(broker.endpoint, accepted))


WEAVELET = """
import asyncio, sys
from tests.shell.scripted_peer import Peer, replica
from zloom.socket_options import new_context
async def main():
    peer = Peer(new_context(), sys.argv[1])
    await peer.hello(replica("a"))
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("transport", "number", "limit"),
    [("ipc", signal.SIGKILL, 2.0), ("tcp", signal.SIGKILL, 2.0), ("tcp", signal.SIGSTOP, 6.0)],
)
@pytest.mark.fault("trainer: killed or stopped, on ipc and tcp", "detected")
def test_g10_a_process_that_is_gone_is_lost_in_time(
    tmp_path: Path, transport: Transport, number: signal.Signals, limit: float
) -> None:
    async def scenario() -> None:
        async with running_broker(tmp_path, transport) as broker:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", WEAVELET, broker.endpoint, stdout=pipe, env=environment
            )
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
            with connected(broker.context, broker.endpoint) as operator:
                await operator.hello()
                process.send_signal(number)
                began = time.monotonic()
                await operator.until(lambda peer: "lost" in events(peer))
                assert time.monotonic() - began < limit
            if number is not signal.SIGKILL:
                process.kill()
            await process.wait()

    search = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": search}
    asyncio.run(scenario())


NO_ROOM = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
"""


@pytest.mark.fault("broker: a limit on the size of files", "told", "kept")
def test_g1_a_journal_without_room_refuses_and_reads_go_on(tmp_path: Path) -> None:
    async def scenario(endpoint: str) -> None:
        async with operator_at(endpoint) as operator:
            with connected(operator.context, endpoint) as weavelet:
                keys = [Key("text", Schema(["string"]), "")]
                await weavelet.hello(replica("a", 0, keys))
                accepted = 0
                for number in range(100):
                    changes: dict[str, Any] = {"text": f"{number}" + "x" * 20_000}
                    request = m.SetConfig(id=f"q{number}", run="run", changes=changes, mode="next")
                    answer = await operator.ask(request)
                    if isinstance(answer, m.Refusal):
                        break
                    accepted = answer.revision
                assert answer.code == "journal_failed"
                assert accepted > 0
                history = await operator.ask(m.GetHistory(id="h", run="run", limit=1))
                assert history.entries[0].revision.revision == accepted

    with (
        free_endpoint("ipc") as endpoint,
        broker_process(tmp_path / "broker", endpoint, prelude=NO_ROOM) as broker,
    ):
        asyncio.run(scenario(broker.endpoint))


@pytest.mark.fault("broker: its data folder deleted", "told")
def test_g1_a_data_folder_that_was_deleted_refuses_and_reads_go_on(tmp_path: Path) -> None:
    async def scenario(broker: BrokerProcess) -> None:
        async with operator_at(broker.endpoint) as operator:
            with connected(operator.context, broker.endpoint) as weavelet:
                await weavelet.hello(replica("a"))
                assert (await operator.ask(change(1))).revision == 1
                shutil.rmtree(tmp_path / "broker")
                refusal = await operator.ask(change(2))
                assert (refusal.code, refusal.id) == ("journal_failed", "q2")
                assert f"{tmp_path}/broker/lock was removed while the broker runs" in refusal.text
                history = await operator.ask(m.GetHistory(id="h", run="run"))
                assert [entry.revision.revision for entry in history.entries] == [1]
        assert not (tmp_path / "broker").exists()

    with free_endpoint("ipc") as endpoint, broker_process(tmp_path / "broker", endpoint) as broker:
        asyncio.run(scenario(broker))


def test_a_second_process_is_refused_with_one_line(tmp_path: Path) -> None:
    with free_endpoint("ipc") as endpoint, broker_process(tmp_path / "broker", endpoint) as broker:
        with (
            pytest.raises(AssertionError, match="another broker"),
            broker_process(tmp_path / "broker", endpoint),
        ):
            pass
        assert broker.process.poll() is None


def test_readiness_is_one_line(tmp_path: Path) -> None:
    with broker_process(tmp_path / "broker", "tcp://127.0.0.1:*") as broker:
        assert not broker.endpoint.endswith("*")
        assert not broker.updates.endswith("*")
