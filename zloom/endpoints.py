"""Where sockets bind and connect: the default endpoint, TCP addresses, the claim on an ipc endpoint's path.

libzmq deletes whatever file stands at an ipc path before it binds there, so a second broker would silently
take the first one's place. `IpcClaim` therefore binds the path itself and hands libzmq a descriptor that
already listens; libzmq then leaves the file alone, at bind and at close:

1. An flock on `<path>.lock`, held as long as the socket is bound, decides between two that start at once.
   The kernel drops it with the process, however it ends; the empty lock file stays, because deleting a lock
   file is a race of its own.
2. A connection to the path tells a live listener, of whatever program, from the file that a killed one left.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import warnings
from pathlib import Path

import platformdirs
import zmq

from .errors import TransportError

if sys.platform != "win32":
    import fcntl

_APP_NAME = "zloom"
_SOCKET_NAME = "control.sock"
_IPC = "ipc://"
_TCP = "tcp://"

_MAX_PORT = 65535

_UNKNOWN_HOST = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


def runtime_endpoint(*, create: bool = False) -> str:
    """The endpoint that broker and peers of one user share when none is named.

    It is a socket in a folder that nobody else can enter, because on a shared machine a port on loopback may
    be another user's broker.

    Args:
        create: Make the folder (0700) if it is missing. The broker does; a peer only needs the name.

    Raises:
        TransportError: The folder is open to others, belongs to another user or is no folder; the path is
            longer than a socket's may be; or this system has no such folder.
    """
    if sys.platform == "win32":
        raise TransportError("Windows has no default endpoint: name one, such as tcp://127.0.0.1:5555")
    endpoint = f"{_IPC}{_runtime_folder() / _SOCKET_NAME}"
    _check_length(endpoint)
    runtime_folder(create=create)
    return endpoint


def runtime_folder(*, create: bool = False) -> Path:
    """The folder of this user on this host that nobody else can enter.

    Args:
        create: Make it (0700) if it is missing.

    Raises:
        TransportError: It is open to others, another user's or no folder; or this system has none.
    """
    folder = _runtime_folder()
    if create:
        _make_private(folder.parent)
        _make_private(folder)
    if folder.exists() or folder.is_symlink():
        # A parent that others may write to lets them swap the folder itself.
        _check_owned(folder.parent, forbidden=0o022)
        _check_owned(folder, forbidden=0o077)
    return folder


def _runtime_folder() -> Path:
    try:
        with warnings.catch_warnings():
            # Where XDG_RUNTIME_DIR is missing platformdirs warns of its fallback. It is checked here anyway.
            warnings.simplefilter("ignore")
            return Path(platformdirs.user_runtime_dir(_APP_NAME, appauthor=False))
    except OSError as error:
        raise TransportError(f"no runtime folder for the default endpoint: {error}") from error


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise TransportError(
            f"cannot make the runtime folder {folder}: {error.strerror}; set XDG_RUNTIME_DIR to a folder of "
            "your own with mode 0700, or name an endpoint"
        ) from error


def _check_owned(folder: Path, forbidden: int) -> None:
    """Refuse `folder` unless it is a real folder of this user without the mode bits of `forbidden`."""
    status = folder.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode):
        raise TransportError(f"{folder} is not a folder, so the default endpoint cannot be there; remove it")
    if status.st_uid != os.geteuid():
        raise TransportError(
            f"{folder} belongs to user id {status.st_uid}, not to yours ({os.geteuid()}); remove it, set "
            "XDG_RUNTIME_DIR to a folder of your own with mode 0700, or name an endpoint"
        )
    if mode & forbidden:
        raise TransportError(
            f"{folder} has mode {mode:04o}, so other users could steer your runs; run: chmod 700 {folder}"
        )


def _check_length(endpoint: str) -> None:
    size = len(os.fsencode(endpoint.removeprefix(_IPC)))
    if size > zmq.IPC_PATH_MAX_LEN:
        raise TransportError(
            f"the path of {endpoint} is {size} bytes long, but a socket's may have {zmq.IPC_PATH_MAX_LEN}; "
            "use a shorter one (the default endpoint's is under XDG_RUNTIME_DIR)"
        )


def tcp_host(endpoint: str) -> str:
    """The host of a TCP endpoint, an IPv6 address with its brackets; empty for other transports."""
    return endpoint.removeprefix(_TCP).rpartition(":")[0] if endpoint.startswith(_TCP) else ""


def tcp_problem(endpoint: str, *, any_port: bool = False) -> str:
    """What is wrong with a TCP endpoint, and what was expected; empty where nothing is.

    libzmq takes port 70000 for 4464 without a word.

    Args:
        endpoint: Such as ``tcp://127.0.0.1:5555`` or ``tcp://[::1]:5555``.
        any_port: Whether ``*`` and 0 may stand for a free port.
    """
    host, port = tcp_host(endpoint), endpoint.rpartition(":")[2]
    if not host:
        return "expected tcp://HOST:PORT"
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        return "expected tcp://HOST:PORT, an IPv6 address in brackets: tcp://[::1]:5555"
    number = int(port) if port.isascii() and port.isdecimal() else -1
    if (any_port and port in ("*", "0")) or 0 < number <= _MAX_PORT:
        return ""
    return f"the port is {port!r}; expected a number from 1 to {_MAX_PORT}{', or *' if any_port else ''}"


def host_problem(endpoint: str) -> str:
    """Why the host that a TCP endpoint names is unknown here, in the system's words; else empty.

    It may take as long as the system's resolver does, which sometimes cannot tell: then it is empty too.
    """
    host = tcp_host(endpoint)
    if not host or host.startswith("["):
        return ""
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        return str(error.strerror) if error.errno in _UNKNOWN_HOST else ""
    except UnicodeError as error:  # a label of more than 63 characters
        return str(error)
    return ""


def ipc_path(endpoint: str) -> str | None:
    """The path of the file of an ipc endpoint; None for other transports, abstract names and wildcards."""
    if not endpoint.startswith(_IPC):
        return None
    path = endpoint.removeprefix(_IPC)
    return None if path[:1] in ("", "@", "*") else path


def is_deserted(endpoint: str) -> bool:
    """Whether a look at the path of an ipc endpoint tells that nobody listens there; it takes microseconds.

    False also where a look does not tell: for other transports, and where the path cannot be looked at.
    """
    path = ipc_path(endpoint)
    if path is None or sys.platform == "win32":
        return False
    try:
        return not _is_listened_to(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _is_listened_to(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True  # its backlog is full
        return True


class IpcClaim:
    """The sole right to listen at the path of an ipc endpoint, from construction to `release`.

    A socket file that a killed process left behind is replaced. The file gets mode 0600: who may connect may
    steer.

    A child forked while the claim is held shares it. When such a child outlives a killed owner the path stays
    taken, by the lock and by the inherited listener, until the child ends.

    Args:
        endpoint: An endpoint for which `ipc_path` gives a path.
        backlog: Connections that may wait to be accepted.

    Attributes:
        listener: Descriptor of the listening socket, for zmq.USE_FD. libzmq closes it.

    Raises:
        TransportError: Somebody listens there already, or the path cannot be used.
    """

    def __init__(self, endpoint: str, backlog: int) -> None:
        self._endpoint = endpoint
        self._path = endpoint.removeprefix(_IPC)
        _check_length(endpoint)
        try:
            self._lock = self._take_lock()
            try:
                self._remove_stale()
                self.listener = self._listen(backlog)
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            raise TransportError(f"cannot bind {endpoint}: {_of_path(self._path, error)}") from error

    def release(self) -> None:
        """Remove the socket file and let others bind; call it before the ZeroMQ socket is closed."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        os.close(self._lock)

    def _take_lock(self) -> int:
        if sys.platform == "win32":
            raise TransportError(f"cannot bind {self._endpoint}: there is no ipc on Windows; use tcp://")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(f"{self._path}.lock", flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise self._taken() from None
        return lock

    def _remove_stale(self) -> None:
        try:
            mode = os.lstat(self._path).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise TransportError(
                f"cannot bind {self._endpoint}: {self._path} is not a socket; use another path or remove it"
            )
        if _is_listened_to(self._path):
            raise self._taken()
        os.unlink(self._path)

    def _listen(self, backlog: int) -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.setblocking(False)
            listener.bind(self._path)
            os.chmod(self._path, 0o600)  # before listen, so that nobody connects in between
            listener.listen(backlog)
            return listener.detach()

    def _taken(self) -> TransportError:
        return TransportError(
            f"cannot bind {self._endpoint}: another process already listens there; stop it, or bind "
            "another endpoint"
        )


def _of_path(path: str, error: OSError) -> str:
    folder = os.path.dirname(path) or "."
    if isinstance(error, FileNotFoundError):
        return f"the folder {folder} does not exist; create it or use another path"
    if isinstance(error, PermissionError):
        return f"you may not write to the folder {folder}; use a path in a folder of your own"
    return f"{error.strerror} ({path})"
