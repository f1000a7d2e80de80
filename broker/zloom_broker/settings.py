"""What a broker is told when it starts."""

import ipaddress
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import platformdirs

from zloom.endpoints import runtime_endpoint, tcp_host, tcp_problem
from zloom.errors import SettingsError
from zloom_broker.keyring import Keyring, default_auth_dir

LogLevel = Literal["debug", "info", "warning", "error"]
Durability = Literal["fsync", "buffered"]
DeviceReaction = Literal["notify", "checkpoint", "stop"]

LAST_PORT = 65535

ABSTRACT = "ipc://@"
"""Linux keeps such a socket in no folder, so that no mode says who may connect."""


def default_data_dir() -> Path:
    """Return the user's state folder for zloom."""
    return platformdirs.user_state_path("zloom")


def _default_bind() -> tuple[str, ...]:
    return (runtime_endpoint(create=True),)


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where a broker binds and writes.

    Attributes:
        bind: Endpoints of control: `tcp://HOST:PORT`, `ipc:///PATH`, `inproc://NAME`. By default a socket in
            the user's runtime folder, which is made if it is missing. Updates are bound beside each: on TCP
            at the next port, else at the path or name with `.updates`.
        advertise: Endpoint of updates that peers on TCP are told, where they cannot reach the one that is
            bound, as behind address translation; None to tell the bound port on the host that they reached.
        data_dir: Folder of the journal; made if it is missing. One broker at a time uses it.
        durability: `fsync`: a change is on disk before it is confirmed. `buffered`: config updates are
            confirmed when the operating system has them, and a loss of power may lose the newest.
        log_level: The least severe level that is logged, to stderr.
        on_device_failure: What a run does when a device fails that it computes on: `notify` tells it,
            `checkpoint` and `stop` are commands that it is sent besides.
        metrics_port: Port of HTTP at which Prometheus finds the broker's numbers; 0 for a free one, None for
            none. Needs the package prometheus-client.
        metrics_host: Address of that port. Whoever reaches it can read the numbers, and change nothing.
        auth_dir: Folder of the keys, by which peers on TCP must prove who they are. See `Keyring`.
        no_auth: Let everybody who reaches a TCP address do everything.

    Raises:
        TransportError: There is no usable runtime folder, and `bind` does not name another place.
    """

    bind: tuple[str, ...] = field(default_factory=_default_bind)
    advertise: str | None = None
    data_dir: Path = field(default_factory=default_data_dir)
    durability: Durability = "fsync"
    log_level: LogLevel = "info"
    auth_dir: Path = field(default_factory=default_auth_dir)
    on_device_failure: DeviceReaction = "notify"
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    no_auth: bool = False

    def check(self) -> list[str]:
        """Return warnings about what is allowed and dangerous, one line each.

        Raises:
            SettingsError: Something is not allowed; the text names it, what was expected, and what to do.
        """
        if not self.bind:
            raise SettingsError("no endpoint to bind; name one with --bind, such as tcp://127.0.0.1:5555")
        _check_choice("durability", self.durability, get_args(Durability))
        _check_choice("on device failure", self.on_device_failure, get_args(DeviceReaction))
        _check_choice("log level", self.log_level, get_args(LogLevel))
        if self.metrics_port is not None and not 0 <= self.metrics_port <= LAST_PORT:
            raise SettingsError(f"--metrics-port is {self.metrics_port}; expected 0 to {LAST_PORT}")
        if self.advertise is not None:
            _check_tcp("--advertise", self.advertise)
        warnings = [warning for endpoint in self.bind for warning in self._check_endpoint(endpoint)]
        return [*warnings, *self._check_data_dir()]

    @property
    def secured(self) -> bool:
        """Whether some peers are known by their keys."""
        return not self.no_auth and any(endpoint.startswith("tcp://") for endpoint in self.bind)

    def _check_endpoint(self, endpoint: str) -> Iterator[str]:
        scheme, separator, rest = endpoint.partition("://")
        if not separator or not rest or scheme not in ("tcp", "ipc", "inproc"):
            raise SettingsError(
                f"cannot bind {endpoint!r}: expected tcp://HOST:PORT, ipc:///PATH or inproc://NAME"
            )
        if endpoint.startswith(ABSTRACT):
            yield from self._check_abstract(endpoint)
        if scheme != "tcp":
            return
        _check_tcp("--bind", endpoint, any_port=True)
        if endpoint.endswith(f":{LAST_PORT}"):
            raise SettingsError(
                f"cannot bind {endpoint}: updates need the next port, and there is none above"
            )
        if self.no_auth:
            who = "on this host" if _is_loopback(tcp_host(endpoint)) else "who reaches this address"
            yield _open_to(who, endpoint)
        elif not Keyring(self.auth_dir).exists:
            raise SettingsError(
                f"cannot bind {endpoint}: there are no keys in {self.auth_dir} that tell who may steer; make "
                "them with `zloom auth init` and `zloom auth add NAME --role ROLE`, or bind an ipc:// "
                "endpoint, or say with --no-auth that everybody who can reach it may steer every run"
            )

    def _check_data_dir(self) -> Iterator[str]:
        try:
            mode = stat.S_IMODE(self.data_dir.stat().st_mode)
        except OSError:  # a broker makes its folder with mode 0700; what it cannot use it says
            return
        if mode & 0o077:
            may = "change" if mode & 0o022 else "read"
            yield f"{self.data_dir} has mode {mode:04o}, so others on this host may {may} the journal in it"

    def _check_abstract(self, endpoint: str) -> Iterator[str]:
        if not self.no_auth:
            raise SettingsError(
                f"cannot bind {endpoint}: a name that is in no folder is open to everybody on this host; "
                "name a path, ipc:///PATH, or say with --no-auth that everybody here may steer every run"
            )
        yield _open_to("on this host", endpoint)


def _open_to(who: str, endpoint: str) -> str:
    return f"NO AUTHENTICATION: anybody {who} can steer every run at {endpoint}, because of --no-auth"


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingsError(f"{name} is {value!r}; expected one of {', '.join(allowed)}")


def _check_tcp(option: str, endpoint: str, *, any_port: bool = False) -> None:
    problem = tcp_problem(endpoint, any_port=any_port)
    if problem:
        raise SettingsError(f"{option} {endpoint!r}: {problem}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name or an interface: what it stands for may change
        return False
