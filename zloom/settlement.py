"""What became of revisions at one replica: told once, and remembered for who asks later. Pure."""

from collections import OrderedDict
from collections.abc import Callable

from zloom.model import Outcome, Revision
from zloom.oldest import forget_oldest

MAX_SETTLED = 10_000
"""Revisions whose end is remembered, to tell a late cancel what became of what it meant."""

Answer = Callable[[int, Outcome], object]
"""Takes a revision's number and its outcome, with `replica` and `rank` left for the caller to fill in."""


class Settlement:
    """The ends of revisions. Any thread may ask `in` and `end_of`, the rest is the training thread's."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._ends = OrderedDict[int, str]()
        self._commands = OrderedDict[bytes, Outcome]()
        """What became of commands, by the revision's digest: in another history its number means another."""
        self._unanswered: tuple[int, Outcome] | None = None

    def __contains__(self, number: int) -> bool:
        """Whether it is known what became of a revision here."""
        return number in self._ends

    def end_of(self, number: int) -> str:
        """Return what became of a revision, in words."""
        return self._ends.get(number, "is not waiting here")

    def earlier(self, revision: Revision) -> Outcome | None:
        """Return what became of a command that this replica had before its broker's history was replaced."""
        return self._commands.get(revision.chain)

    def forget(self) -> None:
        """The broker's history was replaced: the same numbers mean other revisions there."""
        self._ends.clear()

    def end(self, number: int, outcome: Outcome, revision: Revision | None = None) -> None:
        """Take note of an end, and have it answered.

        Args:
            number: 0 is the baseline, for which nobody asked.
            outcome: What became of it.
            revision: Itself, if it had waited here.
        """
        if revision is not None and revision.kind == "command" and outcome.chain:
            self._commands[outcome.chain] = outcome
            forget_oldest(self._commands, MAX_SETTLED)
        at = f" at step {outcome.step}" if outcome.outcome == "applied" else ""
        self._unanswered = number, outcome
        self._ends[number] = f"was {outcome.outcome}{at}"
        forget_oldest(self._ends, MAX_SETTLED)
        self.answer_for_last()

    def answer_for_last(self) -> None:
        """Answer for the last end, where an exception, Ctrl-C for one, came before that."""
        if self._unanswered is not None:
            number, outcome = self._unanswered
            if number:
                self._answer(number, outcome)
            self._unanswered = None

    @property
    def lacks_answer(self) -> bool:
        """Whether the last end has not been answered for."""
        return self._unanswered is not None
