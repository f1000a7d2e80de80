"""Which attempt of a run was meant where a command names none, in words. Pure."""

from collections.abc import Sequence

from zloom.model import RunStatus
from zloom.words import counted

MAX_OTHERS = 8
"""Attempts that are named beside the one that was chosen."""


def chosen(attempts: Sequence[RunStatus]) -> str:
    """Return the attempt of a run that the broker takes; "" where it says of none."""
    return next((each.attempt for each in attempts if each.chosen), "")


def note(attempt: str, attempts: Sequence[RunStatus]) -> str:
    """Return a note that names the attempt that was taken; empty where no other could have been meant.

    Args:
        attempt: That was taken; "" where that is not known.
        attempts: Of its run, the newest last.
    """
    others = [each.attempt for each in attempts if each.live and each.attempt != attempt]
    newest = attempts[-1].attempt if attempts else attempt
    if not attempt or (attempt == newest and not others):
        return ""
    said = [f"note: this is attempt {attempt} of {attempts[-1].run}"]
    if attempt != newest and newest not in others:
        said.append(f"{newest} is newer, but not live")
    if others:
        is_live = any(each.live for each in attempts if each.attempt == attempt)
        too = " too" if is_live else ", and this is not"
        said.append(f"{_names(others)} {'is' if len(others) == 1 else 'are'} live{too}")
    return f"{'; '.join(said)}; --attempt names another"


def unchanged(run: str, attempt: str, attempts: Sequence[RunStatus]) -> str:
    """Return what is said of an attempt without a change, and which others have some."""
    changed = [
        f"{each.attempt} ({counted(each.revision, 'revision')})"
        for each in attempts
        if each.revision and each.attempt != attempt
    ]
    others = f"; --attempt names another: {_names(changed)}" if changed else ""
    return f"nobody changed attempt {attempt} of {run} yet{others}"


def _names(attempts: Sequence[str]) -> str:
    more = f" and {len(attempts) - MAX_OTHERS} older" if len(attempts) > MAX_OTHERS else ""
    return ", ".join(attempts[-MAX_OTHERS:]) + more
