"""Which updates endpoint goes with which control endpoint."""

import pytest

from zloom.errors import SettingsError
from zloom_broker.addresses import Addresses, Bound, updates_endpoint

PAIRS = (
    Bound("ipc:///run/control", "ipc:///run/control.updates"),
    Bound("tcp://0.0.0.0:5555", "tcp://0.0.0.0:6001"),
    Bound("tcp://127.0.0.1:5556", "tcp://127.0.0.1:6002"),
    Bound("inproc://hub", "inproc://hub.updates"),
)


@pytest.mark.parametrize(
    ("reached", "told"),
    [
        ("tcp://gpu7:5555", "tcp://*:6001"),
        ("tcp://[::1]:5556", "tcp://*:6002"),
        ("tcp://translated:9999", "tcp://*:6001"),
        ("ipc:///run/control", "ipc:///run/control.updates"),
        ("ipc:///link/to/control", "ipc:///run/control.updates"),
        ("inproc://hub", "inproc://hub.updates"),
        ("", "ipc:///run/control.updates"),
    ],
)
def test_a_peer_is_told_the_updates_that_it_can_reach(reached: str, told: str) -> None:
    assert Addresses(PAIRS).updates_for(reached) == told


def test_what_is_advertised_is_for_tcp_alone() -> None:
    addresses = Addresses(PAIRS, "tcp://public:7000")
    assert addresses.updates_for("tcp://gpu7:5555") == "tcp://public:7000"
    assert addresses.updates_for("ipc:///run/control") == "ipc:///run/control.updates"


@pytest.mark.parametrize(
    ("asked", "control", "updates"),
    [
        ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556"),
        ("tcp://eth0:5555", "tcp://10.0.0.7:5555", "tcp://10.0.0.7:5556"),
        ("tcp://[::1]:5555", "tcp://[::1]:5555", "tcp://[::1]:5556"),
        ("tcp://127.0.0.1:*", "tcp://127.0.0.1:40001", "tcp://127.0.0.1:*"),
        ("tcp://[::1]:0", "tcp://[::1]:40001", "tcp://[::1]:*"),
        ("ipc:///run/control", "ipc:///run/control", "ipc:///run/control.updates"),
        ("inproc://hub", "inproc://hub", "inproc://hub.updates"),
    ],
)
def test_updates_are_bound_beside_control(asked: str, control: str, updates: str) -> None:
    assert updates_endpoint(asked, control) == updates


@pytest.mark.parametrize("control", ["", "udp://127.0.0.1:1", "ipc://", "control.sock"])
def test_what_is_no_endpoint_is_said(control: str) -> None:
    with pytest.raises(SettingsError, match="expected tcp://HOST:PORT"):
        updates_endpoint(control, control)
