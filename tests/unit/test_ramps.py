"""Ramps: the value at a step is a function of the ramp and the steps since it began."""

from dataclasses import dataclass, field
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from zloom.handlers import Applied, Registry, Rejected
from zloom.model import Ramp, Revision, Value
from zloom.ramps import Ramps, value_at

numbers = st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6)
shapes = st.sampled_from(["linear", "cosine"])


@given(numbers, numbers, st.integers(1, 1000), shapes, st.integers(-10, 2000))
def test_a_value_lies_between_the_ends_and_both_are_reached(
    start: float, end: float, steps: int, shape: str, elapsed: int
) -> None:
    ramp = Ramp(steps, shape=shape)  # type: ignore[arg-type]
    assert min(start, end) <= value_at(ramp, start, end, elapsed) <= max(start, end)
    assert value_at(ramp, start, end, 0) == start
    assert value_at(ramp, start, end, steps) == end
    assert value_at(ramp, start, end, steps + elapsed + 10) == end


def test_shapes() -> None:
    line = [value_at(Ramp(4), 0.0, 8.0, step) for step in range(6)]
    wave = [value_at(Ramp(4, shape="cosine"), 0.0, 8.0, step) for step in range(6)]
    assert line == [0, 2, 4, 6, 8, 8]
    assert wave == pytest.approx([0, 1.1716, 4, 6.8284, 8, 8], abs=1e-4)


def test_integers_are_rounded() -> None:
    values = [value_at(Ramp(4), 1, 3, step) for step in range(5)]
    assert values == [1, 2, 2, 2, 3]
    assert all(type(value) is int for value in values)


@dataclass
class Trainer:
    """A trainer with a rate and a count, and what its handlers were given."""

    ran: list[tuple[str, Value]] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    bad: set[float] = field(default_factory=set)
    ready: bool = True

    def __post_init__(self) -> None:
        self.registry = Registry()
        self.ramps = Ramps(self.registry, self.warned.append)

        def set_rate(value: Annotated[float, Meta(gt=0)]) -> None:
            if value in self.bad:
                raise ValueError("too hot")
            self.ran.append(("rate", value))

        def set_name(value: float | None) -> None: ...

        self.registry.add_key("rate", set_rate, initial=1.0, ready=lambda _: self.ready)
        self.registry.add_key("count", lambda value: self.ran.append(("count", value)), initial=0)
        self.registry.add_key("clip", set_name, initial=None)

    def apply(self, revision: Revision, step: int) -> Applied | Rejected:
        return self.ramps.apply(revision, step)

    def advance(self, *steps: int) -> list[Value]:
        """Reach these steps; return the rate at each."""
        rates = []
        for step in steps:
            self.ramps.advance(step)
            rates.append(self.registry.values["rate"])
        return rates


def ramp(number: int, end: float, steps: int, start: float | None = None, **others: Value) -> Revision:
    return Revision(number, "config", {"rate": end, **others}, ramps={"rate": Ramp(steps, start)})


def test_a_ramp_goes_from_its_start_to_its_end() -> None:
    trainer = Trainer()
    assert isinstance(trainer.apply(ramp(1, 5.0, 4, 3.0, count=7), 10), Applied)
    assert trainer.ran == [("rate", 3.0), ("count", 7)]
    assert trainer.advance(10, 11, 12, 13, 14, 15) == [3.0, 3.5, 4.0, 4.5, 5.0, 5.0]
    assert trainer.ran[2:] == [("rate", 3.5), ("rate", 4.0), ("rate", 4.5), ("rate", 5.0)]
    assert not trainer.ramps


def test_a_key_of_numbers_takes_every_number_though_both_ends_are_whole() -> None:
    trainer = Trainer()
    trainer.apply(Revision(1, "config", {"rate": 2}, ramps={"rate": Ramp(4, 1)}), 0)
    trainer.apply(Revision(1, "config", {"count": 2}, ramps={"count": Ramp(4, 1)}), 0)
    assert trainer.advance(1, 2, 3) == [1.25, 1.5, 1.75]
    assert [value for name, value in trainer.ran if name == "count"] == [1, 2]


