"""Why a change is not applied yet: its step, the place of a key, or another change before it."""

import dataclasses

import msgspec
import pytest

from tests.unit.test_cli import APPLIED, KEYS, PENDING, outcome, result
from zloom.cli import pending
from zloom.client.results import Result
from zloom.messages import Keys
from zloom.model import HistoryEntry, Key, KeyState, Outcome, ReplicaStatus, Revision, Schema

BATCH_SIZE = Key("batch_size", Schema(["integer"]), 1, "Samples; applies at the end of the epoch")
PLACED = msgspec.structs.replace(KEYS, keys=[*KEYS.keys, KeyState(BATCH_SIZE, 2)])


def config(number: int, *keys: str, at_step: int | None = None) -> Revision:
    return Revision(number, "config", dict.fromkeys(keys, 1), at_step=at_step)


def command(number: int, name: str) -> Revision:
    return Revision(number, "command", command=name)


def entry(revision: Revision, *outcomes: Outcome) -> HistoryEntry:
    settled = bool(outcomes) and all(each.outcome for each in outcomes)
    return HistoryEntry(revision, list(outcomes) or [PENDING], settled)


def said(number: int, *entries: HistoryEntry, at_step: int | None = None, keys: Keys = PLACED) -> list[str]:
    waiting = Result("lm", "one", number, [PENDING], settled=False, at_step=at_step)
    return pending.why(waiting, keys, entries)


def test_why_a_change_is_pending_names_the_keys_that_say_more() -> None:
    first, *others = pending.of_keys({"learning_rate": "1", "accumulate": "2"}, KEYS, None)
    assert "at the end of the step that runs" in first
    assert others == ["  learning_rate: Step size"]
    only = "not applied yet: a change is applied at the start of step 9"
    assert pending.of_keys({"learning_rate": "1"}, KEYS, 9) == [only], "no more need be said of a step"


def test_a_key_that_has_a_place_of_its_own_is_pending_for_that_alone() -> None:
    batch_size = Key("batch_size", Schema(["integer"]), 1, "Samples; applies at the end of the epoch")
    keys = msgspec.structs.replace(KEYS, keys=[KEYS.keys[0], KeyState(batch_size, 2)])
    texts = {"learning_rate": "1", "batch_size": "2"}
    own = "  batch_size: Samples; applies at the end of the epoch"
    assert pending.of_keys(texts, keys, None) == ["not applied yet: waits for the place of", own]
    assert pending.of_keys(texts, keys, 9) == [
        "not applied yet: waits from step 9 on for the place of",
        own,
    ]
    late = dataclasses.replace(result(APPLIED), at_step=1800)
    assert pending.step_passed(late, texts, keys) == ""


def test_a_step_that_has_passed_is_pointed_out() -> None:
    for at_step, note in ((1839, "note: step 1839 has passed: applied at step 1840"), (1840, ""), (None, "")):
        met = dataclasses.replace(result(APPLIED, outcome(1, "applied", 1840)), at_step=at_step)
        assert pending.step_passed(met, {"learning_rate": "1"}, KEYS) == note
    waiting = dataclasses.replace(result(PENDING, settled=False), at_step=7)
    assert pending.step_passed(waiting, {"learning_rate": "1"}, KEYS) == ""


def test_a_change_that_waits_behind_another_says_so_and_how_that_is_taken_back() -> None:
    first, second = config(1, "batch_size", "learning_rate"), config(2, "learning_rate")
    assert said(2, entry(second), entry(first)) == [
        "not applied yet: waits behind revision 1, which waits for the place of",
        "  batch_size: Samples; applies at the end of the epoch",
        "`zloom cancel lm 1` takes revision 1 back where it is pending",
    ]
    waiting = Result("lm", "one", 2, [PENDING], settled=False)
    told = pending.why(waiting, PLACED, [entry(second), entry(first)], "one")
    assert told[-1].startswith("`zloom cancel lm 1 --attempt one` takes")


def test_a_change_that_waits_behind_another_for_a_step_or_for_nothing_known_says_so() -> None:
    own = entry(config(2, "learning_rate"))
    assert said(2, own, entry(config(1, "learning_rate", at_step=90)))[0].endswith(
        "waits behind revision 1, which waits for step 90"
    )
    assert said(2, own, entry(config(1, "learning_rate")))[:2] == [
        "not applied yet: waits behind revision 1, which is not applied yet either",
        "  learning_rate: Step size",
    ]
    both = config(3, "learning_rate", "accumulate")
    told = said(3, entry(both), own, entry(config(1, "accumulate")))
    assert told[0] == "not applied yet: waits behind revisions 1, 2, which are not applied yet either"
    assert [line.split("`")[1] for line in told[-2:]] == ["zloom cancel lm 1", "zloom cancel lm 2"]


