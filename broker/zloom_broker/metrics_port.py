"""The broker's numbers as Prometheus text over HTTP."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from zloom.errors import TransportError
from zloom_broker.load import RECEIVED, Numbers

RATE = f"rate_{RECEIVED}"
"""Prometheus makes rates of counters itself."""

STATE = "replicas_"
"""What the gauges of replicas begin with; their state follows."""


class BrokerCollector(Collector):
    """Makes metrics of the newest numbers; called on the threads of the HTTP server.

    Args:
        newest: Returns them. It waits for nobody, so that a loop that hangs shows, by an age.
    """

    def __init__(self, newest: Callable[[], Numbers]) -> None:
        self._newest = newest

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        numbers = self._newest()
        yield from _labelled(numbers.counters, RECEIVED, "type", "Messages received on control.")
        for name, count in sorted(numbers.counters.items()):
            if not name.startswith(RECEIVED):
                yield CounterMetricFamily(f"zloom_{_word(name)}", f"{_words(name)}, since it began.", count)
        states = GaugeMetricFamily("zloom_replicas", "Replicas by state.", labels=["state"])
        for name, value in sorted(numbers.gauges.items()):
            if name.startswith(STATE):
                states.add_metric([name.removeprefix(STATE)], value)
            elif not name.startswith(RATE):
                yield GaugeMetricFamily(f"zloom_{_word(name)}", f"{_words(name)}, now.", value)
        yield states
        age = time.monotonic() - numbers.at
        yield GaugeMetricFamily("zloom_numbers_age_seconds", "Since the broker's loop took these.", age)


def _labelled(counters: Mapping[str, int], prefix: str, label: str, text: str) -> Iterator[Metric]:
    family = CounterMetricFamily(f"zloom_{prefix.rstrip('_')}", text, labels=[label])
    for name, count in sorted(counters.items()):
        if name.startswith(prefix):
            family.add_metric([name.removeprefix(prefix)], count)
    yield family


def _word(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


@contextmanager
def serving(host: str, port: int, newest: Callable[[], Numbers]) -> Iterator[int]:
    """Serve the numbers at `/metrics` as long as the block lasts; yields the port.

    Args:
        host: Address to listen at.
        port: 0 for a free one.
        newest: Returns the numbers, on any thread.

    Raises:
        TransportError: Nobody can listen there.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BrokerCollector(newest))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        text = f"cannot serve metrics at {host}:{port}: {error.strerror}; name another --metrics-port"
        raise TransportError(text) from error
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
