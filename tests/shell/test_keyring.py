"""The folder of keys: what is made and left there, and two who change it at once."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from zloom.errors import KeyringError, SettingsError, ZloomError
from zloom.security import BrokerKey, ClientKey, read_key
from zloom_broker.keyring import Keyring


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    made = Keyring(tmp_path / "config" / "auth")
    made.init()
    return made


def names(keyring: Keyring) -> list[str]:
    return [user.name for user in keyring.users()]


def test_what_is_made_is_its_owners_alone(keyring: Keyring) -> None:
    before = os.umask(0)
    try:
        keyring.add("ann", "observer", ["tiny-*"])
    finally:
        os.umask(before)
    found = {str(path.relative_to(keyring.folder)): path for path in keyring.folder.rglob("*")}
    assert sorted(found) == ["broker.secret", "keys", "keys/ann.key", "lock", "users.list"]
    for path in (keyring.folder, *found.values()):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_key_that_is_given_out_pins_the_broker_and_is_on_the_list(keyring: Keyring) -> None:
    key = read_key(keyring.add("ann", "observer", ["tiny-*"]), ClientKey)
    broker = read_key(keyring.folder / "broker.secret", BrokerKey)
    assert (key.user, key.broker_key) == ("ann", broker.public_key)
    (user,) = keyring.users()
    assert (user.name, user.role, user.runs, user.public_key) == (
        "ann",
        "observer",
        ["tiny-*"],
        key.public_key,
    )
    assert broker.secret_key not in (keyring.folder / "users.list").read_text() + str(key)


def test_a_broker_has_one_key_for_good(keyring: Keyring) -> None:
    before = keyring.broker_key()
    with pytest.raises(KeyringError, match=r"broker\.secret is there already; move it away first"):
        keyring.init()
    assert keyring.broker_key() == before


def test_what_cannot_be_added_leaves_nothing(keyring: Keyring) -> None:
    ann = read_key(keyring.add("ann", "observer", ["*"]), ClientKey)
    refusals: list[tuple[str, type[ZloomError], str]] = [
        ("ann", KeyringError, "a user 'ann' already"),
        ("../ann", SettingsError, "user '../ann': expected"),
    ]
    for name, kind, complaint in refusals:
        with pytest.raises(kind, match=complaint):
            keyring.add(name, "operator", ["*"])
    assert names(keyring) == ["ann"]
    assert os.listdir(keyring.folder / "keys") == ["ann.key"]
    assert read_key(keyring.folder / "keys" / "ann.key", ClientKey) == ann


def test_a_file_that_stands_where_a_key_should_is_left_alone(keyring: Keyring, tmp_path: Path) -> None:
    (keyring.folder / "keys" / "ann.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyringError, match=r"ann.key is there already"):
        keyring.add("ann", "observer", ["*"])
    assert not (tmp_path / "elsewhere").exists()
    assert names(keyring) == []


def test_what_is_revoked_is_off_the_list_and_its_file_is_gone(keyring: Keyring) -> None:
    keyring.add("ann", "observer", ["*"])
    keyring.add("bob", "operator", ["*"])
    stamp = keyring.stamp()
    keyring.revoke("ann")
    assert keyring.stamp() != stamp
    assert names(keyring) == ["bob"]
    assert os.listdir(keyring.folder / "keys") == ["bob.key"]
    with pytest.raises(KeyringError, match="no user 'ann'; known are: bob"):
        keyring.revoke("ann")


def test_a_key_that_was_moved_away_can_be_revoked(keyring: Keyring, tmp_path: Path) -> None:
    keyring.add("ann", "observer", ["*"]).rename(tmp_path / "ann.key")
    keyring.revoke("ann")
    assert names(keyring) == []


def test_those_who_change_the_list_at_once_lose_nothing(keyring: Keyring) -> None:
    keyring.add("gone", "operator", ["*"])

    def change(number: int) -> None:
        other = Keyring(keyring.folder)
        other.revoke("gone") if number == 0 else other.add(f"u{number}", "observer", ["*"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(16)))
    assert sorted(names(keyring)) == sorted(f"u{number}" for number in range(1, 16))


def test_without_keys_it_says_how_to_make_them(tmp_path: Path) -> None:
    nothing = Keyring(tmp_path / "auth")
    assert not nothing.exists
    assert nothing.stamp() == (0, 0, 0)
    for call in (nothing.users, nothing.broker_key, lambda: nothing.revoke("ann")):
        with pytest.raises(SettingsError, match=r"there are no keys in .*zloom auth init"):
            call()
    assert not (tmp_path / "auth").exists()