def test_a_change_for_a_step_waits_behind_another_only_where_that_may_come_later() -> None:
    own = entry(config(2, "learning_rate", at_step=90))
    queued = said(2, own, entry(config(1, "learning_rate", at_step=80)), at_step=90)
    assert queued[0] == "not applied yet: a change is applied at the start of step 90"
    assert "behind revision 1" in said(2, own, entry(config(1, "learning_rate", "batch_size")), at_step=90)[0]


@pytest.mark.parametrize(
    ("own", "before", "numbers"),
    [
        (config(3, "a"), [entry(config(2, "b")), entry(config(1, "c"))], []),
        (config(3, "a"), [entry(config(2, "a")), entry(config(1, "a"))], [1]),
        (config(3, "a"), [entry(config(2, "a", "b")), entry(config(1, "b"))], [1]),
        (config(3, "a", "b"), [entry(config(2, "a")), entry(config(1, "b"))], [1, 2]),
        (config(3, "a"), [entry(config(2, "a"), outcome(2, "cancelled")), entry(config(1, "a"))], [1]),
        (config(3, "a"), [entry(config(2, "a"), PENDING, outcome(0, "applied"))], [2]),
        (config(3, "a"), [entry(config(2, "a"), outcome(2, "applied"), outcome(0, None))], []),
        (config(3, "a"), [entry(Revision(2, "cancel", cancels=1))], []),
        (config(1, "a"), [entry(config(2, "a"))], []),
        (command(3, "resume"), [entry(command(2, "pause")), entry(command(1, "stop"))], [2]),
        (command(3, "pause"), [entry(command(2, "checkpoint"))], []),
    ],
)
def test_only_what_touches_the_same_on_the_same_replica_holds_up(
    own: Revision, before: list[HistoryEntry], numbers: list[int]
) -> None:
    assert [each.revision for each in pending.holding_up(own, [entry(own), *before])] == numbers


def test_a_change_that_a_pause_holds_up_says_where_and_how_the_pause_ends() -> None:
    own, waiting = entry(config(2, "batch_size")), Result("lm", "one", 2, [PENDING, APPLIED], settled=False)
    paused = ReplicaStatus(PENDING.replica, "lm", "one", rank=2, state="paused", step=23)
    answered = ReplicaStatus(APPLIED.replica, "lm", "one", rank=0, state="paused", step=23)
    last = "rank 2 is paused at step 23; `zloom resume lm` ends the pause"
    assert pending.why(waiting, PLACED, [own], "", [paused, answered])[-1] == last
    behind = [entry(config(2, "learning_rate")), entry(config(1, "batch_size", "learning_rate"))]
    told = pending.why(waiting, PLACED, behind, "one", [paused])
    assert told[-1] == "rank 2 is paused at step 23; `zloom resume lm --attempt one` ends the pause"
    live = msgspec.structs.replace(paused, state="live")
    assert "paused" not in "".join(pending.why(waiting, PLACED, [own], "", [live, answered]))
    resume = entry(command(2, "resume"))
    assert "paused" not in "".join(pending.why(waiting, PLACED, [resume], "", [paused]))
    save = entry(command(2, "checkpoint"))  # which a trainer may take at the end of a step alone
    assert pending.why(waiting, PLACED, [save], "", [paused])[-1] == last
    both = Result("lm", "one", 2, [PENDING, outcome(3, None)], settled=False)
    others = [paused, ReplicaStatus("id3", "lm", "one", rank=3, state="paused", step=24)]
    assert pending.why(both, PLACED, [own], "", others)[-1] == (
        "ranks 2, 3 are paused at steps 23 to 24; `zloom resume lm` ends the pause"
    )


def test_what_is_not_known_of_is_explained_in_general() -> None:
    own = entry(config(1, "batch_size"))
    assert said(1, own)[0] == "not applied yet: waits for the place of"
    assert said(1) == said(2, own) == said(1, entry(command(1, "stop"))) == [pending.WHY]
    assert pending.why(result(PENDING, settled=False), None, []) == [pending.WHY]
