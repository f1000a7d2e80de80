from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from zloom.endpoints import IpcClaim, ipc_path, is_deserted, runtime_endpoint
from zloom.errors import TransportError


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def test_a_peer_gets_the_name_and_creates_nothing(runtime: Path) -> None:
    assert runtime_endpoint() == f"ipc://{runtime}/zloom/control.sock"
    assert list(runtime.iterdir()) == []


def test_the_broker_makes_a_folder_that_nobody_else_can_enter(runtime: Path) -> None:
    before = os.umask(0)
    try:
        assert runtime_endpoint(create=True) == runtime_endpoint()
    finally:
        os.umask(before)
    assert stat.S_IMODE((runtime / "zloom").stat().st_mode) == 0o700
    assert runtime_endpoint(create=True) == runtime_endpoint()


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_open_to_others_is_refused(runtime: Path, create: bool) -> None:
    (runtime / "zloom").mkdir()
    (runtime / "zloom").chmod(0o750)
    with pytest.raises(TransportError, match=r"has mode 0750, .*run: chmod 700 .*/zloom"):
        runtime_endpoint(create=create)


@pytest.mark.parametrize("create", [True, False])
def test_a_link_to_another_folder_is_refused(runtime: Path, tmp_path: Path, create: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (runtime / "zloom").symlink_to(elsewhere)
    with pytest.raises(TransportError, match="is not a folder"):
        runtime_endpoint(create=create)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(runtime: Path) -> None:
    (runtime / "zloom").mkdir(mode=0o700)
    os.chown(runtime / "zloom", 12345, -1)
    with pytest.raises(TransportError, match="belongs to user id 12345, not to yours"):
        runtime_endpoint()


def test_without_xdg_runtime_dir_there_is_a_default_and_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert runtime_endpoint().endswith("/zloom/control.sock")


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    with pytest.raises(
        TransportError, match=r"is \d+ bytes long, but a socket's may have \d+; use a shorter one"
    ):
        runtime_endpoint()


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("ipc:///run/x", "/run/x"),
        ("ipc://relative", "relative"),
        ("ipc://@abstract", None),
        ("ipc://*", None),
        ("tcp://127.0.0.1:0", None),
        ("inproc://x", None),
    ],
)
def test_which_endpoints_have_a_file(endpoint: str, path: str | None) -> None:
    assert ipc_path(endpoint) == path


def claim(path: Path) -> IpcClaim:
    claim = IpcClaim(f"ipc://{path}", 10)
    os.close(claim.listener)
    return claim


def test_one_claim_at_a_time(tmp_path: Path) -> None:
    """Also when nobody listens yet, which is the moment between two that start at once."""
    path = tmp_path / "s"
    first = claim(path)
    with pytest.raises(TransportError, match="already listens there; stop it, or bind another endpoint"):
        claim(path)
    assert path.is_socket()
    first.release()
    assert not path.exists()
    claim(path).release()


def test_a_listener_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        with pytest.raises(TransportError, match="already listens there"):
            claim(path)
        with pytest.raises(TransportError, match="already listens there"):
            claim(path)  # the first probe now fills its backlog
    assert path.is_socket()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    claim(path).release()


def test_a_file_that_is_no_socket_is_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(TransportError, match="is not a socket; use another path or remove it"):
        claim(path)
    assert path.read_text() == "precious"
    path.unlink()
    claim(path).release()  # the refusal did not keep the lock


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=r"the folder .*/nowhere does not exist; create it"):
        claim(tmp_path / "nowhere" / "s")


def test_a_long_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="bytes long"):
        claim(tmp_path / ("x" * 120))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_one_may_not_write_to_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TransportError, match="you may not write to the folder"):
        claim(tmp_path / "s")


def test_a_look_tells_whether_anybody_listens(tmp_path: Path) -> None:
    path = tmp_path / "control"
    assert is_deserted(f"ipc://{path}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.setblocking(False)
        listener.bind(str(path))
        assert is_deserted(f"ipc://{path}")
        listener.listen(0)
        assert not is_deserted(f"ipc://{path}")
        assert not is_deserted(f"ipc://{path}"), "its backlog is full"
    assert is_deserted(f"ipc://{path}"), "a killed broker leaves its file"


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:9", "ipc://@nobody", "inproc://a", f"ipc:///{'x' * 200}"]
)
def test_of_what_a_look_does_not_tell_nobody_is_said_to_be_gone(endpoint: str) -> None:
    assert not is_deserted(endpoint)
