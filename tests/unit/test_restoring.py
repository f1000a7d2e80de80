"""The values of a snapshot, at one rank of several."""

from zloom.handlers import Registry
from zloom.mailbox import Mailbox
from zloom.model import Outcome, Revision
from zloom.restoring import Restore
from zloom.rounds import End, Round


class Rank:
    """A mailbox with the keys a and b, and what its handlers took."""

    def __init__(self) -> None:
        self.took: list[tuple[str, int]] = []
        self.outcomes: list[tuple[int, str | None]] = []
        self.registry = Registry()
        for name in ("a", "b"):
            self.declare(name)
        self.mailbox = Mailbox(self.registry, self._answer)

    def declare(self, name: str) -> None:
        def take(value: int) -> None:
            self.took.append((name, value))

        self.registry.add_key(name, take, initial=0)

    def _answer(self, number: int, outcome: Outcome) -> None:
        self.outcomes.append((number, outcome.outcome))

    def restore(self, **config: int) -> None:
        self.mailbox.put(Restore(3, dict(config), together=True))
        self.mailbox.run(1, 0.0)

    def agreed(self, number: int, *, restores: bool, **changes: int) -> None:
        revision = Revision(number, "config", dict(changes), mode="consistent", restores=restores)
        round = Round("epoch", number, revision, 2, commit=True)
        self.mailbox.promise(round)
        self.mailbox.run(2, 0.0)
        assert self.mailbox.holding
        round.end = End(True)
        self.mailbox.run(2, 0.0)


def test_a_snapshot_s_values_wait_for_all_ranks() -> None:
    rank = Rank()
    rank.restore(a=5)
    assert (rank.took, rank.outcomes, rank.mailbox.lacks_config) == ([], [], True)
    assert not rank.mailbox.waiting  # and cost nothing meanwhile


def test_they_come_in_a_revision_of_all_ranks() -> None:
    rank = Rank()
    rank.restore(a=5)
    rank.agreed(4, restores=True, a=5)
    assert (rank.took, rank.outcomes, rank.mailbox.lacks_config) == ([("a", 5)], [(4, "applied")], False)


def test_what_holds_already_is_not_done_again() -> None:
    rank = Rank()
    rank.agreed(3, restores=False, a=5)
    rank.agreed(4, restores=True, a=5, b=7)
    assert rank.took == [("a", 5), ("b", 7)]
    rank.agreed(5, restores=True, a=5, b=7)
    assert rank.took == [("a", 5), ("b", 7)]
    assert rank.outcomes[-1] == (5, "applied")


def test_a_newer_value_of_a_key_ends_the_lack_of_the_older() -> None:
    rank = Rank()
    rank.restore(a=5, b=7)
    rank.agreed(4, restores=False, a=6)
    assert rank.mailbox.lacks_config
    rank.agreed(5, restores=False, b=1)
    assert not rank.mailbox.lacks_config


def test_values_that_are_in_force_anyway_are_not_lacking() -> None:
    rank = Rank()
    rank.restore(a=0)
    assert not rank.mailbox.lacks_config


def test_after_a_rollback_each_rank_returns_by_itself() -> None:
    rank = Rank()
    rank.mailbox.put(Restore(3, {"a": 5}, rolled_back=True, together=True))
    rank.mailbox.run(1, 0.0)
    assert (rank.took, rank.mailbox.lacks_config) == ([("a", 5)], False)
