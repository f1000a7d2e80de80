"""The folder with a broker's keys: its own, who has which role, and the key files that are given out.

    broker.secret    the broker's pair
    users.list       names, roles, runs and public keys: what counts
    keys/NAME.key    what NAME needs to connect; moved to where he works, and needed here no more
    lock             held by whoever changes the list

Whoever changes the list replaces it, so that a broker that reads it sees the old one or the new one.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from zloom.errors import SettingsError
from zloom.security import (
    FORMAT,
    BrokerKey,
    ClientKey,
    make_private_folder,
    new_pair,
    read_key,
    read_private,
    write_key,
    write_private,
)
from zloom_broker.users import Role, User, Users, decode

BROKER_KEY, USER_LIST, KEYS, LOCK = "broker.secret", "users.list", "keys", "lock"


def default_auth_dir() -> Path:
    """Return the folder of keys of this user's brokers."""
    return platformdirs.user_config_path("zloom") / "auth"


class Keyring:
    """Reads and changes such a folder; changes nothing until it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._list = folder / USER_LIST

    @property
    def exists(self) -> bool:
        """Whether `init` was done here."""
        return os.path.exists(self.folder / BROKER_KEY)  # Path's own raises where a folder may not be entered

    def init(self) -> None:
        """Make the folder, a key for the broker and an empty list.

        Raises:
            KeyringError: There is a key already.
            SettingsError: It cannot be written.
        """
        make_private_folder(self.folder)
        make_private_folder(self.folder / KEYS)
        public, secret = new_pair()
        write_key(self.folder / BROKER_KEY, BrokerKey(FORMAT, public, secret))
        write_private(self._list, Users().encode(), new=True)

    def add(self, name: str, role: Role, runs: list[str]) -> Path:
        """Give out a key, and return the file that holds it.

        Raises:
            KeyringError: The name is taken, or there is a file where its key should be.
            SettingsError: It is no name, or a file cannot be read or written.
        """
        with self._changing():
            broker_key, users = self.broker_key(), self.users()
            public, secret = new_pair()
            users = users.with_user(User(name, role, public, runs))
            file = self._key_file(name)
            make_private_folder(file.parent)
            write_key(file, ClientKey(FORMAT, name, public, secret, broker_key.public_key))
            write_private(self._list, users.encode(), new=False)
        return file

    def revoke(self, name: str) -> None:
        """Take a key back: brokers on this folder refuse it at once.

        Raises:
            KeyringError: Nobody has that name.
            SettingsError: A file cannot be read or written.
        """
        with self._changing():
            write_private(self._list, self.users().without(name).encode(), new=False)
            try:
                self._key_file(name).unlink(missing_ok=True)
            except OSError as error:
                text = f"{name} is revoked, but his key cannot be removed here: {error.strerror}"
                raise SettingsError(text) from error

    def users(self) -> Users:
        """Return who has a key.

        Raises:
            SettingsError: The list cannot be read, or others can read it too.
        """
        self._check()
        return decode(read_private(self._list))

    def broker_key(self) -> BrokerKey:
        """Return the broker's pair; raises SettingsError as `users` does."""
        self._check()
        return read_key(self.folder / BROKER_KEY, BrokerKey)

    def stamp(self) -> tuple[int, int, int]:
        """Return what differs whenever the list was changed; zeros where there is none."""
        try:
            status = self._list.stat()
        except OSError:
            return (0, 0, 0)
        return (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)

    def _key_file(self, name: str) -> Path:
        return self.folder / KEYS / f"{name}.key"

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep others from changing the list: what one of two writes would be lost, at worst a revocation."""
        self._check()
        try:
            lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise SettingsError(f"cannot lock the keys in {self.folder}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _check(self) -> None:
        if not self.exists:
            raise SettingsError(
                f"there are no keys in {self.folder}; `zloom auth init` makes the broker's, and "
                "`zloom auth add NAME --role ROLE` one for each user"
            )
