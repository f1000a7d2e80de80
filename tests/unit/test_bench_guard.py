"""bench.guard and bench.instructions: what may not become slower, counted in instructions."""

import gc
import sys
from collections.abc import Callable

import pytest

from bench import guard
from bench.guard import Row
from bench.instructions import counted, reference
from zloom.model import Outcome
from zloom_broker.ledger import Ledger


def test_no_work_takes_more_instructions_than_its_budget() -> None:
    exceeded = [row for row in guard.measure() if not row.kept]

    assert not exceeded, "what it is, and when to change a budget: `python -m bench guard`, bench/guard.py"


def test_a_look_at_all_who_answered_at_each_answer_exceeds_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    original: Callable[..., bool] = Ledger.is_new

    def looks_at_all(self: Ledger, outcome: Outcome) -> bool:
        assert all(each.outcome for each in self.outcomes.values())
        return original(self, outcome)

    monkeypatch.setattr(Ledger, "is_new", looks_at_all)
    monkeypatch.setattr(guard, "WAYS", {"agreed": guard.WAYS["agreed"]})

    exceeded = {row.work for row in guard.measure() if not row.kept}

    assert exceeded >= {"core, agreed, 1000 weavelets", "core, agreed, a weavelet of 1000 / of 100"}


def test_the_same_work_is_the_same_number_each_time() -> None:
    assert counted(reference) == counted(reference) > 1000


def test_what_is_called_counts_and_what_is_left_out_does_not() -> None:
    def calls() -> None:
        reference()

    whole, inner = counted(calls), counted(reference)

    assert inner < whole < inner + 20
    assert counted(calls, leave_out={__file__}) == inner
    assert counted(calls, leave_out={__file__, reference.__code__.co_filename}) == 0


def test_counting_leaves_nothing_behind() -> None:
    seen: list[str] = []

    def trace(frame: object, event: str, argument: object) -> None:
        seen.append(event)

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(ZeroDivisionError):
            counted(lambda: 1 // 0)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)
    assert gc.isenabled()
    assert "call" in seen


def test_a_budget_is_kept_at_the_budget_and_shown() -> None:
    rows = [Row("tick()", 20.0, 20.0), Row("report()", 21.0, 20.0)]

    assert guard.table(rows).rows == [["tick()", "20", "20", "kept"], ["report()", "21", "20", "exceeded"]]
