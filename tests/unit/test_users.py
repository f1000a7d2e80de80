"""The list of users: what it takes, and what it refuses with a reason."""

import pytest

from zloom.errors import KeyringError, SettingsError
from zloom_broker.users import Role, User, Users, decode, matches

KEY = "a" * 40
OTHER_KEY = "b" * 40


def user(
    name: str = "alice", role: Role = "observer", key: str = KEY, runs: tuple[str, ...] = ("*",)
) -> User:
    return User(name, role, key, list(runs))


def test_the_list_comes_back_as_it_was_written() -> None:
    users = Users([user(), user("node", "weavelet", OTHER_KEY, ("tiny-lm", "exp-*"))])
    read = decode(users.encode())
    assert list(read) == list(users)
    assert read.of_key(OTHER_KEY) == user("node", "weavelet", OTHER_KEY, ("tiny-lm", "exp-*"))
    assert read.of_key("c" * 40) is None


@pytest.mark.parametrize(
    ("others", "complaint"),
    [
        ({"name": "a/b"}, "user 'a/b': expected 1 to 128 of letters"),
        ({"name": "zloom"}, "user 'zloom' is the broker itself; give out another name"),
        ({"name": ""}, "user '': expected"),
        ({"role": "admin"}, "role 'admin'; expected one of observer, operator, weavelet"),
        ({"runs": ()}, "has no runs"),
        ({"runs": ("a*b",)}, "run 'a\\*b': expected the name of a run"),
        ({"runs": ("",)}, "run '': expected the name of a run"),
        ({"key": "short"}, "not 40 characters of Z85"),
        ({"key": "ü" * 40}, "not 40 characters of Z85"),
    ],
)
def test_what_cannot_be_a_user_is_refused(others: dict[str, object], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        Users([user(**others)])  # type: ignore[arg-type]


def test_a_name_and_a_key_are_given_once() -> None:
    with pytest.raises(KeyringError, match="a user 'alice' already; revoke that first"):
        Users([user()]).with_user(user(key=OTHER_KEY))
    with pytest.raises(SettingsError, match="a user 'alice' already"):  # a file that somebody edited
        Users([user(), user(key=OTHER_KEY)])
    with pytest.raises(SettingsError, match="the key of 'bob' is that of another"):
        Users([user()]).with_user(user("bob"))


def test_one_leaves_and_the_others_stay() -> None:
    users = Users([user(), user("bob", key=OTHER_KEY)]).without("alice")
    assert [each.name for each in users] == ["bob"]
    with pytest.raises(KeyringError, match="no user 'alice'; known are: bob"):
        users.without("alice")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "not a list of users"),
        (b"\xff", "not a list of users"),
        (b'{"x": ' + b"[" * 100_000, "not a list of users"),
        (b'{"format": 1, "users": [{"name": "alice"}]}', "not a list of users: .*role"),
        (b'{"format": 2, "users": []}', "in format 2; this version reads 1"),
    ],
)
def test_what_is_no_list_is_refused(text: bytes, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        decode(text)


@pytest.mark.parametrize(
    ("pattern", "run", "covered"),
    [("*", "a", True), ("a", "a", True), ("a", "ab", False), ("a*", "ab", True), ("a*", "ba", False)],
)
def test_a_pattern_is_a_name_or_its_beginning(pattern: str, run: str, covered: bool) -> None:
    assert matches(pattern, run) is covered
