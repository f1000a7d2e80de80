"""All revisions of an attempt, in blocks: what has come to rest is kept packed until somebody asks for it.

A million revisions as objects take gigabytes, and a start that makes them takes many seconds. Pure.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from weakref import WeakValueDictionary

from zloom.model import Revision
from zloom_broker.blocks import Block, Rows, pack, unpack_block, unpack_ledger, unpack_revision
from zloom_broker.ledger import Ledger
from zloom_broker.parts import ImageError, Parts, digest_of_part, part_of

BLOCK_SIZE = 256
"""Revisions in a block, at most …"""

BLOCK_BYTES = 128 * 1024
"""… and their bytes, unless one alone has more: one that changes is unpacked, and written again, with all of
its block, and nothing else is done meanwhile."""


class _Packed:
    """A block as a snapshot has it."""

    __slots__ = ("content", "digest", "ledgers", "revisions")

    def __init__(self, content: bytes, digest: bytes, block: Block) -> None:
        self.content = content
        self.digest = digest
        self.revisions = _compact(block.revisions)
        """A view of `content`, as are the ledgers."""
        self.ledgers = _compact(block.ledgers)

    def revision(self, position: int) -> Revision:
        """Return a revision, made anew; what became of it is not looked at."""
        return unpack_revision(self.revisions[position])

    def ledger(self, position: int) -> Ledger:
        """Return a ledger, made anew."""
        return Ledger.of(self.revision(position), unpack_ledger(self.ledgers[position]))

    def made_by(self, user: str, request_id: str) -> int | None:
        """Return the position of the revision that a request made, or None."""
        return unpack_block(self.content).requests.get(user, {}).get(request_id)


def _compact(rows: Rows) -> Rows:
    return Rows(rows.content, array("I", rows.ends))


class _Block:
    """Ledgers that follow each other: as objects, packed, or both while these are the same."""

    __slots__ = ("ledgers", "packed")

    def __init__(self, ledgers: list[Ledger] | None, packed: _Packed | None) -> None:
        self.ledgers = ledgers
        self.packed = packed

    def pack(self) -> _Packed:
        """Return it as a snapshot has it; that stays as long as nothing changes."""
        if self.packed is None:
            block = block_of(self.ledgers or [])
            content = pack(block)
            self.packed = _Packed(content, digest_of_part(content), unpack_block(content))
        return self.packed

    def parted(self) -> list[list[Ledger]]:
        """Return its ledgers, in as many lists as are needed for none to have too many bytes."""
        lists: list[list[Ledger]] = []
        size = 0
        for ledger in self.ledgers or []:
            added = sum(map(len, ledger.pack()))
            if not lists or size + added > BLOCK_BYTES:
                lists.append([])
                size = 0
            lists[-1].append(ledger)
            size += added
        return lists

    def made_by(self, user: str, request_id: str) -> int | None:
        """Return the position of the newest revision that a request made, or None."""
        if self.ledgers is None:
            return self.packed.made_by(user, request_id) if self.packed is not None else None
        for position in range(len(self.ledgers) - 1, -1, -1):
            revision = self.ledgers[position].revision
            if (revision.by, revision.request_id) == (user, request_id):
                return position
        return None


class Ledgers:
    """The ledgers of an attempt, in the order of their revisions. Not thread-safe.

    Of each ledger there is one object at a time, for as long as anybody holds it.
    """

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._starts: list[int] = []
        """How many revisions stand before each block."""
        self._length = 0
        self._made: WeakValueDictionary[int, Ledger] = WeakValueDictionary()
        """What was unpacked and is held by somebody, by the number of its revision."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Ledger]:
        return (self[number] for number in range(1, self._length + 1))

    def __getitem__(self, revision: int) -> Ledger:
        """Return the ledger of a revision.

        Raises:
            LookupError: There is none of that number.
        """
        found = self.get(revision)
        if found is None:
            raise self._no(revision)
        return found

    def get(self, revision: int) -> Ledger | None:
        """Return the ledger of a revision, or None where there is none of that number."""
        if not 0 < revision <= self._length:
            return None
        start, newest = self._starts[-1], self._blocks[-1].ledgers
        if revision > start and newest is not None:  # as a rule
            return newest[revision - 1 - start]
        number, position = self._find(revision)
        block = self._blocks[number]
        if block.ledgers is not None:
            return block.ledgers[position]
        ledger = self._made.get(revision)
        if ledger is None and block.packed is not None:
            ledger = self._made[revision] = block.packed.ledger(position)
        return ledger

    def revision(self, number: int) -> Revision:
        """Return a revision; cheaper than its ledger, where that is packed.

        Raises:
            LookupError: There is none of that number.
        """
        if not 0 < number <= self._length:
            raise self._no(number)
        if number not in self._made:
            index, position = self._find(number)
            block = self._blocks[index]
            if block.ledgers is None and block.packed is not None:
                return block.packed.revision(position)
        return self[number].revision

    def after(self, revision: int) -> Iterator[Revision]:
        """Yield the revisions that follow one."""
        return map(self.revision, range(revision + 1, self._length + 1))

    def made_by(self, user: str, request_id: str, first: int, last: int) -> int:
        """Return the newest of some revisions that a request made.

        Raises:
            LookupError: It made none of them.
        """
        for number in range(self._find(last)[0], self._find(first)[0] - 1, -1):
            position = self._blocks[number].made_by(user, request_id)
            if position is not None:
                return self._starts[number] + position + 1
        text = f"none of revisions {first} to {last} was made by request {request_id!r} of {user!r}"
        raise LookupError(text)

    def append(self, ledger: Ledger) -> None:
        """Take the next revision."""
        if not self._blocks or self._length - self._starts[-1] >= BLOCK_SIZE:
            self._blocks.append(_Block([], None))
            self._starts.append(self._length)
        self._loosen(len(self._blocks) - 1).append(ledger)
        self._length += 1

    def changing(self, revision: int) -> Ledger:
        """Return the ledger of a revision that is about to be changed."""
        number, position = self._find(revision)
        ledger = self._loosen(number)[position]
        ledger.packed = None
        return ledger

    # --- snapshots ---------------------------------------------------------------------------

    def pack(self) -> Iterator[None]:
        """Do what takes long about `parts`, little at each turn; what changes in between is done again.

        What rests is kept packed only.
        """
        number = 0
        while number < len(self._blocks):
            yield from self._pack(number)
            number += 1

    def digests(self) -> list[bytes]:
        """Return what `parts` are known by, in their order.

        Raises:
            ImageError: They do not hold each revision once.
        """
        packed = [block.pack() for block in self._blocks]
        held = sum(len(each.revisions) for each in packed)
        if held != self._length:
            raise ImageError(f"its blocks hold {held} revisions of {self._length}")
        return [each.digest for each in packed]

    def parts(self) -> dict[bytes, bytes]:
        """Return all revisions as a snapshot has them."""
        return {packed.digest: packed.content for packed in map(_Block.pack, self._blocks)}

    def restore(self, digests: Iterable[bytes], parts: Parts) -> Iterator[Block]:
        """Take the blocks of a snapshot, and yield each for what else is to be known of it.

        Raises:
            ImageError: One is not there.
            msgspec.DecodeError: One is of another version.
        """
        for digest in digests:
            content = part_of(parts, digest)
            block = unpack_block(content)
            self._blocks.append(_Block(None, _Packed(content, digest, block)))
            self._starts.append(self._length)
            self._length += len(block.revisions)
            yield block

    # --- inside ------------------------------------------------------------------------------

    def _no(self, revision: int) -> LookupError:
        return LookupError(f"no revision {revision}; the newest is {self._length}")

    def _find(self, revision: int) -> tuple[int, int]:
        """Return the number of the block that has a revision, and its position there."""
        number = bisect_right(self._starts, revision - 1) - 1
        return number, revision - 1 - self._starts[number]

    def _loosen(self, number: int) -> list[Ledger]:
        """Return the ledgers of a block as objects, which count from now on."""
        block = self._blocks[number]
        if block.ledgers is None:
            count = len(block.pack().ledgers)
            first = self._starts[number] + 1
            block.ledgers = [self[each] for each in range(first, first + count)]
        block.packed = None
        return block.ledgers

    def _pack(self, number: int) -> Iterator[None]:
        block = self._blocks[number]
        if block.packed is None:
            for ledger in block.ledgers or []:
                ledger.pack()
                yield
            self._split(number)
            yield
        # In one turn: what is let go must be what was packed.
        block.pack()
        if block.ledgers is not None and self._rests(number, block.ledgers):
            for ledger in block.ledgers:
                self._made[ledger.revision.revision] = ledger
                ledger.packed = None
            block.ledgers = None
        yield

    def _split(self, number: int) -> None:
        """Leave in a block what it may have of bytes, and put blocks with the rest of it after it."""
        first, *rest = self._blocks[number].parted()
        # Whoever asked for it since the last turn had it packed with the rest.
        self._blocks[number].ledgers, self._blocks[number].packed = first, None
        for ledgers in reversed(rest):
            self._blocks.insert(number + 1, _Block(ledgers, None))
            self._starts.insert(number + 1, ledgers[0].revision.revision - 1)

    def _rests(self, number: int, ledgers: list[Ledger]) -> bool:
        """Whether no more follow in a block, and nothing in it is expected to change."""
        full = number + 1 < len(self._blocks) or len(ledgers) == BLOCK_SIZE
        return full and all(each.settled and not each.armed for each in ledgers)


def block_of(ledgers: list[Ledger]) -> Block:
    """Return ledgers as a block, with all that is looked for in many of them at once."""
    requests: dict[str, dict[str, int]] = {}
    keys: dict[str, list[int]] = {}
    losses: dict[str, list[int]] = {}
    for position, ledger in enumerate(ledgers):
        revision = ledger.revision
        requests.setdefault(revision.by, {})[revision.request_id] = position
        for key in ledger.changes:
            keys.setdefault(key, []).append(revision.revision)
        for replica in ledger.lost:
            losses.setdefault(replica, []).append(revision.revision)
    return Block(
        revisions=Rows.of(ledger.pack()[0] for ledger in ledgers),
        ledgers=Rows.of(ledger.pack()[1] for ledger in ledgers),
        requests=requests,
        keys=keys,
        open=[each.revision.revision for each in ledgers if not each.settled],
        losses=losses,
        doubtful=[each.revision.revision for each in ledgers if each.may_turn_void],
        void=[each.revision.revision for each in ledgers if each.void],
        noted=[each.revision.revision for each in ledgers if each.noted],
    )
