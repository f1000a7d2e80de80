"""zloom's own options."""

import pytest

from zloom.endpoints import runtime_endpoint
from zloom.errors import SettingsError
from zloom.settings import ClientSettings, WeaveletSettings, resolve_broker, resolve_start_paused


def test_the_broker_is_the_argument_then_the_variable_then_the_users_socket() -> None:
    environ = {"ZLOOM_BROKER": "tcp://head:5555"}
    assert resolve_broker("ipc:///tmp/x", environ) == "ipc:///tmp/x"
    assert resolve_broker(None, environ) == "tcp://head:5555"
    assert resolve_broker(None, {}) == runtime_endpoint()
    assert resolve_broker(None, {"ZLOOM_BROKER": ""}) == runtime_endpoint()


def test_a_training_starts_paused_by_the_argument_then_by_the_variable() -> None:
    assert resolve_start_paused(5.0, {"ZLOOM_START_PAUSED": "600"}) == 5.0
    assert resolve_start_paused(None, {"ZLOOM_START_PAUSED": "600"}) == 600.0
    assert resolve_start_paused(None, {"ZLOOM_START_PAUSED": ""}) is None
    assert resolve_start_paused(None, {}) is None


@pytest.mark.parametrize("text", ["yes", "0", "-1", "inf", "nan"])
def test_what_is_no_time_to_start_paused_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"START_PAUSED is .*; expected a number of seconds above 0"):
        resolve_start_paused(None, {"ZLOOM_START_PAUSED": text})


@pytest.mark.parametrize("endpoint", ["head:5555", "http://head:5555", "tcp://", "udp://x:1", "tcp://h"])
def test_what_is_no_endpoint_is_refused_naming_where_it_came_from(endpoint: str) -> None:
    with pytest.raises(SettingsError, match=r"broker is .*expected tcp://HOST:PORT"):
        resolve_broker(endpoint, {})
    with pytest.raises(SettingsError, match=r"\$ZLOOM_BROKER is"):
        resolve_broker(None, {"ZLOOM_BROKER": endpoint})


@pytest.mark.parametrize("port", ["65536", "0", "*", "-1", "x", ""])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(SettingsError, match=r"the port is .*; expected a number from 1 to 65535$"):
        resolve_broker(f"tcp://head:{port}", {})


def test_a_status_has_no_more_points_than_a_broker_takes() -> None:
    with pytest.raises(SettingsError, match="status_points is 20001; expected at most 20000"):
        WeaveletSettings(status_points=20_001)


@pytest.mark.parametrize(
    "field", ["metric_points", "status_points", "close_timeout", "farewell", "pause_poll"]
)
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_weavelets_numbers_are_above_0(field: str, value: float) -> None:
    with pytest.raises(SettingsError, match=rf"{field} is .*; expected a number above 0"):
        WeaveletSettings(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["hold_limit", "hold_watch", "start_paused"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_weavelets_optional_numbers_are_none_or_above_0(field: str, value: float) -> None:
    with pytest.raises(SettingsError, match=rf"{field} is .*; expected None or a number above 0"):
        WeaveletSettings(**{field: value})  # type: ignore[arg-type]
    assert getattr(WeaveletSettings(**{field: None}), field) is None  # type: ignore[arg-type]


def test_a_clients_numbers_are_above_0() -> None:
    with pytest.raises(SettingsError, match="timeout is 0"):
        ClientSettings(timeout=0)
