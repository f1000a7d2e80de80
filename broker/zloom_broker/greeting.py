"""What a hello and a declaration must look like."""

from zloom.messages import PROTOCOL, Error, Hello
from zloom.model import NAME, NAME_RULE, Replica
from zloom_broker.users import BROKER_NAME

MAX_TEXT = 255
"""Characters of a user's or a host's name."""


def problem_of(hello: Hello) -> Error | None:
    """Return why nobody can be welcomed by this hello, or None."""
    if PROTOCOL not in hello.protocols:
        spoken = ", ".join(map(str, hello.protocols[:8])) or "none"
        return Error(
            code="protocol_version", text=f"this broker speaks protocol {PROTOCOL}, the hello offers {spoken}"
        )
    if (hello.role == "weavelet") != (hello.replica is not None):
        return Error(code="bad_hello", text="a weavelet's hello names its replica, an operator's has none")
    if len(hello.user) > MAX_TEXT:
        return Error(code="bad_name", text=f"a user's name has at most {MAX_TEXT} characters")
    if hello.user == BROKER_NAME:
        return Error(code="bad_name", text=f"user {BROKER_NAME!r} is the broker itself; use another name")
    return None if hello.replica is None else _bad_replica(hello.replica, hello.nonce)


def _bad_replica(replica: Replica, nonce: str) -> Error | None:
    names = {"run": replica.run, "attempt": replica.attempt, "replica": replica.id, "nonce": nonce}
    for what, name in names.items():
        if not NAME.fullmatch(name):
            return Error(code="bad_name", text=f"{what} {name[:64]!r}: expected {NAME_RULE}")
    if not 0 <= replica.rank < replica.world_size:
        text = f"rank {replica.rank} is not below the world size {replica.world_size}"
        return Error(code="bad_hello", text=text)
    if len(replica.host) > MAX_TEXT:
        return Error(code="bad_name", text=f"a host's name has at most {MAX_TEXT} characters")
    return bad_names(replica)


def bad_names(replica: Replica) -> Error | None:
    """Return what is wrong with the names of keys and commands, or None."""
    for what, declared in (("key", replica.keys), ("command", replica.commands)):
        names = [each.name for each in declared]
        for name in names:
            if not NAME.fullmatch(name):
                return Error(code="bad_name", text=f"{what} {name[:64]!r}: expected {NAME_RULE}")
        if len(set(names)) < len(names):
            return Error(code="bad_name", text=f"a {what} is declared twice")
    return None
