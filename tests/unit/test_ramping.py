"""Ramps from the request to the config: on one rank and on two, with a real core and real safe points."""

from typing import Any

import pytest

from tests.unit.broker_support import Bench, fold
from tests.unit.joined_ranks import Ranks
from zloom import messages as m
from zloom.model import Key, Ramp, RampState, Schema
from zloom_broker.attempt import Attempt


def ramp_to(end: float, steps: int = 4, **more: Any) -> dict[str, Any]:
    return {"changes": {"rate": end}, "ramps": {"rate": Ramp(steps, **more)}}


def key_state(ranks: Ranks, name: str = "rate") -> Any:
    answer = ranks.ask(m.GetKeys(id="k", run="run"))
    assert isinstance(answer, m.Keys)
    return next(state for state in answer.keys if state.key.name == name)


@pytest.mark.parametrize("count", [1, 2])
def test_a_ramp_begins_at_one_step_and_is_answered_then(count: int) -> None:
    ranks = Ranks(count)
    ranks.step(3)
    ranks.set("q", **ramp_to(5.0))
    ranks.step(40, until=lambda: ranks.ledger.settled)
    step = ranks.ranks[0].training.step
    assert ranks.outcomes(1) == [f"applied@{step}"] * count
    assert ranks.attempt.config.now()["rate"].value == 5.0
    seen = []
    for _ in range(5):
        ranks.step()
        assert len(set(ranks.rates)) == 1
        seen.append(ranks.rates[0])
    assert seen == [2.0, 3.0, 4.0, 5.0, 5.0]


def test_where_it_stands_is_shown_while_it_runs() -> None:
    ranks = Ranks(2)
    ranks.step()
    ranks.set("q", **ramp_to(5.0))
    ranks.step(40, until=lambda: ranks.ledger.settled)
    first = ranks.ranks[0].training.step
    ranks.step(2)
    expected = RampState(1, 3.0, 5.0, first + 4)
    state = key_state(ranks)
    assert (state.value, state.pending, state.ramp) == (5.0, False, expected)
    answer = ranks.ask(m.GetReplicas(id="r", run="run"))
    assert isinstance(answer, m.Replicas)
    assert [each.ramps for each in answer.replicas] == [{"rate": expected}] * 2
    ranks.step(2)
    assert key_state(ranks).ramp is None


@pytest.mark.parametrize("count", [1, 2])
def test_the_next_change_of_the_key_ends_it_without_being_refused(count: int) -> None:
    ranks = Ranks(count)
    ranks.set("q1", **ramp_to(5.0, 1000))
    ranks.step(40, until=lambda: ranks.ledger.settled)
    ranks.step(2)
    answer = ranks.set("q2", {"rate": 0.5})
    assert isinstance(answer, m.RevisionState), answer
    ranks.step(40, until=lambda: ranks.ledger.settled)
    ranks.step(2)
    assert ranks.rates == [0.5] * count
    assert ranks.ramps == [{}] * count


@pytest.mark.parametrize("count", [1, 2])
def test_a_cancel_ends_it_where_it_is_on_all_ranks_and_the_config_says_so(count: int) -> None:
    ranks = Ranks(count)
    ranks.set("q1", **ramp_to(100.0, 99, start=1))
    ranks.step(40, until=lambda: ranks.ledger.settled)
    ranks.step(2)
    answer = ranks.ask(m.Cancel(id="c", run="run", revision=1))
    assert isinstance(answer, m.RevisionState), answer
    ranks.step(40, until=lambda: ranks.ledger.settled)
    stayed = ranks.rates[0]
    ranks.step(3)
    assert ranks.rates == [stayed] * count
    assert 1.0 < stayed < 100.0  # type: ignore[operator]
    assert len(set(ranks.outcomes(2))) == 1
    assert ranks.outcomes(2)[0].startswith("applied@")
    setting = ranks.attempt.config.now()["rate"]
    assert (setting.value, setting.revision) == (stayed, 2)
    folded = fold(ranks.bench.journal).attempts["run", "one"]
    again = Attempt.restore(folded.image(), folded.parts(), {})
    assert again.config.now()["rate"] == setting
    assert again.config.at(1)["rate"].value == 100.0
    late = ranks.ask(m.Cancel(id="c2", run="run", revision=1))
    assert isinstance(late, m.Refusal)
    assert late.code == "already_settled"


def test_a_cancel_that_comes_when_it_has_ended_says_so() -> None:
    ranks = Ranks(1)
    ranks.set("q1", **ramp_to(5.0, 2))
    ranks.step(1)  # the status tells of it
    ranks.ask(m.Cancel(id="c", run="run", revision=1))
    ranks.ranks[0].training.step += 5
    ranks.serve()
    assert ranks.outcomes(2) == ["rejected@6"]
    assert ranks.attempt.config.now()["rate"].value == 5.0


