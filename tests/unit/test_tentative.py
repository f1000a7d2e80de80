"""Revisions that are being written, and changes that are judged beside them."""

from collections.abc import Callable

import pytest

from bench import instructions
from tests.unit.broker_support import Bench, bench_of, sent
from zloom import messages as m
from zloom.model import Key, Mode, Revision, Schema, Value
from zloom_broker import hub, rules
from zloom_broker.effects import Bug, Effect
from zloom_broker.records import AnyRecord
from zloom_broker.rules import MAX_STATE_SIZE
from zloom_broker.tentative import Tentative, values_size

LONG = "x" * 60_000
"""A value of which eight fit into a config, and nine do not."""

TEXTS = [Key(f"text{number}", Schema(["string"]), "") for number in range(12)]


def revision(number: int, mode: Mode = "next", **changes: Value) -> Revision:
    at_step = 100 if mode == "at_step" else None
    return Revision(number, "config", changes=changes, mode=mode, at_step=at_step, chain=b"%d" % number)


def ask(bench: Bench, request: str, **changes: Value) -> list[m.Message]:
    return sent(bench.receive(b"op", m.SetConfig(id=request, run="run", changes=changes, mode="next")))


def later(bench: Bench, request: str, **changes: Value) -> list[m.Message]:
    ask_for = m.SetConfig(id=request, run="run", changes=changes, mode="at_step", at_step=1000)
    return sent(bench.receive(b"op", ask_for))


def writing() -> Bench:
    """Return a bench whose weavelet has keys for long texts, and whose disk hangs from now on."""
    bench = Bench()
    bench.active(keys=TEXTS)
    bench.operator()
    bench.hold = True
    return bench


def test_what_comes_and_goes_is_added_up() -> None:
    first, second = revision(1, lr=0.5), revision(2, "at_step", lr=0.25, text=LONG)
    tentative = Tentative()
    assert tentative.chain(b"before") == b"before"
    tentative.add(first)
    tentative.add(second)
    assert (list(tentative), len(tentative), tentative.scheduled) == ([first, second], 2, [second])
    assert tentative.size == values_size(first) + values_size(second)
    assert (tentative.chain(b"before"), tentative.settings()["lr"].value) == (b"2", 0.25)
    tentative.remove(first)
    assert (list(tentative), tentative.scheduled, tentative.size) == ([second], [second], values_size(second))
    tentative.remove(second)
    assert (list(tentative), tentative.scheduled, tentative.size) == ([], [], 0)


def test_what_has_ended_while_another_is_written_stands_against_nothing() -> None:
    bench = bench_of("a")
    bench.hold = True
    later(bench, "q1", batch_size=8)
    ask(bench, "q2", learning_rate=0.5)
    bench.confirm(1)
    bench.receive(b"op", m.Cancel(id="q3", run="run", revision=1))
    bench.answer(1, outcome="cancelled")
    ask(bench, "q4", learning_rate=0.25)
    bench.confirm(3)
    assert len(bench.waiting) == 1
    ask(bench, "q5", batch_size=16)
    assert len(bench.waiting) == 2, "it is being written too"


def test_a_long_burst_has_room_for_each() -> None:
    bench = writing()
    for number in range(1, 2 * len(TEXTS)):
        ask(bench, f"q{number}", text0=f"{LONG}{number}")
        assert len(bench.waiting) == min(number, 2), "it is being written"
        if number > 1:
            bench.confirm(1)


def test_what_is_being_written_takes_room_too() -> None:
    bench = writing()
    for number, key in enumerate(TEXTS, start=1):
        later(bench, f"q{number}", **{key.name: LONG})
    fit = MAX_STATE_SIZE // len(LONG)
    assert len(bench.waiting) == fit
    refused = [each.code for each in sent(bench.confirm()) if isinstance(each, m.Refusal)]
    assert refused == ["too_large"] * (len(TEXTS) - fit)


