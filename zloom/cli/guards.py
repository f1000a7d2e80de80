"""Guards on a command line: what is wrong with one, and how it stands. Pure."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from zloom.cli.output import clean
from zloom.errors import Refused, SettingsError
from zloom.model import HistoryEntry

_COLUMN = re.compile(r"column (\d+): ")


def check(guard: str) -> None:
    """Refuse what is no guard, as far as that can be told without the run; empty is none.

    Raises:
        SettingsError: It is written wrongly; its notes point at where.
    """
    from zloom_broker import guard_grammar

    if not guard:
        return
    try:
        guard_grammar.parse(guard)
    except Refused as refused:
        error = SettingsError(refused.text)
        for line in caret(guard, refused.code, refused.text):
            error.add_note(line)
        raise error from None


@contextmanager
def pointed_at(guard: str) -> Iterator[None]:
    """Have a refusal of a guard carry lines that point at what is wrong."""
    try:
        yield
    except Refused as refused:
        for line in caret(guard, refused.code, refused.text):
            refused.add_note(line)
        raise


def caret(guard: str, code: str, text: str) -> list[str]:
    """Return the guard with a caret under the column that a refusal names; nothing where it names none."""
    found = _COLUMN.match(text) if code == "bad_guard" else None
    if found is None:
        return []
    before = clean(guard[: int(found[1]) - 1])  # a tab is shown as two characters
    return [f"  {clean(guard)}", f"  {' ' * len(before)}^"]


def standing(entry: HistoryEntry, revert: HistoryEntry | None = None) -> str:
    """Return the guard of a revision, and how it stands; empty where there is none.

    Args:
        entry: The revision.
        revert: The revision that was to restore what was before it, where that is known.
    """
    if not entry.revision.revert_if:
        return ""
    end = entry.guard
    if end is None:
        state = "armed"
    elif end.kind == "reverted" and revert is not None and _is_void(revert):
        state = f"has fired, but {end.revision} was applied nowhere: {end.text}"
    elif end.kind == "reverted":
        verb = "reverted" if revert is None or revert.settled else "being reverted"
        state = f"{verb} by {end.revision}: {end.text}"
    else:
        state = f"{end.kind}: {end.text}"
    return f"revert if {entry.revision.revert_if} ({state})"


def _is_void(entry: HistoryEntry) -> bool:
    return entry.settled and all(each.outcome != "applied" for each in entry.outcomes)
