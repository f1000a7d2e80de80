"""What is kept of a run that a recording waits for: points and events, and no status that only repeats."""

import pytest

from zloom.client.prelude import Losses, Prelude
from zloom.messages import Happened, Reported, Revised
from zloom.model import Event, ReplicaStatus, Revision
from zloom.series import Series


def reported(step: int, *points: int, attempt: str = "one", dropped: int = 0) -> Reported:
    status = ReplicaStatus("r0", "lm", attempt, step=step, dropped=dropped)
    return Reported(
        seq=1, status=status, metrics={"loss": Series.of(list(points), [0.5] * len(points))} if points else {}
    )


def joined(attempt: str = "one") -> Happened:
    return Happened(seq=1, event=Event("joined", "lm", attempt, replicas=["r0"]))


def test_points_and_events_are_kept_with_the_moment_at_which_they_came() -> None:
    prelude = Prelude()
    revised = Revised(
        seq=1, epoch="e", run="lm", attempt="one", revision=Revision(1, "config", {"rate": 0.5})
    )
    prelude.see([joined(), reported(0), revised], Losses(), 1.0)
    prelude.see([reported(0), reported(1, 1), joined("two")], Losses(), 2.0)
    assert list(prelude.of("one")) == [(joined(), 1.0), (reported(1, 1), 2.0)]
    assert list(prelude.of("two")) == [(joined("two"), 2.0)]


def test_what_was_lost_before_an_attempt_was_heard_of_is_not_missing() -> None:
    prelude = Prelude()
    prelude.see([joined("old")], Losses(3), 1.0)
    prelude.see([reported(0)], Losses(5, 1), 2.0)  # a status that was lost with others before it
    prelude.see([joined()], Losses(7, 1), 3.0)
    assert prelude.losses_before("old") == Losses()
    assert prelude.losses_before("one") == Losses(5, 1), "two may have been of the attempt"
    assert prelude.losses_before("unheard of") == Losses(7, 1)


def test_so_are_points_that_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zloom.client.prelude.KEPT_POINTS", 5)
    prelude = Prelude()
    prelude.see([reported(2, 1, 2), reported(4, 3, 4), joined(), reported(6, 5, 6)], Losses(), 1.0)
    assert [seen for seen, _ in prelude.of("one")] == [reported(4, 3, 4), joined(), reported(6, 5, 6)]
    assert prelude.losses_before("one") == Losses(-1)


def test_what_is_too_much_to_be_kept_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zloom.client.prelude.KEPT", 3)
    prelude = Prelude()
    prelude.see([joined("old"), *(reported(step, step) for step in range(1, 6))], Losses(), 1.0)
    assert [seen for seen, _ in prelude.of("one")] == [reported(step, step) for step in (3, 4, 5)]
    assert prelude.losses_before("one") == Losses(-2)
    assert prelude.first_of("one", [reported(5).status]) == [reported(2).status]


def test_a_replica_that_was_seen_to_join_lacks_no_points() -> None:
    prelude = Prelude()
    prelude.see([joined(), reported(9, 1, 9)], Losses(), 1.0)
    assert prelude.first_of("one", [reported(9, dropped=2).status]) == [reported(0).status]


def test_one_that_was_there_before_lacks_the_points_before_the_first_that_is_kept() -> None:
    prelude = Prelude()
    prelude.see([reported(7), reported(9, 8, 9, dropped=2)], Losses(), 1.0)
    assert prelude.first_of("one", [reported(20, dropped=3).status]) == [reported(7, dropped=2).status]
    unseen = ReplicaStatus("r1", "lm", "one", rank=1, step=4)
    assert prelude.first_of("one", [unseen]) == [unseen]
