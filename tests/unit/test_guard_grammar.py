"""The grammar of guards: what is read, what is refused and where, and that printing and reading agree."""

import re

import pytest
from hypothesis import assume, given

from tests.unit.guard_trees import garbage, guards
from zloom.errors import Refused
from zloom_broker.guard_conditions import (
    All,
    Any,
    Arithmetic,
    Baseline,
    Comparison,
    Guard,
    Metric,
    Negative,
    NotFinite,
    Number,
    printed,
)
from zloom_broker.guard_grammar import MAX_DEPTH, MAX_LENGTH, check, parse

LOSS = Metric("loss")
DOUBLED = Comparison(">", LOSS, Arithmetic("*", Number(2.0), Baseline()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss > 2 * baseline within 200 steps", Guard(DOUBLED, 200)),
        ("  loss>2*baseline within 1 step ", Guard(DOUBLED, 1)),
        ("loss is nan within 5 steps", Guard(NotFinite(LOSS), 5)),
        (
            "loss is nan or a < 1 and b >= .5 within 5 steps",
            Guard(
                Any(
                    (
                        NotFinite(LOSS),
                        All(
                            (
                                Comparison("<", Metric("a"), Number(1.0)),
                                Comparison(">=", Metric("b"), Number(0.5)),
                            )
                        ),
                    )
                ),
                5,
            ),
        ),
        (
            "a - 1 - -b / 2 <= 1e-3 within 5 steps",
            Guard(
                Comparison(
                    "<=",
                    Arithmetic(
                        "-",
                        Arithmetic("-", Metric("a"), Number(1.0)),
                        Arithmetic("/", Negative(Metric("b")), Number(2.0)),
                    ),
                    Number(1e-3),
                ),
                5,
            ),
        ),
        ("((loss)) > (1) within 5 steps", Guard(Comparison(">", LOSS, Number(1.0)), 5)),
    ],
)
def test_what_is_read(text: str, expected: Guard) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("val/loss > 1", "val/loss"),
        ("metrics.loss > 1", "metrics.loss"),
        ("acc@5/top > 1", "acc@5/top"),
        ("'lr-Adam W' > 1", "lr-Adam W"),
        ('"within" > 1', "within"),
        (r"'it\'s a \\' > 1", "it's a \\"),
    ],
)
def test_names_of_metrics(text: str, name: str) -> None:
    assert parse(f"{text} within 5 steps") == Guard(Comparison(">", Metric(name), Number(1.0)), 5)


def test_a_slash_before_a_number_divides() -> None:
    assert parse("loss/2 > 1 within 5 steps") == parse("loss / 2 > 1 within 5 steps")


FACTOR = "expected a metric, a number, 'baseline' or '('"
CLAIM = "expected a comparison: <, <=, >, >= or 'is nan'"


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", f"column 1: {FACTOR}, found the end"),
        ("loss >> 2 within 5 steps", f"column 7: {FACTOR}, found '>'"),
        ("loss > within 5 steps", f"column 8: {FACTOR}, found 'within'"),
        ("loss > 1e999 within 5 steps", f"column 8: {FACTOR}, found '1e999'"),
        ("loss > 'x within 5 steps", f'column 8: {FACTOR}, found "\'"'),
        ("loss within 5 steps", f"column 6: {CLAIM}, found 'within'"),
        ("loss and b > 1 within 5 steps", f"column 6: {CLAIM}, found 'and'"),
        ("loss = 2 within 5 steps", f"column 6: {CLAIM}, found '='"),
        ("loss is inf within 5 steps", "column 9: expected 'nan', found 'inf'"),
        ("(loss > 1 within 5 steps", "column 11: expected ')', found 'within'"),
        ("1 < loss < 2 within 5 steps", "column 10: expected 'and', 'or' or 'within', found '<'"),
        ("loss > 1", "column 9: expected 'and', 'or' or 'within', found the end"),
        ("loss > 1 within 1.5 steps", "column 17: expected a whole number of steps, 1 at least, found '1.5'"),
        ("loss > 1 within 0 steps", "column 17: expected a whole number of steps, 1 at least, found '0'"),
        ("loss > 1 within 5", "column 18: expected 'steps', found the end"),
        ("loss > 1 within 5 epochs", "column 19: expected 'steps', found 'epochs'"),
        ("loss > 1 within 5 steps now", "column 25: expected the end, found 'now'"),
        (
            "2 * (loss > 1) > 3 within 5 steps",
            "column 5: expected a number or a metric, not a condition in parentheses, found '('",
        ),
        ("2 > 1 within 5 steps", "column 1: expected a comparison that names a metric, found '2'"),
        (
            "baseline is nan within 5 steps",
            "column 1: expected a comparison that names a metric, found 'base",
        ),
        (
            "a > baseline * (1 + b) within 5 steps",
            "column 5: expected 'baseline' beside one metric only, which is the one it is of, found",
        ),
        (
            f"{'(' * (MAX_DEPTH + 1)}loss > 1",
            f"column {MAX_DEPTH + 1}: expected at most {MAX_DEPTH} parentheses and signs inside each other",
        ),
        ("x" * 301, f"column {MAX_LENGTH + 1}: the guard has 301 characters; at most {MAX_LENGTH}"),
    ],
)
def test_what_is_refused_and_where(text: str, refusal: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(text)
    assert refused.value.code == "bad_guard"
    assert refused.value.text.startswith(refusal)


def test_an_unknown_metric_is_refused_with_those_that_are_known() -> None:
    assert check("los > 1 within 5 steps", []) == parse("los > 1 within 5 steps")
    assert check("loss > 1 within 5 steps", {"loss": 2.0}) == parse("loss > 1 within 5 steps")
    with pytest.raises(Refused) as refused:
        check("loss > 1 and los > 1 within 5 steps", ["loss", "accuracy"])
    assert refused.value.text == (
        "column 14: unknown metric 'los'; did you mean loss? known are: accuracy, loss"
    )
    with pytest.raises(Refused, match="for a division put blanks around the slash"):
        check("loss/baseline > 2 within 5 steps", ["loss"])
    with pytest.raises(Refused, match=r"m19, and 5 more$"):
        check("loss > 2 within 5 steps", [f"m{number:02}" for number in range(25)])


@given(garbage)
def test_garbage_raises_the_refusal_and_nothing_else(text: str) -> None:
    refusal = refused_with(text)
    assert refusal is None or re.match(r"column (\d+): ", refusal)


def refused_with(text: str) -> str | None:
    try:
        parse(text)
    except Refused as refused:
        return refused.text if refused.code == "bad_guard" else refused.code
    return None


@given(guards)
def test_what_is_printed_reads_as_the_same(guard: Guard) -> None:
    text = printed(guard)
    assume(len(text) <= MAX_LENGTH)
    assert parse(text) == guard
