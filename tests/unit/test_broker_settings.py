"""What a broker may bind, and what it says about it."""

from pathlib import Path

import pytest

from zloom.errors import SettingsError
from zloom_broker.keyring import Keyring
from zloom_broker.settings import BrokerSettings


def settings(*bind: str, **others: object) -> BrokerSettings:
    return BrokerSettings(bind=bind, data_dir=Path("unused"), **others)  # type: ignore[arg-type]


@pytest.mark.parametrize("endpoint", ["ipc:///run/zloom/control", "inproc://control"])
def test_what_only_its_owner_reaches_needs_no_word(endpoint: str) -> None:
    assert settings(endpoint).check() == []


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:5555", "tcp://127.8.9.1:*", "tcp://[::1]:5555", "tcp://localhost:5555"]
)
def test_loopback_without_keys_warns_that_anybody_here_can_steer(endpoint: str) -> None:
    (warning,) = settings(endpoint, no_auth=True).check()
    assert endpoint in warning
    assert "anybody on this host can steer" in warning


def test_a_name_in_no_folder_is_open_to_the_host() -> None:
    with pytest.raises(SettingsError, match=r"ipc://@zloom: .* open to everybody on this host; name a path"):
        settings("ipc://@zloom").check()
    (warning,) = settings("ipc://@zloom", no_auth=True).check()
    assert "NO AUTHENTICATION: anybody on this host can steer" in warning


OPEN = ["tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://[::]:5555", "tcp://eth0:5555", "tcp://10.1.2.3:5555"]


@pytest.mark.parametrize("endpoint", [*OPEN, "tcp://127.0.0.1:5555"])
def test_no_address_is_bound_without_keys_or_no_auth(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no keys in .*zloom auth init.*--no-auth"):
        settings("inproc://x", endpoint, auth_dir=tmp_path).check()
    Keyring(tmp_path / "auth").init()
    secured = settings("inproc://x", endpoint, auth_dir=tmp_path / "auth")
    assert secured.check() == []
    assert secured.secured
    assert not settings("inproc://x", endpoint, no_auth=True).secured


@pytest.mark.parametrize("endpoint", OPEN)
def test_an_open_address_warns_with_no_auth(endpoint: str) -> None:
    (warning,) = settings(endpoint, no_auth=True).check()
    assert "NO AUTHENTICATION: anybody who reaches this address can steer" in warning


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "nonsense",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://:5555",
        "tcp://h:x",
        "tcp://h:-1",
        "tcp://h:65536",
        "tcp://::1:5555",
        "udp://h:1",
        "ipc://",
    ],
)
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="expected"):
        settings(endpoint).check()


@pytest.mark.parametrize(
    ("others", "text"),
    [
        ({"durability": "maybe"}, "durability is 'maybe'; expected one of fsync, buffered"),
        ({"log_level": "loud"}, "log level is 'loud'"),
        ({"advertise": "gpu-1"}, "--advertise 'gpu-1': expected tcp://HOST:PORT"),
        ({"advertise": "tcp://gpu-1:*"}, "the port is '\\*'; expected a number from 1 to 65535"),
    ],
)
def test_other_options_are_checked(others: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        settings("inproc://control", **others).check()


def test_the_last_port_leaves_none_for_updates() -> None:
    with pytest.raises(SettingsError, match=r"cannot bind tcp://127.0.0.1:65535: updates need the next port"):
        settings("tcp://127.0.0.1:65535").check()


def test_something_must_be_bound() -> None:
    with pytest.raises(SettingsError, match="no endpoint to bind"):
        settings().check()


def test_by_default_it_binds_a_socket_in_a_folder_of_this_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))  # where the folder is on macOS
    made = BrokerSettings()
    (endpoint,) = made.bind
    folder = Path(endpoint.removeprefix("ipc://")).parent
    assert folder.is_relative_to(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert made.check() == []


@pytest.mark.parametrize(
    ("mode", "may"), [(0o755, "read"), (0o710, "read"), (0o777, "change"), (0o770, "change")]
)
def test_a_data_folder_that_others_can_enter_is_told(tmp_path: Path, mode: int, may: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(mode)
    (warning,) = BrokerSettings(bind=("inproc://x",), data_dir=tmp_path / "data").check()
    assert warning.endswith(f"data has mode {mode:04o}, so others on this host may {may} the journal in it")
    (tmp_path / "data").chmod(0o700)
    assert BrokerSettings(bind=("inproc://x",), data_dir=tmp_path / "data").check() == []