def test_a_ramp_without_start_begins_at_the_value_in_force() -> None:
    trainer = Trainer()
    trainer.apply(Revision(1, "config", {"rate": 2.0}), 1)
    trainer.apply(ramp(2, 4.0, 2), 10)
    assert trainer.advance(10, 11, 12) == [2.0, 3.0, 4.0]


def test_a_step_that_was_skipped_or_not_ready_is_made_up_for() -> None:
    trainer = Trainer()
    trainer.apply(ramp(1, 5.0, 4), 0)
    trainer.ready = False
    assert trainer.advance(1, 2) == [1.0, 1.0]
    trainer.ready = True
    assert trainer.advance(3, 9) == [4.0, 5.0]


def test_where_it_stands_is_seen() -> None:
    trainer = Trainer()
    trainer.apply(ramp(3, 5.0, 4), 10)
    trainer.advance(11)
    state = trainer.ramps.states["rate"]
    assert (state.revision, state.value, state.end, state.until, state.error) == (3, 2.0, 5.0, 14, "")
    trainer.advance(14)
    assert trainer.ramps.states == {}


def test_a_change_of_the_key_ends_it_and_one_of_another_does_not() -> None:
    trainer = Trainer()
    trainer.apply(ramp(1, 5.0, 4), 0)
    trainer.apply(Revision(2, "config", {"count": 9}), 1)
    assert trainer.advance(1) == [2.0]
    trainer.apply(Revision(3, "config", {"rate": 0.5}), 2)
    assert trainer.advance(2, 3, 9) == [0.5, 0.5, 0.5]


def test_undoing_the_change_that_ended_it_lets_it_go_on() -> None:
    trainer = Trainer()
    trainer.apply(ramp(1, 5.0, 4), 0)
    result = trainer.apply(ramp(2, 100.0, 1), 2)
    assert isinstance(result, Applied)
    result.undo()
    assert trainer.advance(2, 3, 4) == [3.0, 4.0, 5.0]


def test_undoing_a_ramp_ends_it() -> None:
    trainer = Trainer()
    result = trainer.apply(ramp(1, 5.0, 4, 3.0), 2)
    assert isinstance(result, Applied)
    result.undo()
    assert trainer.advance(3) == [1.0]


def test_a_handler_that_raises_ends_it_at_the_last_good_value() -> None:
    trainer = Trainer(bad={3.0})
    trainer.apply(ramp(7, 5.0, 4), 0)
    assert trainer.advance(1, 2, 3, 4, 5) == [2.0] * 5
    assert trainer.ramps.states["rate"].error == "rate: ValueError: too hot"
    assert trainer.warned == [
        "the ramp of rate in revision 7 ended at step 2, at 2.0: rate: ValueError: too hot"
    ]
    assert not trainer.ramps
    trainer.apply(Revision(8, "config", {"rate": 4.0}), 6)
    assert trainer.ramps.states == {}


def test_a_ramp_that_cannot_begin_is_rejected_and_nothing_changed() -> None:
    trainer = Trainer(bad={3.0})
    assert trainer.apply(ramp(1, 5.0, 4, 3.0, count=2), 0) == Rejected("rate: ValueError: too hot")
    from_none = Revision(2, "config", {"clip": 1.0}, ramps={"clip": Ramp(4)})
    refused = (
        "clip: a ramp leads from number to number, not from null; say where it begins, as in clip=0.1..0.2"
    )
    assert trainer.apply(from_none, 0) == Rejected(refused)
    assert trainer.ramps.check(from_none) == refused
    assert (trainer.ramps.check(ramp(3, 5.0, 4, -1.0)) or "").startswith("rate: expected number > 0")
    assert (trainer.ramps.check(ramp(3, -5.0, 4)) or "").startswith("rate: expected number > 0")
    assert trainer.ramps.check(ramp(3, 5.0, 4)) is None
    assert (trainer.registry.values, trainer.ramps.states) == ({"rate": 1.0, "count": 0, "clip": None}, {})


def test_stopping_tells_the_values_at_which_it_stays() -> None:
    trainer = Trainer()
    trainer.apply(ramp(1, 5.0, 4), 0)
    trainer.advance(2)
    assert trainer.ramps.stop(2) == {}
    assert trainer.ramps.stop(1) == {"rate": 3.0}
    assert trainer.advance(3, 4) == [3.0, 3.0]
    assert trainer.ramps.stop(1) == {}