def test_what_waits_for_a_burst_is_not_judged_anew_by_each_of_its_revisions() -> None:
    """Else a thousand of them held the broker's loop for seconds."""

    def confirmed(size: int) -> int:
        bench = bench_of("a")
        bench.hold = True
        for number in range(size):
            ask(bench, f"q{number}", learning_rate=0.001 * (number + 1))
        later(bench, "later", batch_size=8)
        for number in range(size):
            ask(bench, f"w{number}", batch_size=9)
        assert len(bench.waiting) == size + 1
        commits, bench.waiting = bench.waiting, []
        bench.journal += [payload for each in commits for payload in each.payloads]
        effects: list[Effect] = []

        def confirm() -> None:
            effects.extend(bench.core.committed(commits[-1].seq, bench.now))

        count = instructions.counted(confirm, lambda: None)
        refused = [each.code for each in sent(effects) if isinstance(each, m.Refusal)]
        assert refused == ["key_pending"] * size
        return count

    assert confirmed(40) < 3 * confirmed(20)


@pytest.mark.parametrize("ends", [Bench.confirm, Bench.fail])
def test_what_waits_for_a_disk_that_hangs_is_bounded(
    ends: Callable[[Bench], list[Effect]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who does not wait for answers would fill the broker's memory."""
    fit = MAX_STATE_SIZE // len(LONG)
    monkeypatch.setattr(hub, "MAX_UNWRITTEN", (fit + 2) * len(LONG))
    bench = writing()
    told = [answer for n, key in enumerate(TEXTS) for answer in later(bench, f"q{n}", **{key.name: LONG})]
    refused = [(each.id, each.code) for each in told if isinstance(each, m.Refusal)]
    assert refused == [("q10", "journal_behind"), ("q11", "journal_behind")]
    ends(bench)
    bench.hold = False
    for number in range(1, fit + 1):
        bench.receive(b"op", m.Cancel(id=f"c{number}", run="run", revision=number))
        bench.answer(number, outcome="cancelled")
    (answer,) = later(bench, "q10", text10=LONG)
    assert isinstance(answer, m.RevisionState)


@pytest.mark.parametrize("written", [True, False])
def test_a_bug_in_what_waited_is_answered_and_holds_up_nothing(
    written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of("a")
    bench.hold = True
    later(bench, "q1", learning_rate=0.5)
    for request, rate in (("q2", 0.25), ("q3", 0.125)):
        assert ask(bench, request, learning_rate=rate) == [], "it waits"
    error = RuntimeError("nobody thought of this")

    def fail(*_: object) -> None:
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(rules, "check_note", fail)
    effects = bench.confirm() if written else bench.fail()
    assert Bug(error) in effects
    codes = {each.id: each.code for each in sent(effects) if isinstance(each, m.Refusal)}
    assert codes.pop("q2") == "internal_error"
    assert codes == ({"q3": "key_pending"} if written else {"q1": "journal_failed"})
    (stats,) = sent(bench.receive(b"op", m.GetStats(id="stats")))
    assert isinstance(stats, m.Stats)
    assert stats.counters["internal_errors"] == 1


def test_what_a_bug_keeps_from_being_written_can_be_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of("a")
    later(bench, "q1", batch_size=8)
    cancel = m.Cancel(id="q2", run="run", revision=1)

    def fail(record: AnyRecord) -> bytes:
        raise RuntimeError("nobody thought of this")

    with monkeypatch.context() as patched:
        patched.setattr(hub, "encode", fail)
        for request in (cancel, m.SetConfig(id="q3", run="run", changes={"learning_rate": 0.5}, mode="next")):
            with pytest.raises(RuntimeError, match="nobody thought"):
                bench.receive(b"op", request)
        bench.core.failed(b"op", cancel)
    told = sent(bench.receive(b"op", cancel)) + ask(bench, "q3", learning_rate=0.5)
    assert [(each.id, each.revision) for each in told if isinstance(each, m.RevisionState)] == [
        ("q2", 2),
        ("q3", 3),
    ]
