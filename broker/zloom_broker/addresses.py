"""Which updates endpoint goes with which control endpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from zloom.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Bound:
    """A pair of endpoints, as bound."""

    control: str
    updates: str


@dataclass(frozen=True, slots=True)
class Addresses:
    """All pairs, in the order of `--bind`."""

    bound: Sequence[Bound] = ()
    advertise: str = ""
    """What peers on TCP are told instead of the updates endpoint, for a broker behind address translation."""

    def updates_for(self, reached: str) -> str:
        """Return what to tell a peer that reached the broker at a control endpoint.

        On TCP the host is `*`: the peer puts in the one that it reached.
        """
        same_scheme = [pair for pair in self.bound if _scheme(pair.control) == _scheme(reached)]
        same_port = [pair for pair in same_scheme if _port(pair.control) == _port(reached)]
        pair = next(iter([*same_port, *same_scheme, *self.bound]), None)
        if pair is None:
            return ""
        if _scheme(pair.updates) != "tcp":
            return pair.updates
        return self.advertise or f"tcp://*:{_port(pair.updates)}"


def updates_endpoint(asked: str, control: str) -> str:
    """Return where to bind updates beside control: at the next port, or a path or name beside it.

    Whoever opens ports in a firewall or publishes a container's must know which; only where control may be
    at any port, updates may be too.

    Args:
        asked: The endpoint of control as it was named.
        control: The same as it was bound.

    Raises:
        SettingsError: The endpoint has no transport that zloom knows.
    """
    scheme, _, rest = control.partition("://")
    if scheme == "tcp":
        host, _, port = rest.rpartition(":")
        return f"tcp://{host}:{'*' if _port(asked) in ('*', '0') else int(port) + 1}"
    if scheme in ("ipc", "inproc") and rest:
        return f"{control}.updates"
    raise SettingsError(f"{control!r} is no endpoint; expected tcp://HOST:PORT, ipc:///PATH or inproc://NAME")


def _scheme(endpoint: str) -> str:
    return endpoint.partition("://")[0]


def _port(endpoint: str) -> str:
    """The port on TCP; on other transports the whole endpoint, which is as good to compare by."""
    return endpoint.rpartition(":")[2] if _scheme(endpoint) == "tcp" else endpoint
