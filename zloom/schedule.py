"""Revisions that wait for their step or their place, and in which order they are due. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from zloom.model import Revision
from zloom.rounds import Round


@dataclass(frozen=True, slots=True)
class Pending:
    """A revision that waits."""

    revision: Revision
    step: int
    """The first step that it may be applied at, its own readiness and that of others aside."""
    round: Round | None = None
    """In which all ranks agreed on it, if they did."""

    @property
    def names(self) -> Iterable[str]:
        """What it touches: keys, or a command with a slash before it, which no key can have."""
        if self.revision.kind == "config":
            return self.revision.changes
        # A resume that overtook its pause would leave the training paused.
        return ("/pause" if self.revision.command == "resume" else f"/{self.revision.command}",)


class Schedule:
    """What waits, by number. Everything here belongs to the training thread."""

    def __init__(self) -> None:
        self._pending: dict[int, Pending] = {}

    def __bool__(self) -> bool:
        return bool(self._pending)

    def __contains__(self, number: int) -> bool:
        return number in self._pending

    def __getitem__(self, number: int) -> Pending:
        return self._pending[number]

    def __iter__(self) -> Iterator[Pending]:
        """Yield all that wait, of which some may end meanwhile."""
        return iter(list(self._pending.values()))

    def add(self, pending: Pending) -> None:
        """Have a revision wait."""
        self._pending[pending.revision.revision] = pending

    def end(self, number: int) -> None:
        """Have a revision wait no more, if it did."""
        self._pending.pop(number, None)

    def clear(self) -> None:
        """Have nothing wait."""
        self._pending.clear()

    def due(self, now: int, first: int, promised: Iterable[Round]) -> list[int]:
        """Return the revisions whose step has come, in order of (step, revision).

        One that shares a name with an earlier one takes that one's step if it is later, so that it can
        never overtake it.

        Args:
            now: The step that began last, whose commands are due …
            first: … and the first that is trained with what is changed now: `now`, or the one after it.
            promised: What ranks have promised to carry out later.
        """
        rounds = [Pending(each.revision, each.step) for each in promised]
        latest: dict[str, int] = {}
        due: list[tuple[int, int]] = []
        for number, pending in sorted(self._pending.items()):
            step = max([pending.step, *(latest.get(name, 0) for name in pending.names)])
            if rounds and pending.round is None:
                step = max(step, _promised_before(pending, rounds))
            latest.update(dict.fromkeys(pending.names, step))
            if step <= (first if pending.revision.kind == "config" else now):
                due.append((step, number))
        return [number for _, number in sorted(due)]


def _promised_before(pending: Pending, rounds: Iterable[Pending]) -> int:
    """Return the step of what was promised before and touches the same, for one that comes by itself.

    Consistent ones need not ask: the broker has them agreed on one after the other, and what this rank
    alone has not heard the end of yet must not move them here to another step than elsewhere.
    """
    names, number = set(pending.names), pending.revision.revision
    before = [each for each in rounds if each.revision.revision < number]
    return max((each.step for each in before if not names.isdisjoint(each.names)), default=0)
