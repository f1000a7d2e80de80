"""Guards on the command line: where one is wrong, and how it stands."""

from typing import Any

import pytest

from tests.unit.test_cli import APPLIED
from zloom.cli import report, shapes, tables
from zloom.cli.guards import caret, pointed_at
from zloom.errors import Refused
from zloom.messages import Preview
from zloom.model import GuardEnd, HistoryEntry, Outcome, Problem, Revision

GUARD = "loss > 2 * baseline within 200 steps"


def test_a_caret_stands_under_the_column_that_is_wrong() -> None:
    with pytest.raises(Refused) as refused, pointed_at("loss >> 2 within 5 steps"):
        raise Refused("bad_guard", "column 7: expected a metric, found '>'")
    assert refused.value.__notes__ == ["  loss >> 2 within 5 steps", "        ^"]


def test_a_caret_stands_right_behind_what_a_terminal_would_obey() -> None:
    assert caret("a\t\x1b >> 2", "bad_guard", "column 6: no") == ["  a\\t\\x1b >> 2", "           ^"]


def test_other_refusals_have_none() -> None:
    with pytest.raises(Refused) as refused, pointed_at(GUARD):
        raise Refused("unknown_key", "column 7: of something else")
    assert not hasattr(refused.value, "__notes__")
    assert caret(GUARD, "bad_guard", "no column") == []


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (None, f"revert if {GUARD} (armed)"),
        (GuardEnd("reverted", "loss was 5", 1.0, 8), f"revert if {GUARD} (reverted by 8: loss was 5)"),
        (GuardEnd("passed", "200 steps passed", 1.0), f"revert if {GUARD} (passed: 200 steps passed)"),
    ],
)
def test_history_shows_the_guard_and_its_end(end: GuardEnd | None, text: str) -> None:
    revision = Revision(7, "config", {"lr": 0.1}, note="try", revert_if=GUARD)
    entry = HistoryEntry(revision, [APPLIED], settled=True, guard=end)
    assert tables.of_history([entry], "").rows[0][-1] == f"try; {text}"
    shape: Any = shapes.of_history(entry)
    assert shape["revert_if"] == GUARD
    assert shape["guard"] == (None if end is None else shapes.of_struct(end))


def test_history_says_of_a_revert_that_was_refused_that_nothing_was_reverted() -> None:
    end = GuardEnd("reverted", "loss was 5", 1.0, 8)
    guarded = HistoryEntry(
        Revision(7, "config", {"lr": 0.1}, revert_if=GUARD), [APPLIED], settled=True, guard=end
    )
    refused = Outcome("r0", outcome="rejected", error="no momentum here")
    revert = HistoryEntry(Revision(8, "config", {"lr": 0.5}), [refused], settled=True)
    *_, last = tables.of_history([revert, guarded], "").rows
    assert last[-1] == f"revert if {GUARD} (has fired, but 8 was applied nowhere: loss was 5)"


def test_history_of_what_is_not_guarded_is_as_ever() -> None:
    entry = HistoryEntry(Revision(7, "config", {"lr": 0.1}, note="try"), [APPLIED], settled=True)
    assert tables.of_history([entry], "").rows[0][-1] == "try"
    assert shapes.of_history(entry)["guard"] is None


def test_a_dry_run_shows_the_guard_or_what_is_wrong_with_it() -> None:
    revision = Revision(8, "config", {"lr": 0.1}, revert_if=GUARD)
    preview = Preview(id="p", run="lm", attempt="one", revision=revision, targets=["r0"])
    assert report.preview_lines(preview, GUARD)[-1] == f"  revert if {GUARD}"
    refused = Preview(id="p", run="lm", attempt="one", problems=[Problem("bad_guard", "column 3: no")])
    assert report.preview_lines(refused, "lo$s") == [
        "dry run · would be refused",
        "  column 3: no",
        "    lo$s",
        "      ^",
    ]