def test_a_later_change_that_waits_for_its_step_outlives_the_cancel_of_a_ramp() -> None:
    ranks = Ranks(1)
    ranks.set("q1", **ramp_to(50.0, 49))
    ranks.step(2)
    ranks.set("q2", {"rate": 7.0}, mode="at_step", at_step=30)
    ranks.ask(m.Cancel(id="c", run="run", revision=1))
    ranks.step(3)
    assert ranks.rates == [3.0]
    assert ranks.attempt.config.now()["rate"].value == 7.0
    ranks.step(30)
    assert ranks.rates == [7.0]


def test_an_undecided_ramp_is_cancelled_like_any_change() -> None:
    ranks = Ranks(2)
    ranks.step()
    ranks.set("q1", **ramp_to(5.0), mode="at_step", at_step=10**6)
    ranks.ask(m.Cancel(id="c", run="run", revision=1))
    assert ranks.outcomes(1) == ["cancelled"] * 2
    assert ranks.attempt.config.now()["rate"].value == 1.0


def test_a_handler_that_raises_on_the_way_is_an_event_and_a_line_in_the_log() -> None:
    ranks = Ranks(1)
    ranks.ranks[0].bad = {3.0}
    ranks.set("q1", **ramp_to(5.0))
    ranks.step(6)
    assert ranks.rates == [2.0]
    [event] = [each.event for each in ranks.events if each.event.kind == "ramp_failed"]
    assert event.text == (
        "the ramp of rate in revision 1 failed, rank 0 stays at 2.0: rate: ValueError: too hot"
    )
    assert event.replicas == ["r0"]
    assert len(ranks.ranks[0].log) == 1
    assert key_state(ranks).ramp.error == "rate: ValueError: too hot"


def test_a_ramp_that_not_all_ranks_can_begin_begins_on_none() -> None:
    ranks = Ranks(2)
    ranks.ranks[1].bad = {3.0}
    ranks.step()
    ranks.set("q1", **ramp_to(5.0, start=3))
    ranks.step(40, until=lambda: ranks.ledger.settled)
    assert [each.split("@")[0] for each in ranks.outcomes(1)] == ["aborted", "rejected"]
    ranks.step(3)
    assert ranks.rates == [1.0, 1.0]
    assert ranks.ramps == [{}, {}]
    assert ranks.attempt.config.now()["rate"].value == 1.0


def test_one_who_joins_takes_the_value_at_the_end() -> None:
    ranks = Ranks(1)
    ranks.set("q1", **ramp_to(5.0, 1000))
    ranks.step(3)
    ranks.bench.receive(b"r0", m.Goodbye())
    keys = ranks.ranks[0].registry.keys()
    ranks.bench.join("new", keys=keys, commands=[])
    [snapshot] = [
        effect.message  # type: ignore[union-attr]
        for effect in ranks.bench.sync("new")
        if isinstance(getattr(effect, "message", None), m.Snapshot)
    ]
    assert isinstance(snapshot, m.Snapshot)
    assert (snapshot.config, snapshot.pending) == ({"rate": 5.0}, [])


NAME = Key("name", Schema(["string"]), "x")
PICK = Key("pick", Schema(["integer"], enum=[1, 2, 4]), 1)
FAST = Key("fast", Schema(["number"]), 1.0, immediate=True)
LOW = Key("low", Schema(["number"], minimum=0, maximum=1), 0.5)


@pytest.mark.parametrize(
    ("changes", "ramps", "code", "text"),
    [
        ({"low": 1.0}, {"low": Ramp(0)}, "bad_ramp", "over 0 steps"),
        ({"low": 1.0}, {"low": Ramp(10**12 + 1)}, "bad_ramp", "expected 1 to"),
        ({"low": 1.0}, {"pick": Ramp(5)}, "bad_ramp", "a ramp needs a number to end at, got None"),
        ({"name": "y"}, {"name": Ramp(5)}, "bad_ramp", "a ramp needs a number"),
        ({"pick": 4}, {"pick": Ramp(5)}, "bad_ramp", "pick is one of 1, 2, 4; only a number"),
        ({"fast": 4.0}, {"fast": Ramp(5)}, "bad_ramp", "fast changes at once"),
        ({"low": 1.0}, {"low": Ramp(5, -1)}, "out_of_bounds", "low: the start of its ramp, -1 is out of"),
        ({"low": 2.0}, {"low": Ramp(5)}, "out_of_bounds", "low: 2.0 is out of bounds"),
    ],
)
def test_what_is_no_ramp_is_refused(changes: Any, ramps: Any, code: str, text: str) -> None:
    bench = Bench()
    bench.active("r0", keys=[NAME, PICK, FAST, LOW])
    bench.operator()
    request = m.SetConfig(id="q", run="run", changes=changes, ramps=ramps)
    [answer] = [effect.message for effect in bench.receive(b"op", request)]  # type: ignore[union-attr]
    assert isinstance(answer, m.Refusal)
    assert answer.code == code
    assert text in answer.text
