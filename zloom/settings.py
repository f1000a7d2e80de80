"""zloom's own options, of a weavelet and of an operator; what a run is steered by is its config."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from zloom.codec import is_sendable
from zloom.endpoints import runtime_endpoint, tcp_problem
from zloom.errors import SettingsError
from zloom.metrics import POINTS_KEPT, POINTS_TAKEN
from zloom.series import MAX_STATUS_POINTS
from zloom.socket_options import SocketOptions
from zloom.words import shorten

BROKER_VARIABLE = "ZLOOM_BROKER"
"""The environment variable that names the broker's control endpoint."""


START_PAUSED_VARIABLE = "ZLOOM_START_PAUSED"
"""The environment variable that does what `WeaveletSettings.start_paused` does."""


def resolve_broker(endpoint: str | None, environ: Mapping[str, str]) -> str:
    """Return the control endpoint: the argument, else $ZLOOM_BROKER, else the socket of this user.

    Raises:
        SettingsError: What was named is no endpoint.
        TransportError: None was named, and this system has no place for the default one.
    """
    named = endpoint or environ.get(BROKER_VARIABLE)
    if not named:
        return runtime_endpoint()
    scheme, separator, rest = named.partition("://")
    origin = "broker" if endpoint else f"${BROKER_VARIABLE}"
    if not (separator and rest) or scheme not in ("tcp", "ipc", "inproc"):
        raise SettingsError(
            f"{origin} is {named!r}; expected tcp://HOST:PORT, ipc:///PATH, or inproc://NAME in one process"
        )
    problem = tcp_problem(named) if scheme == "tcp" else ""
    if problem:
        raise SettingsError(f"{origin} is {named!r}: {problem}")
    return named


def check_topic(topic: object) -> None:
    """Check that a user's own topic, or the beginning of some, can be one.

    Raises:
        SettingsError: It is no text, or holds what is no Unicode.
    """
    if not isinstance(topic, str) or not is_sendable(topic):
        raise SettingsError(f"topic is {shorten(repr(topic))}; expected a str of Unicode")


def resolve_start_paused(seconds: float | None, environ: Mapping[str, str]) -> float | None:
    """Return for how long a training is paused at its first step: the argument, else $ZLOOM_START_PAUSED.

    Raises:
        SettingsError: The variable is no number above 0.
    """
    text = environ.get(START_PAUSED_VARIABLE, "")
    if seconds is not None or not text:
        return seconds
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise SettingsError(f"${START_PAUSED_VARIABLE} is {text!r}; expected a number of seconds above 0")
    return value


def _check_seconds(settings: object) -> None:
    for each in fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, each.name)
        optional = each.type == float | None
        if optional and value is None:
            continue
        if (optional or each.type in (int, float)) and not (0 < value < math.inf):
            raise SettingsError(f"{each.name} is {value!r}; expected {'None or ' * optional}a number above 0")


@dataclass(frozen=True, slots=True)
class WeaveletSettings:
    """Options of a weavelet. The defaults suit training: with them no step waits for the network.

    Attributes:
        metric_points: Points that `report` keeps while no broker takes them; then the oldest are dropped.
        status_points: Points in one status. There is one a beat, and more where there are more points: each
            takes the training thread's interpreter for a millisecond or two. 20,000 at most.
        device_interval: Seconds between two readings of the devices' state: a reading costs NVML a few
            milliseconds of a core, and temperature and memory do not change faster.
        device_patience: Seconds that the first hello waits for the list of devices. A driver in trouble can
            take longer; the weavelet then begins without it and tells it later.
        hold_limit: Seconds after which `tick()` raises when a rank waits to learn what the others decided
            about a consistent revision. Only a job whose ranks share no store can wait so long, and only
            while its broker is gone; None waits until it is back.
        hold_watch: Seconds without the GIL after which a watchdog writes the stacks of all threads to a file
            in the runtime folder of this user, for `zloom stacks`; up to 2 s sooner, or half of them, as it
            counts from when the weavelet's thread last set it back. It is the timer of Python's
            `faulthandler`, of which a process has one: where you have set it, or when you do, there is no
            watchdog, as there is none where that is not seen (elsewhere than on Linux). None is never.
        pause_poll: Seconds after which a paused trainer asks its `ready` predicates again, beside at each
            message.
        start_paused: Seconds for which the training is paused at its first step, unless somebody resumes it
            before: so that what is to happen at an early step can be arranged. None, the default, asks
            $ZLOOM_START_PAUSED; without that the training is not paused.
        close_timeout: Seconds that `close` waits for the weavelet's thread: the whole of the way out has 2.
        farewell: Seconds that libzmq may take to send the goodbye when a broker is connected.
        key: File of the key for a broker on TCP; by default the one that $ZLOOM_KEY names, if it does.
        sockets: Options of both sockets.

    Raises:
        SettingsError: A number is not above 0, or too large.
    """

    metric_points: int = POINTS_KEPT
    status_points: int = POINTS_TAKEN
    device_interval: float = 5.0
    device_patience: float = 2.0
    hold_limit: float | None = None
    hold_watch: float | None = 5.0
    pause_poll: float = 1.0
    start_paused: float | None = None
    close_timeout: float = 1.5
    farewell: float = 0.5
    key: Path | str | None = None
    sockets: SocketOptions = field(default_factory=SocketOptions)

    def __post_init__(self) -> None:
        _check_seconds(self)
        if self.status_points > MAX_STATUS_POINTS:
            raise SettingsError(
                f"status_points is {self.status_points}; expected at most {MAX_STATUS_POINTS}"
            )


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Options of an operator.

    Attributes:
        timeout: Seconds that a request may take to be answered, and outcomes to come, unless the call names
            its own. A step of training that runs for half a minute is rare, a person who waits longer too.
        connect_timeout: Seconds until the broker must have welcomed the operator.
        key: File of the key for a broker on TCP; by default the one that $ZLOOM_KEY names, if it does.
        sockets: Options of both sockets.

    Raises:
        SettingsError: A number is not above 0.
    """

    timeout: float = 30.0
    connect_timeout: float = 5.0
    key: Path | str | None = None
    sockets: SocketOptions = field(default_factory=SocketOptions)

    def __post_init__(self) -> None:
        _check_seconds(self)
