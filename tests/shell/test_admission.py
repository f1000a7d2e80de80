"""The list of users at work: read anew, expelled, and fail-closed, with libzmq asking at each handshake."""

import asyncio
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from zloom.security import ClientKey, read_key
from zloom.socket_options import Context, new_context
from zloom.socket_sender import NOBODY, Sender
from zloom_broker.admission import Admission
from zloom_broker.keyring import Keyring
from zloom_broker.permissions import OWNER, Access


@pytest.fixture
def context() -> Iterator[Context]:
    made = new_context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    made = Keyring(tmp_path / "auth")
    made.init()
    return made


def sender(keyring: Keyring, name: str) -> Sender:
    key = read_key(keyring.folder / "keys" / f"{name}.key", ClientKey)
    return Sender(key.public_key, is_remote=True)


async def test_only_what_came_over_tcp_needs_a_key(context: Context, keyring: Keyring) -> None:
    keyring.add("ann", "observer", ["a"])
    admission = Admission(context, keyring, lambda users: None)
    assert admission.access(sender(keyring, "ann")) == Access("ann", "observer", ("a",))
    assert admission.access(NOBODY) == OWNER
    assert admission.access(Sender("", is_remote=True)) is None
    assert admission.access(Sender("x" * 40, is_remote=True)) is None
    admission.close()


async def test_a_list_that_changes_is_heeded_by_itself(context: Context, keyring: Keyring) -> None:
    keyring.add("ann", "observer", ["*"])
    gone: asyncio.Queue[set[str]] = asyncio.Queue()
    admission = Admission(context, keyring, gone.put_nowait)
    ann = sender(keyring, "ann")
    keyring.add("bob", "operator", ["*"])
    admission.look()
    assert admission.access(sender(keyring, "bob")) is not None
    assert gone.empty()
    keyring.revoke("ann")
    async with asyncio.timeout(5.0):
        assert await gone.get() == {"ann"}
    assert admission.access(ann) is None
    admission.close()


async def test_who_is_expelled_stays_out_until_he_gets_another_key(
    context: Context, keyring: Keyring
) -> None:
    keyring.add("ann", "observer", ["*"])
    gone: list[set[str]] = []
    admission = Admission(context, keyring, gone.append)
    ann = sender(keyring, "ann")
    admission.expel("ann")
    assert (gone, admission.access(ann)) == ([{"ann"}], None)
    keyring.revoke("ann")
    keyring.add("ann", "observer", ["*"])
    admission.look()
    assert admission.access(ann) is None
    assert admission.access(sender(keyring, "ann")) is not None
    admission.close()


async def test_a_list_that_is_gone_or_readable_by_others_admits_nobody(
    context: Context, keyring: Keyring
) -> None:
    keyring.add("ann", "observer", ["*"])
    admission = Admission(context, keyring, lambda users: None)
    ann = sender(keyring, "ann")
    of_users = keyring.folder / "users.list"
    of_users.chmod(0o644)
    admission.look()
    assert admission.access(ann) is None
    of_users.chmod(0o600)
    admission.look()
    assert admission.access(ann) is not None
    whole = of_users.read_bytes()
    of_users.write_bytes(b'{"x": ' + b"[" * 100_000)  # msgspec raises RecursionError
    admission.look()
    assert admission.access(ann) is None
    of_users.write_bytes(whole)
    admission.look()
    assert admission.access(ann) is not None
    of_users.unlink()
    admission.look()
    assert admission.access(ann) is None
    admission.close()


async def test_a_list_that_cannot_be_read_for_lack_of_descriptors_takes_no_key_away(
    context: Context, keyring: Keyring
) -> None:
    keyring.add("ann", "observer", ["*"])
    gone: list[set[str]] = []
    admission = Admission(context, keyring, gone.append)
    ann = sender(keyring, "ann")
    keyring.add("bob", "operator", ["*"])
    bob = sender(keyring, "bob")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        admission.look()
        assert admission.access(ann) is not None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    admission.look()
    assert admission.access(bob) is not None
    assert gone == []
    admission.close()
