"""The safe points of one rank or several, for consistent revisions: rounds in, outcomes out."""

from dataclasses import dataclass, field

import pytest

from tests.unit.round_support import MemoryRegister
from zloom.agreement import CONCLUSION_TIMEOUT, DECISION_TIMEOUT
from zloom.errors import UndoError
from zloom.handlers import Registry
from zloom.mailbox import Mailbox, Restore
from zloom.model import Outcome, Revision, Value
from zloom.rounds import End, Round


@dataclass
class Rank:
    """A registry with the keys a and b and the command go, its mailbox, and what became of it."""

    register: MemoryRegister | None = None
    ready: bool = True
    effective: dict[str, Value] = field(default_factory=lambda: {"a": 0, "b": 0})
    outcomes: list[str] = field(default_factory=list)
    confirmed: list[int] = field(default_factory=list)
    chains: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry = Registry()
        self.mailbox = Mailbox(self.registry, self._answer, lambda round, step: self.confirmed.append(step))
        self.mailbox.decide_in(self.register, None)
        for name in self.effective:
            self.declare(name)
        self.registry.add_command("go", lambda: self.effective.update(gone=True))

    def declare(self, name: str) -> None:
        def take(value: int) -> None:
            if value < 0:
                raise ValueError("below zero")
            self.effective[name] = value

        self.registry.add_key(name, take, initial=0, ready=lambda _: self.ready)

    def _answer(self, number: int, outcome: Outcome) -> None:
        at = "" if outcome.step is None else f"@{outcome.step}"
        self.outcomes.append(f"{number} {outcome.outcome}{at} {outcome.error}".rstrip())
        self.chains.append(outcome.chain)

    def run(self, step: int, now: float = 0.0) -> list[str]:
        """Reach a safe point, and return the outcomes that this brought."""
        self.outcomes.clear()
        self.mailbox.run(step, now)
        return list(self.outcomes)

    def promise(self, round: Round, commit: bool | None = None) -> Round:
        """Promise a round, of which the broker has said this."""
        round.commit = commit
        self.mailbox.promise(round)
        return round


def pair() -> tuple[Rank, Rank]:
    one, other = MemoryRegister.shared_by(2)
    return Rank(one), Rank(other)


def config(
    number: int, *, step: int = 5, round: int = 1, supersedes: tuple[int, ...] = (), **changes: Value
) -> Round:
    revision = Revision(
        number, "config", changes, supersedes=list(supersedes), mode="consistent", chain=b"c%d" % number
    )
    return Round("e1", round, revision, step)


def command(number: int, name: str, *, step: int = 5) -> Round:
    return Round("e1", 1, Revision(number, "command", command=name, mode="consistent"), step)


def cancel(number: int, cancels: int, *, step: int = 5) -> Round:
    return Round("e1", 1, Revision(number, "cancel", cancels=cancels, mode="consistent"), step)


# --- hold ----------------------------------------------------------------------------------------


def test_the_step_of_a_promise_is_held_until_the_decision() -> None:
    rank = Rank()
    round = rank.promise(config(1, a=1))
    assert rank.run(4) == []
    assert not rank.mailbox.must_wait
    assert rank.run(5) == []
    assert rank.mailbox.must_wait
    round.commit = True
    rank.run(5)
    assert rank.effective["a"] == 1
    assert rank.mailbox.must_wait, "not concluded"
    round.end = End(True)
    assert rank.run(5) == ["1 applied@5"]
    assert not rank.mailbox.must_wait
    assert not rank.mailbox.waiting
    assert rank.confirmed == [5]


def test_a_round_that_was_moved_to_a_later_step_lets_go_of_the_earlier_one() -> None:
    rank = Rank()
    first = rank.promise(config(1, a=1))
    rank.run(5)
    first.commit = False
    rank.promise(config(1, step=9, round=2, a=1))
    assert rank.run(5) == []
    assert not rank.mailbox.must_wait


def test_a_promise_that_came_too_late_after_all_lets_go() -> None:
    rank = Rank()
    round = rank.promise(config(1, a=1))
    rank.run(5)
    assert rank.mailbox.must_wait
    round.void = True
    assert rank.run(5) == []
    assert not rank.mailbox.must_wait
