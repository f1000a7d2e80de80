"""The head file: number and hash of the last row of which the journal told that it is safe.

Two slots of 64 bytes stand in blocks of their own and are written in turn, so a write that is torn by a
loss of power leaves the other slot, and the file says what was confirmed before. A slot is overwritten in
place and synced with ``fdatasync``: the file never changes its size, so there is no metadata to write. On
ext4 that took 160 µs where a new file, a rename and two syncs took 840.

A slot holds, big-endian: magic (8 bytes), row number (8), chain hash (32), and BLAKE2b-128 over these (16).
"""

import os
import struct
import sys
from hashlib import blake2b
from pathlib import Path

from zloom_broker.journal.chain import Link

if sys.platform == "darwin":
    import fcntl

_MAGIC = b"zloomhd1"
_BODY = struct.Struct(">8sQ32s")
_CHECKSUM_SIZE = 16
SLOT_SIZE = _BODY.size + _CHECKSUM_SIZE

# Bytes from slot to slot: the largest sector of common disks, so that a torn write hits one slot only.
SLOT_SPACING = 4096
_SLOTS = 2


def encode_slot(link: Link) -> bytes:
    """Return the `SLOT_SIZE` bytes that say that `link` was confirmed."""
    body = _BODY.pack(_MAGIC, link.seq, link.chain)
    return body + blake2b(body, digest_size=_CHECKSUM_SIZE).digest()


def decode_slot(data: bytes) -> Link | None:
    """Return the link in a slot, or None where the slot is empty, torn or damaged."""
    if len(data) != SLOT_SIZE:
        return None
    magic, seq, chain = _BODY.unpack(data[: _BODY.size])
    link = Link(seq, chain)
    return link if magic == _MAGIC and encode_slot(link) == data else None


def read_head(path: Path) -> Link | None:
    """Return the newest link in the head file, or None where there is no file or no intact slot.

    Raises:
        OSError: The file is there but cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    offsets = range(0, _SLOTS * SLOT_SPACING, SLOT_SPACING)
    links = [decode_slot(data[offset : offset + SLOT_SIZE]) for offset in offsets]
    return max((link for link in links if link is not None), default=None)


def sync_file(descriptor: int) -> None:
    """Wait until the content of an open file is on the medium, not only in the drive's cache."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync alone stops at the drive there
    else:
        os.fdatasync(descriptor)


def sync_path(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the medium.

    Not for a database to which this process has a connection: closing any descriptor of a file drops every
    lock that the process holds on it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class HeadFile:
    """The head file of a journal that is open for writing. One thread at a time."""

    def __init__(self, path: Path, link: Link) -> None:
        """Replace the file, whatever it held, by one that says that `link` was confirmed.

        Raises:
            OSError: The file could not be written; the old one is still there.
        """
        self.link = link
        fresh = path.with_name(path.name + ".new")
        self._descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._slot = 1
        try:
            self._put(bytes(_SLOTS * SLOT_SPACING), 0)
            self._put(encode_slot(link), 0)
            os.fsync(self._descriptor)
            fresh.replace(path)
            sync_path(path.parent)
        except OSError:
            self.close()
            raise

    def write(self, link: Link) -> None:
        """Say that `link` is confirmed; it is on disk when this returns.

        Raises:
            OSError: It may or may not be on disk; the next write goes to the same slot.
        """
        self._put(encode_slot(link), self._slot * SLOT_SPACING)
        sync_file(self._descriptor)
        self._slot = (self._slot + 1) % _SLOTS
        self.link = link

    def close(self) -> None:
        """Close the file; writes nothing."""
        os.close(self._descriptor)

    def _put(self, data: bytes, offset: int) -> None:
        written = os.pwrite(self._descriptor, data, offset)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes of the head file could be written")
