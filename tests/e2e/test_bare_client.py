"""A peer without zloom: the protocol is what docs/protocol.md says, and no more is needed."""

import ast
import contextlib
import importlib.util
import os
import secrets
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.support import DEADLINE, broker_process, free_endpoint
from zloom import codec
from zloom.endpoints import runtime_endpoint
from zloom.messages import (
    FromBroker,
    GetKeys,
    Hello,
    Keys,
    Refusal,
    RevisionState,
    SetConfig,
    ToBroker,
    Welcome,
)

SCRIPT = Path(__file__).parents[2] / "examples" / "bare_client.py"


@contextlib.contextmanager
def bare_client(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-u", str(SCRIPT), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], DEADLINE)
    assert ready, "the bare client said nothing"
    return process.stdout.readline()


class Operator:
    """The other side, by hand: a DEALER and the codec."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.connect(endpoint)
        self._send(Hello(protocols=[1], role="operator", user="test"))
        assert isinstance(self._next(), Welcome)

    def set_learning_rate(self, value: float) -> Refusal | RevisionState:
        """Return the settled state of the change, or why it was refused."""
        self._send(SetConfig(id=secrets.token_hex(8), run="bare", changes={"learning_rate": value}))
        while True:
            match self._next():
                case Refusal() | RevisionState(settled=True) as answer:
                    return answer

    def learning_rate(self) -> object:
        self._send(GetKeys(id=secrets.token_hex(8), run="bare"))
        while True:
            match self._next():
                case Keys() as answer:
                    return answer.keys[0].value

    def _send(self, message: ToBroker) -> None:
        self._socket.send_multipart(codec.control_frames(message))

    def _next(self) -> FromBroker:
        assert self._socket.poll(int(DEADLINE * 1000)), "the broker said nothing"
        return codec.from_broker.decode(codec.control_payload(self._socket.recv_multipart()))


@contextlib.contextmanager
def operator(endpoint: str) -> Iterator[Operator]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        yield Operator(context, endpoint)
    finally:
        context.destroy(linger=0)


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_a_bare_client_takes_a_change_and_leaves(tmp_path: Path, transport: str) -> None:
    with (
        free_endpoint("tcp" if transport == "tcp" else "ipc") as endpoint,
        broker_process(tmp_path / "data", endpoint) as broker,
        bare_client("--broker", broker.endpoint) as client,
    ):
        assert next_line(client) == "run bare is active at revision 0\n"
        with operator(broker.endpoint) as me:
            refused = me.set_learning_rate(2.0)
            assert isinstance(refused, Refusal)
            assert refused.code == "out_of_bounds"
            state = me.set_learning_rate(0.01)
            assert isinstance(state, RevisionState)
            [outcome] = state.outcomes
            assert (state.revision, outcome.outcome, outcome.error) == (1, "applied", "")
            assert next_line(client) == f"revision 1 at step {outcome.step}: {{'learning_rate': 0.01}}\n"
            assert client.wait(DEADLINE) == 0
            assert me.learning_rate() == 0.01
            gone = me.set_learning_rate(0.02)
            if isinstance(gone, RevisionState):  # overtook the goodbye, which is on another connection
                assert [(each.outcome, each.error) for each in gone.outcomes] == [("not_reached", "finished")]
                gone = me.set_learning_rate(0.02)
            assert isinstance(gone, Refusal)
            assert gone.code == "no_replica"


def test_a_bare_client_finds_its_broker_by_the_environment(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="zloom-", dir="/tmp") as folder:
        (Path(folder) / "zloom").mkdir(mode=0o700)
        endpoint = f"ipc://{folder}/zloom/control.sock"
        with broker_process(tmp_path / "data", endpoint) as broker, operator(broker.endpoint) as me:
            for environment in (
                {"ZLOOM_BROKER": endpoint},
                {"ZLOOM_BROKER": "", "XDG_RUNTIME_DIR": folder},
            ):
                with bare_client(**environment) as client:
                    assert next_line(client).startswith("run bare is active")
                    assert isinstance(me.set_learning_rate(0.5), RevisionState)
                    assert client.wait(DEADLINE) == 0


def test_a_bare_client_looks_where_the_broker_is_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("bare_client", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tmp_path.chmod(0o700)
    for folder in (str(tmp_path), ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        assert module.default_broker() == runtime_endpoint()


def test_a_bare_client_outlives_a_broker_that_is_killed(tmp_path: Path) -> None:
    with free_endpoint("ipc") as endpoint, contextlib.ExitStack() as later:
        with broker_process(tmp_path / "data", endpoint) as broker:
            client = later.enter_context(bare_client("--broker", endpoint, "--changes", "2"))
            next_line(client)
            with operator(endpoint) as me:
                me.set_learning_rate(0.5)
            next_line(client)
            broker.process.kill()
            broker.process.wait()
        with broker_process(tmp_path / "data", endpoint), operator(endpoint) as me:
            state = me.set_learning_rate(0.25)
            assert isinstance(state, RevisionState)
            assert [(each.rank, each.outcome) for each in state.outcomes] == [(0, "applied")]
            assert state.revision == 2
            assert "revision 2" in next_line(client)
            assert client.wait(DEADLINE) == 0


def test_a_bare_client_imports_nothing_of_zloom() -> None:
    imported = {
        name
        for node in ast.walk(ast.parse(SCRIPT.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    third_party = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    assert third_party == {"msgpack", "zmq"}
