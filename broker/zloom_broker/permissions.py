"""What a role may do, and on which runs. The core asks here; nothing in a message proves who sent it.

A run limits what is about a run. A user's own topic is about the run that its first segment names, for those
who are limited to some runs: `own/tiny-lm/…`.
"""

from dataclasses import dataclass
from typing import Literal

from zloom.errors import Refused
from zloom.messages import (
    Cancel,
    Error,
    FailDevice,
    Follow,
    Forget,
    GetDevices,
    GetHistory,
    GetKeys,
    GetReplicas,
    GetRuns,
    GetStacks,
    GetStats,
    Hello,
    Request,
    Rollback,
    SendCommand,
    SetConfig,
)
from zloom_broker.users import ALL_RUNS, Role, User, matches

NEEDS: dict[type[Request], Literal["observer", "operator"]] = {
    GetDevices: "observer",
    GetHistory: "observer",
    GetKeys: "observer",
    GetReplicas: "observer",
    GetRuns: "observer",
    GetStacks: "observer",
    GetStats: "observer",
    Follow: "observer",
    SetConfig: "operator",
    Rollback: "operator",
    SendCommand: "operator",
    Cancel: "operator",
    FailDevice: "operator",
    Forget: "operator",
}
"""The role that each request needs, at least: an operator may do what an observer may."""

READABLE = (b"watch/", b"steer/", b"own/")
"""Families of topics of which the next segment is a run."""

_OF_WEAVELETS = (b"steer/", b"own/")
"""Those of them that a weavelet needs."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who sent a message, as proven by his key, and what he may do.

    Attributes:
        user: Empty for the broker's owner, whom his system lets in without a key: he may do everything, and
            calls himself what he likes.
        role: None for the owner.
        runs: Patterns, as `User` has them.
    """

    user: str = ""
    role: Role | None = None
    runs: tuple[str, ...] = (ALL_RUNS,)

    def covers(self, run: str) -> bool:
        """Whether the user has to do with a run at all."""
        return any(matches(pattern, run) for pattern in self.runs)

    @property
    def covers_all(self) -> bool:
        """Whether no run is hidden from the user."""
        return ALL_RUNS in self.runs

    def __str__(self) -> str:
        return f"{self.user} ({self.role} of {', '.join(self.runs)})"


OWNER = Access()
"""Of the broker: who reaches its socket in a private folder, or everybody under `--no-auth`."""


def access_of(user: User) -> Access:
    """Return what a user may do."""
    return Access(user.name, user.role, tuple(user.runs))


def hello_problem(access: Access, hello: Hello) -> Error | None:
    """Return why this user cannot be welcomed by this hello, or None."""
    if access.role is None:
        return None
    if hello.replica is None and access.role == "weavelet":
        text = f"{access} may not ask or change anything; that needs the role observer or operator"
    elif hello.replica is not None and access.role != "weavelet":
        text = f"{access} cannot be a weavelet; that needs the role weavelet"
    elif hello.replica is not None and not access.covers(hello.replica.run):
        text = f"{access} cannot be a weavelet of {hello.replica.run[:64]}"
    else:
        return None
    return Error(code="forbidden", text=_advised(text))


def check_request(access: Access, request: Request) -> None:
    """Raise unless this user may make this request, of the run that it names.

    Raises:
        Refused: He may not; the text says what it needs.
    """
    if access.role is None:
        return
    needed = NEEDS[type(request)]
    what = type(request).__struct_config__.tag
    if access.role not in (needed, "operator"):
        raise _forbidden(f"{access} may not send {what}; that needs the role {needed}")
    run = getattr(request, "run", "")
    if run and not access.covers(run):
        raise _forbidden(f"{access} may not send {what} for {run[:64]}; that needs a key for that run")


def check_runs(access: Access, runs: set[str], what: str) -> None:
    """Raise unless this user's limits leave him all of these runs.

    Raises:
        Refused: They do not. The runs are not named: he may not know of them.
    """
    if not all(access.covers(run) for run in runs):
        raise _forbidden(f"{access} may not {what}, which concerns other runs too")


def publish_problem(access: Access, topic: str) -> Error | None:
    """Return why this user may not publish on an own topic, or None."""
    if access.role is None or (access.role != "observer" and _is_within(access, topic.encode())):
        return None
    text = f"{access} may not publish on {topic[:64]!r}; that needs the role operator or weavelet"
    rule = "" if access.covers_all else ", and a topic that begins with the name of a run and a slash"
    return Error(code="forbidden", text=_advised(text + rule))


def subscription_problem(access: Access, topic: bytes) -> Error | None:
    """Return why this user may not have all that begins with `topic`, or None."""
    if access.role is None or topic.startswith(b"beat"):
        return None
    if topic.startswith(b"echo/") and len(topic) > len(b"echo/") and topic.endswith(b"/"):
        return None  # a nonce is secret: whoever knows it made it
    families = _OF_WEAVELETS if access.role == "weavelet" else READABLE
    for family in families:
        if topic.startswith(family) and _is_within(access, topic[len(family) :]):
            return None
    shown = topic[:128].decode(errors="replace")
    limited = access.role != "weavelet" and not access.covers_all
    hint = "; watch a run that the key is for, by its name" if limited else ""
    text = f"{access} may not subscribe to {shown!r}{hint}"
    return Error(code="forbidden", text=_advised(text), topic=shown)


def _is_within(access: Access, rest: bytes) -> bool:
    """Whether all topics that begin so, after their family, are about runs of this user."""
    segment, separator, _ = rest.partition(b"/")
    try:
        run = segment.decode()
    except UnicodeDecodeError:
        return access.covers_all
    if separator:
        return access.covers(run)
    return any(pattern.endswith("*") and run.startswith(pattern[:-1]) for pattern in access.runs)


def _forbidden(text: str) -> Refused:
    return Refused("forbidden", _advised(text))


def _advised(text: str) -> str:
    return f"{text}; the broker's owner grants it with `zloom auth add`"
