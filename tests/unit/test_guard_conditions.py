"""Guards held against what was measured."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.guard_trees import conditions, names
from zloom_broker.guard_conditions import Condition, measured, metrics, why
from zloom_broker.guard_grammar import parse


def reason(text: str, baseline: float | None = None, **values: float) -> str:
    baselines = {} if baseline is None else {"loss": baseline}
    return why(parse(f"{text} within 9 steps").condition, values, baselines)


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("loss > 2 * baseline", {"loss": 5.1, "baseline": 2.3}, "loss was 5.1 > 2 * 2.3"),
        ("loss > 2 * baseline", {"loss": 4.6, "baseline": 2.3}, ""),
        ("loss >= 2 * baseline", {"loss": 4.6, "baseline": 2.3}, "loss was 4.6 >= 2 * 2.3"),
        ("loss > 2 * baseline", {"loss": 5.1}, ""),
        ("loss > 1", {}, ""),
        ("loss < -baseline", {"loss": -9.0, "baseline": 8.0}, "loss was -9 < -8"),
        ("loss > 1 - baseline", {"loss": 5.0, "baseline": -2.0}, "loss was 5 > 1 - (-2)"),
        ("loss - val > 1", {"loss": 5.0, "val": 2.0}, "loss - val was 3 > 1"),
        ("2 * baseline < loss", {"loss": 5.0, "baseline": 2.0}, "2 * baseline was 4 < 5"),
        ("loss > 1 and val <= 1", {"loss": 5.0, "val": 1.0}, "loss was 5 > 1 and val was 1 <= 1"),
        ("loss > 1 and val < 1", {"loss": 5.0, "val": 1.0}, ""),
        ("val > 1 or loss > 1", {"loss": 5.0}, "loss was 5 > 1"),
        ("loss / (loss - 5) > 1", {"loss": 5.0}, "loss / (loss - 5) was inf > 1"),
        ("(loss - 5) / (loss - 5) < 1", {"loss": 5.0}, ""),
        ("-loss * -1 > 1", {"loss": 5.0}, "-loss * -1 was 5 > 1"),
    ],
)
def test_a_condition_holds_and_says_why(text: str, values: dict[str, float], expected: str) -> None:
    assert reason(text, **values) == expected


@pytest.mark.parametrize(
    ("text", "loss", "expected"),
    [
        ("loss is nan", nan, "loss was nan"),
        ("loss is nan", inf, "loss was inf"),
        ("loss is nan", -inf, "loss was -inf"),
        ("loss is nan", 1e300, ""),
        ("loss > 2", nan, "loss was nan"),
        ("loss < 2", nan, "loss was nan"),
        ("loss > 2", inf, "loss was inf > 2"),
        ("loss < 2", inf, ""),
        ("loss > 2 and val > 2", nan, ""),
    ],
)
def test_a_loss_that_is_lost_is_never_overlooked(text: str, loss: float, expected: str) -> None:
    assert reason(text, loss=loss) == expected


def test_what_must_be_measured() -> None:
    condition = parse("a > baseline and b > 1 or c is nan within 9 steps").condition
    assert metrics(condition) == {"a", "b", "c"}
    assert measured(condition) == {"a"}


@given(conditions, st.dictionaries(names, st.floats()), st.dictionaries(names, st.floats()))
def test_no_values_make_it_raise(
    condition: Condition, values: dict[str, float], baselines: dict[str, float]
) -> None:
    assert isinstance(why(condition, values, baselines), str)
