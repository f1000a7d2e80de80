"""A decision register in memory, for ranks of one process."""

from zloom.rounds import End


class MemoryRegister:
    """One rank's access to what all of its siblings share."""

    def __init__(
        self,
        rank: int,
        world_size: int,
        decisions: dict[str, bool],
        ends: dict[str, End],
        done: set[tuple[str, int, int]],
        parted: dict[str, str],
        left: set[tuple[str, int]],
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.reachable = True
        self.decisions = decisions
        """By round."""
        self.ends = ends
        """By round."""
        self._done = done
        self.parted = parted
        """By meeting."""
        self._left = left

    @classmethod
    def shared_by(cls, world_size: int) -> list["MemoryRegister"]:
        """Return the registers of all ranks."""
        decisions: dict[str, bool] = {}
        ends: dict[str, End] = {}
        done: set[tuple[str, int, int]] = set()
        parted: dict[str, str] = {}
        left: set[tuple[str, int]] = set()
        return [cls(rank, world_size, decisions, ends, done, parted, left) for rank in range(world_size)]

    def decide(self, round: str, commit: bool) -> bool | None:
        """Write a decision unless one stands there, and return the one that does."""
        return self.decisions.setdefault(round, commit) if self.reachable else None

    def conclude(self, round: str, step: int, end: End | None) -> End | None:
        """Write an end unless one stands there; without one, note that this rank is done at `step`."""
        if not self.reachable:
            return None
        if end is not None:
            named = end if end.keep else End(False, f"rank {self.rank}: {end.reason}")
            return self.ends.setdefault(round, named)
        self._done.add((round, step, self.rank))
        if all((round, step, rank) in self._done for rank in range(self.world_size)):
            return self.ends.setdefault(round, End(True))
        return self.ends.get(round)

    def part(self, meeting: str, reason: str | None) -> str | None:
        """Write why ranks that met are to end unless something stands there, and return what does."""
        if not self.reachable or reason is None:
            return self.parted.get(meeting) if self.reachable else None
        return self.parted.setdefault(meeting, reason)

    def leave(self, meeting: str) -> None:
        """Note that this rank has left a meeting."""
        self._left.add((meeting, self.rank))

    def is_needed(self, meeting: str) -> bool:
        """Whether this is rank 0, and another has not left a meeting."""
        others = range(1, self.world_size)
        return self.rank == 0 and not all((meeting, other) in self._left for other in others)
