"""Which attempt was taken where a command names none."""

import pytest

from zloom.cli import choosing
from zloom.model import RunStatus


def attempts(chosen: str = "", **live: int) -> list[RunStatus]:
    return [RunStatus("lm", name, live=count, chosen=name == chosen) for name, count in live.items()]


@pytest.mark.parametrize(
    ("of_run", "taken", "said"),
    [
        (attempts("b", a=0, b=1), "b", ""),
        (attempts("b", a=0, b=0), "b", ""),
        ([], "", ""),
        (attempts("b", a=1, b=2), "b", "b of lm; a is live too"),
        (attempts("b", a=1, b=1, c=0), "b", "b of lm; c is newer, but not live; a is live too"),
        (attempts("a", a=1, b=0), "a", "a of lm; b is newer, but not live"),
        (attempts("c", a=1, b=1, c=1), "c", "c of lm; a, b are live too"),
        (attempts("b", a=1, b=0), "b", "b of lm; a is live, and this is not"),
        (attempts(a=1, b=0), "", ""),
    ],
)
def test_what_the_broker_takes_is_named_where_another_could_be_meant(
    of_run: list[RunStatus], taken: str, said: str
) -> None:
    assert choosing.chosen(of_run) == taken
    whole = f"note: this is attempt {said}; --attempt names another" if said else ""
    assert choosing.note(taken, of_run) == whole


def test_an_answer_of_an_older_attempt_names_it_also_beside_a_newer_one() -> None:
    # As under a request id that was used before the newer one began.
    note = choosing.note("a", attempts(a=0, b=1))
    assert note == "note: this is attempt a of lm; b is live, and this is not; --attempt names another"


def test_of_many_attempts_the_newest_are_named() -> None:
    note = choosing.note("9", [RunStatus("lm", str(number), live=1) for number in range(10)])
    assert note.startswith("note: this is attempt 9 of lm; 1, 2, 3, 4, 5, 6, 7, 8 and 1 older are live too")


def test_an_attempt_without_a_change_is_named_with_those_that_have_some() -> None:
    some = [RunStatus("lm", "a", 2), RunStatus("lm", "b", 1), RunStatus("lm", "c"), RunStatus("lm", "d")]
    assert choosing.unchanged("lm", "c", some) == (
        "nobody changed attempt c of lm yet; --attempt names another: a (2 revisions), b (1 revision)"
    )
    assert choosing.unchanged("lm", "d", some[3:]) == "nobody changed attempt d of lm yet"
