"""The decision register in the job's own `torch.distributed` store; torch itself is not imported."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from zloom.bounded_calls import BoundedCalls
from zloom.rounds import End

KEPT = 2000
"""Rounds and meetings that stay in the store. A round has a meeting or a few, so a rank that asks about an
older one has missed hundreds of decisions."""

ANSWER_LIMIT = 1.0
"""Seconds that a store has for an answer, which takes a tenth of a millisecond. Torch's clients wait without
limit for one whose process is stopped or hangs."""

COMMIT, ABORT = "commit", "abort"
KEEP, UNDO = "keep", "undo:"
PART = "part:"

T = TypeVar("T")


class _StoreFailed(Exception):
    """The store raised what torch's stores do."""


class Store(Protocol):
    """The part of `torch.distributed.Store` that is used."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def add(self, key: str, amount: int) -> int: ...
    def check(self, keys: list[str]) -> bool: ...
    def compare_set(self, key: str, expected: str, desired: str) -> bytes: ...
    def delete_key(self, key: str) -> bool: ...


class StoreRegister:
    """Compare-and-set on keys below `prefix`; a call is a round trip or two to the store.

    Belongs to the training thread; `is_needed` alone may be called from another once that has ended. A store
    that fails or is silent, because the process that serves it is gone or hangs, is a register that cannot
    tell; it costs a call `ANSWER_LIMIT` seconds, and those after it nothing until it answers again.

    Args:
        store: Shared by all ranks.
        rank: Of this process; rank 0 removes old keys.
        world_size: How many ranks must note the same step.
        prefix: Keeps runs and attempts apart that share a store.
        serves: Whether the store may end with this process.
    """

    def __init__(
        self, store: Store, rank: int, world_size: int, prefix: str, *, serves: bool = False
    ) -> None:
        self._store = store
        self._rank = rank
        self._world_size = world_size
        self._prefix = prefix
        self._serves = serves
        self._call = BoundedCalls(ANSWER_LIMIT)
        self.reachable = True
        """Whether the store has answered the last call; torch's clients do not connect again."""
        self._noted = ""
        self._keys = OrderedDict[str, list[str]]()
        """By round, oldest first."""

    def decide(self, round: str, commit: bool) -> bool | None:
        """Write a decision unless one stands there, and return the one that does."""
        self._remember(round)
        desired = COMMIT if commit else ABORT
        stands = self._try(lambda: self._store.compare_set(self._key(round, "decision"), "", desired))
        return None if stands is None else stands.decode() == COMMIT

    def conclude(self, round: str, step: int, end: End | None) -> End | None:
        """Write an end unless one stands there; without one, note that this rank is done at `step`."""
        if end is not None:
            return self._write_end(round, KEEP if end.keep else f"{UNDO}rank {self._rank}: {end.reason}")
        if self._count(round, step) == self._world_size:
            return self._write_end(round, KEEP)
        key = self._key(round, "end")
        if self._try(lambda: self._store.check([key])):
            return _end(self._try(lambda: self._store.get(key)))
        return None

    def part(self, meeting: str, reason: str | None) -> str | None:
        """Write why ranks that met are to end unless something stands there, and return what does."""
        key = self._key(meeting, "part")
        if reason is not None:
            self._remember(meeting).append(key)
            stands = self._try(lambda: self._store.compare_set(key, "", f"{PART}{reason}"))
        elif self._try(lambda: self._store.check([key])):
            stands = self._try(lambda: self._store.get(key))
        else:
            return None
        return None if stands is None else stands.decode().removeprefix(PART)

    def leave(self, meeting: str) -> None:
        """Note that this rank has left a meeting, and asks nothing any more that it was about."""
        key = self._key(meeting, "left")
        self._remember(meeting).append(key)
        if not self._serves:
            self._try(lambda: self._store.add(key, 1))

    def is_needed(self, meeting: str) -> bool:
        """Whether this rank may serve the register, and another has not left a meeting."""
        if not self._serves:
            return False
        left = self._try(lambda: self._store.add(self._key(meeting, "left"), 0))
        return left is not None and left < self._world_size - 1

    def _count(self, round: str, step: int) -> int | None:
        # The step is part of the key: ranks that were ready at different steps never make up the number.
        key = self._key(round, f"done/{step}")
        if self._noted == round:
            return self._try(lambda: self._store.add(key, 0))
        # Once, be its answer lost: were it repeated, this rank might count twice.
        keys = self._remember(round)
        if key not in keys:
            keys.append(key)
        try:
            return self._try(lambda: self._store.add(key, 1))
        finally:  # also where a signal ends the wait for it
            if self._call.made:
                self._noted = round

    def _write_end(self, round: str, text: str) -> End | None:
        return _end(self._try(lambda: self._store.compare_set(self._key(round, "end"), "", text)))

    def _remember(self, round: str) -> list[str]:
        """Return a round's keys, and forget those of one that is long over."""
        if round not in self._keys:
            self._keys[round] = [self._key(round, "decision"), self._key(round, "end")]
        if len(self._keys) > KEPT:
            _, old = self._keys.popitem(last=False)
            for key in old if self._rank == 0 else ():
                self._try(partial(self._store.delete_key, key))
        return self._keys[round]

    def _key(self, round: str, what: str) -> str:
        return f"{self._prefix}/{round}/{what}"

    def _try(self, call: Callable[[], T]) -> T | None:
        try:
            result = self._call(partial(_ask, call))
        except (TimeoutError, _StoreFailed):
            self.reachable = False
            return None
        self.reachable = True
        return result


def _ask(call: Callable[[], T]) -> T:
    """Call a store, on the thread of that call alone: what fails on another is no answer of it."""
    try:
        return call()
    except RuntimeError as error:
        # Torch raises its DistError, or RuntimeError itself where a check in C++ fails. Others are faults.
        if type(error) is RuntimeError or any(kind.__name__ == "DistError" for kind in type(error).__mro__):
            raise _StoreFailed(str(error)) from None
        raise


def _end(stands: bytes | None) -> End | None:
    if stands is None:
        return None
    text = stands.decode()
    return End(True) if text == KEEP else End(False, text.removeprefix(UNDO))
