"""Keys: pairs for CURVE, and the files that hold them, which nobody but their owner may read."""

import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec
import zmq
from msgspec import Struct

from zloom.errors import KeyringError, SettingsError
from zloom.socket_options import SocketOptions

KEY_VARIABLE = "ZLOOM_KEY"
"""The environment variable that names a client's key file."""

TCP = "tcp://"

FORMAT = 1
"""Of both kinds of key files; another is refused."""

FOLDER_MODE, FILE_MODE = 0o700, 0o600

K = TypeVar("K", bound="BrokerKey | ClientKey")


class BrokerKey(Struct, frozen=True, tag_field="zloom", tag="broker key"):
    """A broker's pair of keys, in Z85."""

    format: int
    public_key: str
    secret_key: str


class ClientKey(Struct, frozen=True, tag_field="zloom", tag="client key"):
    """A user's pair of keys, and the public key of the only broker that he trusts with them, in Z85."""

    format: int
    user: str
    public_key: str
    secret_key: str
    broker_key: str


def new_pair() -> tuple[str, str]:
    """Return a fresh public key and its secret one, in Z85."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def resolve_key(named: Path | str | None, environ: Mapping[str, str], endpoint: str) -> ClientKey | None:
    """Return the key of a file that was named, else of that which $ZLOOM_KEY names, else None.

    A key is for TCP: elsewhere the folder says who may connect, and no file is read.

    Raises:
        SettingsError: It cannot be read, others can read it too, or it holds no client's key.
    """
    path = named or environ.get(KEY_VARIABLE) if endpoint.startswith(TCP) else None
    if not path:
        return None
    try:
        return read_key(Path(path).expanduser(), ClientKey)
    except SettingsError:  # a ValueError too, and it names the file
        raise
    except (RuntimeError, ValueError) as error:  # there is no such user; a NUL
        raise SettingsError(f"cannot read a key from {str(path)!r}: {error}") from error


def with_key(options: SocketOptions, key: ClientKey | None, endpoint: str) -> SocketOptions:
    """Return the options of the sockets of a peer that has this key."""
    if key is None or not endpoint.startswith(TCP):
        return options
    return replace(
        options,
        curve_public_key=key.public_key.encode(),
        curve_secret_key=key.secret_key.encode(),
        curve_server_key=key.broker_key.encode(),
    )


# --- files ----------------------------------------------------------------------------------------


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter, or see that it is such a one.

    Raises:
        SettingsError: It is not, or it cannot be made.
    """
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot make the folder {folder}: {error.strerror}") from error
    check_private(folder)


def check_private(folder: Path) -> None:
    """Raise unless only this user can enter a folder.

    Raises:
        SettingsError: Others can, it is another user's, or it is not there.
    """
    try:
        status = folder.stat()
    except OSError as error:
        raise SettingsError(f"cannot read {folder}: {error.strerror}") from error
    # No chmod: it may be a folder that others need, such as /tmp.
    _check(folder, status, f"put it into a folder that only you can enter (mode {FOLDER_MODE:o})")


def read_private(path: Path) -> bytes:
    """Return what a file holds that nobody else can read, in a folder that nobody else can enter.

    Raises:
        SettingsError: Others can, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            check_private(path.absolute().parent)
            _check(path, os.fstat(file.fileno()), f"chmod {FILE_MODE:o} {path}")
            return file.read()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error


def _check(path: Path, status: os.stat_result, cure: str) -> None:
    if status.st_uid != os.geteuid():
        raise SettingsError(f"{path} belongs to user id {status.st_uid}, not to yours ({os.geteuid()})")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        text = f"{path} has mode {mode:04o}, so others may have read a key"
        raise SettingsError(f"{text}; make new ones, or if nobody did: {cure}")


def write_private(path: Path, content: bytes, *, new: bool) -> None:
    """Write a file that nobody else can read: whole, or not at all.

    Args:
        path: Where.
        content: What.
        new: It must not be there yet.

    Raises:
        KeyringError: It is there already.
        SettingsError: It cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if new:
            os.link(beside, path)
            beside.unlink()
        else:
            os.replace(beside, path)
        _sync_folder(path.parent)
    except FileExistsError:
        beside.unlink(missing_ok=True)
        raise KeyringError(f"{path} is there already; move it away first") from None
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    """Put a folder's names on disk: after a loss of power no list comes back that a revocation replaced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_key(path: Path, kind: type[K]) -> K:
    """Return the key of a file.

    Raises:
        SettingsError: Others can read it, or it holds no such key.
    """
    try:
        key = msgspec.json.decode(read_private(path), type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} holds no {kind.__struct_config__.tag}: {error}") from error
    if key.format != FORMAT:
        raise SettingsError(f"{path} has format {key.format}; this version reads {FORMAT}")
    if _public_key(key.secret_key) != key.public_key:
        raise SettingsError(f"{path}: its secret key does not go with its public one; use a whole copy")
    return key


def write_key(path: Path, key: BrokerKey | ClientKey) -> None:
    """Write a key to a new file; raises as `write_private` does."""
    write_private(path, msgspec.json.format(msgspec.json.encode(key), indent=2) + b"\n", new=True)


def _public_key(secret_key: str) -> str:
    try:
        return zmq.curve_public(secret_key.encode()).decode()
    except (ValueError, zmq.ZMQError):
        return ""
