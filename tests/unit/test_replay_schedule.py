"""What of a recording is replayed, at which step, and what stands against it."""

import re
from typing import Any

import pytest

from zloom import recording
from zloom.model import Outcome, OutcomeKind, Ramp, Revision, Value
from zloom.recording import AnyRecord
from zloom.replay_schedule import Change, LeftOut, schedule_of


def config(
    number: int, step: int | None = 10, *, more: dict[str, Any] | None = None, **changes: Value
) -> list[AnyRecord]:
    """Return the records of a change that one replica applied at a step; None: it has not answered."""
    revision = Revision(number, "config", changes or {"rate": float(number)}, **(more or {}))
    return [recording.Revised(revision=revision), *answer(number, step)]


def answer(number: int, step: int | None, *, kind: OutcomeKind = "applied", **more: Any) -> list[AnyRecord]:
    if step is None:
        return []
    outcome = Outcome(more.pop("replica", "r0"), outcome=kind, step=step, **more)
    return [recording.Answered(revision=number, outcomes=[outcome], settled=True)]


def command(number: int, name: str, kind: OutcomeKind = "applied") -> list[AnyRecord]:
    revised = recording.Revised(revision=Revision(number, "command", command=name))
    return [revised, *answer(number, 10, kind=kind)]


def test_changes_come_in_the_order_of_their_steps() -> None:
    schedule = schedule_of([*config(1, 30), *config(2, 20), *config(3, 20, a=1, b="x")])
    assert schedule.changes == [
        Change(2, 20, {"rate": 2.0}, {}),
        Change(3, 20, {"a": 1, "b": "x"}, {}),
        Change(1, 30, {"rate": 1.0}, {}),
    ]
    assert (schedule.left_out, schedule.obstacles) == ([], [])


def test_a_ramp_is_one_from_the_step_at_which_it_began() -> None:
    ramp = Ramp(100, start=0.5, shape="cosine")
    (change,) = schedule_of(config(1, 20, more={"ramps": {"rate": ramp}})).changes
    assert change == Change(1, 20, {"rate": 1.0}, {"rate": ramp})


def test_the_cancel_of_a_ramp_is_a_change_to_where_it_stood() -> None:
    cancel = recording.Revised(revision=Revision(2, "cancel", cancels=1))
    records = [*config(1, 20, more={"ramps": {"rate": Ramp(100)}}), cancel]
    schedule = schedule_of([*records, *answer(2, 50, values={"rate": 0.3})])
    assert schedule.changes[1] == Change(2, 50, {"rate": 0.3}, {})


def test_what_came_before_the_first_step_is_for_its_start() -> None:
    assert [change.step for change in schedule_of(config(1, 0)).changes] == [1]


@pytest.mark.parametrize("kind", ["rejected", "aborted", "cancelled", "superseded", "not_reached", "lost"])
def test_what_was_not_applied_is_left_out(kind: OutcomeKind) -> None:
    schedule = schedule_of([*config(1, None), *answer(1, 10, kind=kind)])
    assert schedule.left_out == [LeftOut(1, kind.replace("_", " "))]
    assert (schedule.changes, schedule.obstacles) == ([], [])


def test_what_was_not_answered_is_left_out_and_said() -> None:
    assert schedule_of(config(1, None)).left_out == [LeftOut(1, "not answered when the recording ended")]


def test_the_newest_outcome_of_a_replica_counts() -> None:
    records = [*config(1, None), *answer(1, 10, kind="lost"), *answer(1, 12)]
    assert [change.step for change in schedule_of(records).changes] == [12]


def test_the_cancel_of_a_change_that_waited_is_left_out_with_it() -> None:
    cancel = recording.Revised(revision=Revision(2, "cancel", cancels=1))
    schedule = schedule_of([*config(1, None), *answer(1, 10, kind="cancelled"), cancel, *answer(2, 10)])
    assert [each.revision for each in schedule.left_out] == [1, 2]
    assert schedule.obstacles == []


@pytest.mark.parametrize("name", ["pause", "resume", "checkpoint", "stop"])
def test_a_command_that_changes_no_parameter_is_left_out(name: str) -> None:
    schedule = schedule_of(command(1, name))
    ended = "ended the recorded run, and " if name == "stop" else ""
    assert schedule.left_out == [LeftOut(1, f"{name} {ended}changes no parameter")]
    assert schedule.obstacles == []


@pytest.mark.parametrize("name", ["validate", "reset_everything"])
def test_any_other_command_is_an_obstacle_unless_it_came_to_nothing(name: str) -> None:
    (obstacle,) = schedule_of(command(1, name)).obstacles
    assert obstacle.startswith(f"revision 1 is the command {name}, carried out at step 10, and a command")
    assert obstacle.endswith("--skip 1 leaves it out")
    assert schedule_of(command(1, name, "rejected")).obstacles == []
    assert schedule_of(command(1, name), [1]).left_out == [LeftOut(1, "as you asked")]
    assert schedule_of(command(1, name), [1]).obstacles == []


def test_several_ranks_that_changed_at_one_step_are_replayed() -> None:
    records = [*config(1, 20), *answer(1, 20, replica="r1", rank=1)]
    assert [change.step for change in schedule_of(records).changes] == [20]


OBSTACLES: list[tuple[list[AnyRecord], str]] = [
    (
        [*config(1, 20), *answer(1, 25, replica="r1", rank=1)],
        "at different steps, 20 to 25, on different ranks",
    ),
    (
        [*config(1, 20), *answer(1, 20, replica="r1", rank=1, kind="lost")],
        "some replicas only, on others lost",
    ),
    (config(1, 20, more={"mode": "immediate"}), "inside step 20, not at its start"),
    (
        [
            *config(1, None),
            recording.Answered(revision=1, outcomes=[Outcome("r0", outcome="applied", step=3)]),
        ],
        "some replicas only, on others not answered when the recording ended",
    ),
    ([*config(1, 20), *config(2, None), *answer(2, 5, replica="r0b")], "rank 0 was restarted .*r0, r0b"),
]


@pytest.mark.parametrize(("records", "expected"), OBSTACLES, ids=[text[:20] for _, text in OBSTACLES])
def test_what_cannot_be_exact_is_an_obstacle(records: list[AnyRecord], expected: str) -> None:
    (obstacle,) = schedule_of(records).obstacles
    assert re.search(expected, obstacle)


def test_a_revision_to_skip_must_be_there() -> None:
    assert schedule_of(config(1), [2]).obstacles == ["there is no revision 2 to skip"]
