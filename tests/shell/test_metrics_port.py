"""The broker's numbers as Prometheus reads them."""

import socket
import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from zloom.errors import TransportError
from zloom_broker.load import Numbers
from zloom_broker.metrics_port import serving


def numbers() -> Numbers:
    return Numbers(
        {"received_status": 3, "received_hello": 1, "dropped_for_credit": 2},
        {
            "replicas_live": 4.0,
            "replicas_lost": 0.0,
            "loop_lag_seconds_max": 0.25,
            "rate_received_status": 1.0,
        },
        at=time.monotonic() - 60,
    )


def scraped(port: int) -> dict[tuple[str, ...], float]:
    """Return the samples by name and labels, read by Prometheus's own parser."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {(each.name, *each.labels.values()): each.value for f in families for each in f.samples}


def test_numbers_become_metrics() -> None:
    with serving("127.0.0.1", 0, numbers) as port:
        found = scraped(port)
    age = found.pop(("zloom_numbers_age_seconds",))
    assert 60 <= age < 90
    assert found == {
        ("zloom_received_total", "status"): 3.0,
        ("zloom_received_total", "hello"): 1.0,
        ("zloom_dropped_for_credit_total",): 2.0,
        ("zloom_replicas", "live"): 4.0,
        ("zloom_replicas", "lost"): 0.0,
        ("zloom_loop_lag_seconds_max",): 0.25,
    }


def test_the_port_is_free_again_at_the_end() -> None:
    with serving("127.0.0.1", 0, numbers) as port:
        second = serving("127.0.0.1", port, numbers)
        with pytest.raises(TransportError, match=f"cannot serve metrics at 127.0.0.1:{port}: .*in use"):
            second.__enter__()
    with socket.create_server(("127.0.0.1", port)):
        pass
