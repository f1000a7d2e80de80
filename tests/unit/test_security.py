"""Key files: what is taken for one, when one is looked for, and that nobody else can read it."""

import os
from pathlib import Path

import pytest

from zloom.errors import KeyringError, SettingsError
from zloom.security import ClientKey, new_pair, read_key, resolve_key, with_key, write_key, write_private
from zloom.socket_options import SocketOptions

TCP = "tcp://gpu-1:5555"


def key(folder: Path, **changes: str) -> Path:
    """Write a key file, with these parts changed."""
    folder.chmod(0o700)
    public, secret = new_pair()
    fields = {"user": "ann", "public_key": public, "secret_key": secret, "broker_key": new_pair()[0]}
    write_key(folder / "ann.key", ClientKey(1, **(fields | changes)))
    return folder / "ann.key"


def test_a_key_is_for_tcp_alone(tmp_path: Path) -> None:
    file = key(tmp_path)
    found = resolve_key(None, {"ZLOOM_KEY": str(file)}, TCP)
    assert found == read_key(file, ClientKey)
    assert resolve_key(file, {"ZLOOM_KEY": "/nowhere"}, TCP) == found
    assert resolve_key(None, {}, TCP) is None
    assert resolve_key("/nowhere", {}, "ipc:///run/control") is None
    assert with_key(SocketOptions(), found, "ipc:///run/control") == SocketOptions()
    assert found is not None
    options = with_key(SocketOptions(), found, TCP)
    assert options.curve_server_key == found.broker_key.encode()
    assert options.curve_secret_key == found.secret_key.encode()
    assert found.secret_key not in repr(options)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("/nowhere.key", r"^cannot read /nowhere.key: No such file"),
        ("~nobody-of-this-name/a.key", r"cannot read a key from '~nobody-of-this-name/a.key': .*home"),
        ("a\0b", r"cannot read a key from 'a.*b': embedded null"),
        ("/", r"^cannot read /: Is a directory"),
    ],
)
def test_a_name_that_is_no_keys_is_told_and_nothing_else(name: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        resolve_key(name, {}, TCP)


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "no.key"
    tmp_path.chmod(0o700)
    with pytest.raises(SettingsError, match=r"cannot read .*no.key: No such file"):
        read_key(file, ClientKey)
    write_private(file, b'{"zloom": "broker key"}', new=True)
    with pytest.raises(SettingsError, match="holds no client key"):
        read_key(file, ClientKey)
    with pytest.raises(SettingsError, match="secret key does not go with its public one"):
        read_key(key(tmp_path, secret_key=new_pair()[1]), ClientKey)


def test_a_key_that_others_may_read_is_refused_and_so_is_its_folder(tmp_path: Path) -> None:
    file = key(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o604)
    with pytest.raises(SettingsError, match=r"ann.key has mode 0604, .* chmod 600"):
        read_key(file, ClientKey)
    file.chmod(0o600)
    tmp_path.chmod(0o710)
    with pytest.raises(
        SettingsError, match=r"has mode 0710, .* put it into a folder that only you can enter \(mode 700\)"
    ):
        read_key(file, ClientKey)


def test_a_key_is_written_once_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = key(tmp_path)
    before = file.read_bytes()
    with pytest.raises(KeyringError, match="is there already"):
        key(tmp_path)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["ann.key"]
