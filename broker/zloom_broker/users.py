"""Who may connect with which key: names, roles, runs, as a list that is kept in a file."""

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from zloom.errors import KeyringError, SettingsError
from zloom.model import NAME, NAME_RULE

Role = Literal["observer", "operator", "weavelet"]

ALL_RUNS = "*"

BROKER_NAME = "zloom"
"""Who the history says that a change is by which the broker makes itself. Nobody else may be called so: its
request ids could be used up before it, and its changes be passed off as its own."""

FORMAT = 1
"""Of the file; another is refused."""

KEY_LENGTH = 40
"""Characters of a CURVE key in Z85."""


class User(Struct, frozen=True):
    """One key and what it is for."""

    name: str
    role: Role
    public_key: str
    """CURVE, 40 characters of Z85."""
    runs: list[str]
    """Names of runs; one that ends in `*` stands for all that begin so."""


class _File(Struct, frozen=True):
    format: int
    users: list[User]


class Users:
    """All who have a key; immutable.

    Raises:
        SettingsError: A name, role, pattern or key cannot be one, or a name or key comes twice.
    """

    def __init__(self, users: Iterable[User] = ()) -> None:
        self._by_name: dict[str, User] = {}
        self._by_key: dict[str, User] = {}
        for user in users:
            _check(user)
            if user.name in self._by_name:
                raise SettingsError(_taken(user.name))
            if user.public_key in self._by_key:
                raise SettingsError(f"the key of {user.name!r} is that of another user too")
            self._by_name[user.name] = self._by_key[user.public_key] = user

    def __iter__(self) -> Iterator[User]:
        return iter(self._by_name.values())

    def of_key(self, public_key: str) -> User | None:
        """Return whose key this is."""
        return self._by_key.get(public_key)

    def with_user(self, user: User) -> "Users":
        """Return these and one more.

        Raises:
            KeyringError: There is one of that name.
            SettingsError: As of the constructor.
        """
        if user.name in self._by_name:
            raise KeyringError(_taken(user.name))
        return Users([*self._by_name.values(), user])

    def without(self, name: str) -> "Users":
        """Return these but one.

        Raises:
            KeyringError: There is no such user.
        """
        if name not in self._by_name:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise KeyringError(f"there is no user {name[:64]!r}; known are: {known[:1000]}")
        return Users(user for user in self._by_name.values() if user.name != name)

    def encode(self) -> bytes:
        """Return the text of the file."""
        file = _File(FORMAT, list(self._by_name.values()))
        return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def decode(text: bytes) -> Users:
    """Return the users of a file.

    Raises:
        SettingsError: It is no such file.
    """
    try:
        file = msgspec.json.decode(text, type=_File)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise SettingsError(f"not a list of users: {error}") from error
    if file.format != FORMAT:
        raise SettingsError(f"a list of users in format {file.format}; this version reads {FORMAT}")
    return Users(file.users)


def matches(pattern: str, run: str) -> bool:
    """Whether a run is one of those that a pattern stands for."""
    return run.startswith(pattern[:-1]) if pattern.endswith("*") else run == pattern


def _taken(name: str) -> str:
    return f"there is a user {name!r} already; revoke that first"


def _check(user: User) -> None:
    if user.name == BROKER_NAME:
        raise SettingsError(f"user {BROKER_NAME!r} is the broker itself; give out another name")
    if not NAME.fullmatch(user.name):
        raise SettingsError(f"user {user.name[:64]!r}: expected {NAME_RULE}")
    if user.role not in get_args(Role):
        raise SettingsError(f"role {user.role!r}; expected one of {', '.join(get_args(Role))}")
    if not user.runs:
        raise SettingsError(f"user {user.name!r} has no runs; {ALL_RUNS!r} stands for all")
    for pattern in user.runs:
        _check_pattern(pattern)
    if len(user.public_key) != KEY_LENGTH or not user.public_key.isascii():
        raise SettingsError(f"the key of {user.name!r} is not {KEY_LENGTH} characters of Z85")


def _check_pattern(pattern: str) -> None:
    stem = pattern.removesuffix("*")
    if pattern != ALL_RUNS and not NAME.fullmatch(stem):
        raise SettingsError(
            f"run {pattern[:64]!r}: expected the name of a run, or its beginning and '*', or '*' for all"
        )
