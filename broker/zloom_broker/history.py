"""All revisions of an attempt, in blocks: what has come to rest is kept packed until somebody asks for it.

A million revisions as objects take gigabytes, and a start that makes them takes many seconds. Pure.
"""

from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate
from weakref import WeakValueDictionary

from zloom_broker.ledger import Ledger
from zloom_broker.parts import Parts, digest_of_part
from zloom_broker.records import Block, decode_block, encode, unpack

BLOCK_SIZE = 256
"""Revisions in a block: one that changes is unpacked, and written again, together with so many others."""


class _Packed:
    """A block as a snapshot has it."""

    __slots__ = ("content", "digest", "ends", "entries")

    def __init__(self, content: bytes, digest: bytes, block: Block) -> None:
        self.content = content
        self.digest = digest
        self.entries = block.entries
        """A view of `content`."""
        self.ends = array("I", block.ends)

    def ledger(self, position: int) -> Ledger:
        """Return a revision, made anew."""
        start = self.ends[position - 1] if position else 0
        return Ledger.of(unpack(self.entries[start : self.ends[position]]))


class _Block:
    """Revisions that follow each other: as objects, packed, or both while these are the same."""

    __slots__ = ("ledgers", "packed")

    def __init__(self, ledgers: list[Ledger] | None, packed: _Packed | None) -> None:
        self.ledgers = ledgers
        self.packed = packed

    def pack(self) -> _Packed:
        """Return it as a snapshot has it; that stays as long as nothing changes."""
        if self.packed is None:
            block = block_of(self.ledgers or [])
            content = encode(block)
            self.packed = _Packed(content, digest_of_part(content), decode_block(content))
            for ledger in self.ledgers or []:
                ledger.packed = None
        return self.packed

    @property
    def rests(self) -> bool:
        """It is full, and nothing in it is expected to change."""
        ledgers = self.ledgers or []
        return len(ledgers) == BLOCK_SIZE and all(each.settled and not each.armed for each in ledgers)


class History:
    """The revisions of an attempt, by their place: revision 1 is the first. Not thread-safe.

    Of each revision there is one object at a time, for as long as anybody holds it.
    """

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._length = 0
        self._made: WeakValueDictionary[int, Ledger] = WeakValueDictionary()
        """What was unpacked and is held by somebody, by its number."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Ledger]:
        return self.after(0)

    def __getitem__(self, place: int) -> Ledger:
        """Return the revision at a place, which counts from 0, or from the end when it is negative.

        Raises:
            IndexError: There is none.
        """
        if 0 <= place < self._length:
            block = self._blocks[place // BLOCK_SIZE]
            if block.ledgers is not None:  # as a rule, and asked several times for each change
                return block.ledgers[place % BLOCK_SIZE]
        found = self.get((place if place >= 0 else place + self._length) + 1)
        if found is None:
            raise IndexError(f"no revision at {place}; the newest is {self._length}")
        return found

    def get(self, revision: int) -> Ledger | None:
        """Return a revision, or None where there is none of that number."""
        if not 0 < revision <= self._length:
            return None
        block = self._blocks[(revision - 1) // BLOCK_SIZE]
        if block.ledgers is not None:
            return block.ledgers[(revision - 1) % BLOCK_SIZE]
        ledger = self._made.get(revision)
        if ledger is None and block.packed is not None:
            ledger = self._made[revision] = block.packed.ledger((revision - 1) % BLOCK_SIZE)
        return ledger

    def after(self, revision: int) -> Iterator[Ledger]:
        """Yield the revisions that follow one."""
        return (self[place] for place in range(revision, self._length))

    def made_by(self, user: str, request_id: str, first: int, last: int) -> Ledger:
        """Return the newest of some revisions that a request made; there is one."""
        for place in range(last - 1, first - 2, -1):
            ledger = self[place]
            if (ledger.revision.by, ledger.revision.request_id) == (user, request_id):
                return ledger
        text = f"none of revisions {first} to {last} was made by request {request_id!r} of {user!r}"
        raise LookupError(text)

    def append(self, ledger: Ledger) -> None:
        """Take the next revision."""
        if self._length % BLOCK_SIZE == 0:
            self._blocks.append(_Block([], None))
        self._loosen(len(self._blocks) - 1).append(ledger)
        self._length += 1

    def changing(self, revision: int) -> Ledger:
        """Return a revision that is about to be changed."""
        number, position = divmod(revision - 1, BLOCK_SIZE)
        ledger = self._loosen(number)[position]
        ledger.packed = None
        return ledger

    # --- snapshots ---------------------------------------------------------------------------

    def pack(self) -> Iterator[None]:
        """Do what takes long about `parts`, one revision at each turn; what changes in between is done again.

        What rests is kept packed only.
        """
        for block in self._blocks:
            if block.packed is None:
                for ledger in block.ledgers or []:
                    ledger.pack()
                    yield
                block.pack()
            if block.ledgers is not None and block.rests:
                for ledger in block.ledgers:
                    self._made[ledger.revision.revision] = ledger
                block.ledgers = None
                yield

    def digests(self) -> list[bytes]:
        """Return what `parts` are known by, in their order."""
        return [block.pack().digest for block in self._blocks]

    def parts(self) -> dict[bytes, bytes]:
        """Return all revisions as a snapshot has them."""
        return {packed.digest: packed.content for packed in map(_Block.pack, self._blocks)}

    def restore(self, digests: Iterable[bytes], parts: Parts) -> Iterator[Block]:
        """Take the blocks of a snapshot, and yield each for what else is to be known of it.

        Raises:
            msgspec.DecodeError: One is of another version.
        """
        for digest in digests:
            content = parts[digest]
            block = decode_block(content)
            self._blocks.append(_Block(None, _Packed(content, digest, block)))
            self._length += len(block.ends)
            yield block

    # --- inside ------------------------------------------------------------------------------

    def _loosen(self, number: int) -> list[Ledger]:
        """Return the revisions of a block as objects, which count from now on."""
        block = self._blocks[number]
        if block.ledgers is None:
            first = number * BLOCK_SIZE
            block.ledgers = [self[place] for place in range(first, min(first + BLOCK_SIZE, self._length))]
        block.packed = None
        return block.ledgers


def block_of(ledgers: list[Ledger]) -> Block:
    """Return revisions as a block, with all that is looked for in many of them at once."""
    entries = [ledger.pack() for ledger in ledgers]
    requests: dict[str, list[str]] = {}
    keys: dict[str, list[int]] = {}
    for ledger in ledgers:
        revision = ledger.revision
        requests.setdefault(revision.by, []).append(revision.request_id)
        for key in ledger.changes:
            keys.setdefault(key, []).append(revision.revision)
    return Block(
        entries=memoryview(b"".join(entries)),
        ends=list(accumulate(map(len, entries))),
        requests=requests,
        keys=keys,
        open=[each.revision.revision for each in ledgers if not each.settled],
        losses=[each.revision.revision for each in ledgers if each.lost],
        noted=[each.revision.revision for each in ledgers if each.noted],
    )
