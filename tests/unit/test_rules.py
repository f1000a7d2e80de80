"""Every reason for which a change is refused."""

import time
from typing import Any

import pytest

from tests.unit.broker_support import LEARNING_RATE, Bench, sent
from zloom import messages as m
from zloom.model import Command, Key, Schema


def bench_of(world_size: int = 1, **changes: object) -> Bench:
    """Return a bench with that many ranks in step and an operator."""
    bench = Bench()
    for rank in range(world_size):
        bench.active(f"r{rank}", rank=rank, world_size=world_size, **changes)
    bench.operator()
    return bench


def code(bench: Bench, request: Any) -> str:
    """Return the code of the refusal of a request; empty when it was accepted."""
    (answer,) = sent(bench.receive(b"op", request))
    return answer.code if isinstance(answer, m.Refusal) else ""


def update(**more: Any) -> m.SetConfig:
    return m.SetConfig(id="q", run="run", **{"changes": {"learning_rate": 0.5}, **more})


def command(name: str = "pause", **more: Any) -> m.SendCommand:
    return m.SendCommand(id="q", run="run", command=name, **more)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (update(), ""),
        (update(mode="at_step", at_step=5), ""),
        (update(mode="consistent"), ""),
        (update(expected_revision=0), ""),
        (update(expected_revision=1), "revision_conflict"),
        (update(at_step=5), "bad_mode"),
        (update(mode="at_step"), "bad_mode"),
        (update(mode="immediate"), "bad_mode"),
        (update(changes={"learning_rate": "x" * 70_000}), "too_large"),
        (command(), ""),
        (command(arguments={"limit": 5}), ""),
        (command(arguments={"limit": "long"}), "bad_arguments"),
        (command(arguments={"limits": 5}), "bad_arguments"),
        (command("stop"), "unknown_command"),
        (command(mode="immediate"), "bad_mode"),
        (command(mode="at_step"), "bad_mode"),
        (m.Cancel(id="q", run="run", revision=1), "unknown_revision"),
        (m.Rollback(id="q", run="run", to_revision=1), "unknown_revision"),
        (m.Rollback(id="q", run="run", to_revision=0), "no_change"),
        (m.SetConfig(id="q", run="other", changes={}), "unknown_run"),
        (m.SetConfig(id="q", run="run", attempt="two", changes={}), "unknown_attempt"),
        (m.SetConfig(id="", run="run", changes={}), "bad_name"),
        (m.SetConfig(id="i" * 129, run="run", changes={}), "bad_name"),
    ],
)
def test_one_rank(request_: Any, expected: str) -> None:
    assert code(bench_of(), request_) == expected


STEPS = Schema(["object"], properties={"steps": Schema(["integer", "null"], minimum=1)})
RANK_COMMANDS = [Command("pause", Schema(["object"])), Command("resume", STEPS)]


def mode_of(bench: Bench) -> tuple[str, int | None]:
    revision = list(bench.core.state.attempts["run", "one"].ledgers)[-1].revision
    return revision.mode, revision.at_step


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (update(), ("consistent", None)),
        (update(mode="consistent"), ("consistent", None)),
        (update(mode="at_step", at_step=9), ("consistent", 9)),
        (update(mode="next"), ("next", None)),
        (command(mode="next"), ("consistent", None)),
        (command("resume"), ("next", None)),
        (command("resume", arguments={"steps": None}), ("next", None)),
        (command("resume", arguments={"steps": 5}), ("consistent", None)),
        (command("resume", arguments={"steps": 5}, mode="next"), ("consistent", None)),
    ],
)
def test_several_ranks_change_at_one_step(request_: Any, expected: tuple[str, int | None]) -> None:
    bench = bench_of(2, commands=RANK_COMMANDS)
    assert code(bench, request_) == ""
    assert mode_of(bench) == expected


@pytest.mark.parametrize("request_", [update(), update(mode="at_step", at_step=9), command(mode="next")])
def test_a_consistent_change_needs_all_ranks(request_: Any) -> None:
    bench = bench_of(3, commands=RANK_COMMANDS)
    bench.receive(b"r1", m.Goodbye())
    (refusal,) = sent(bench.receive(b"op", request_))
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "ranks_missing"
    assert refusal.text.endswith("missing: 1 (finished)")


def test_of_ranks_that_are_missing_it_is_told_why() -> None:
    bench = Bench()
    bench.operator()
    bench.active("r0", rank=0, world_size=6)
    bench.active("r4", rank=4, world_size=6)
    bench.receive(b"r4", m.Goodbye(reason="failed: ValueError: boom"))
    for came in ("r1", "r1-again"):
        bench.active(came, rank=1, world_size=6)
        bench.subscription(f"echo/n-{came}/".encode(), present=True)
        bench.subscription(f"echo/n-{came}/".encode(), present=False)
        bench.unroutable(came.encode())
        bench.advance(2.0)
    (refusal,) = sent(bench.receive(b"op", update()))
    assert isinstance(refusal, m.Refusal)
    assert refusal.text.endswith(
        "missing: 1 (lost: the connection was closed); 2, 3, 5 (no hello yet); 4 (failed: ValueError: boom)"
    )


@pytest.mark.parametrize("request_", [update(mode="next"), command("resume")])
def test_what_each_rank_does_by_itself_needs_no_other(request_: Any) -> None:
    bench = bench_of(2, commands=RANK_COMMANDS)
    bench.receive(b"r1", m.Goodbye())
    assert code(bench, request_) == ""


def test_an_immediate_key_changes_at_once_and_alone() -> None:
    keys = [LEARNING_RATE, Key("verbose", Schema(["boolean"]), False, immediate=True)]
    bench = bench_of(2, keys=keys)
    assert code(bench, update(changes={"verbose": True, "learning_rate": 0.5})) == "mixed_immediate"
    assert code(bench, update(changes={"verbose": True})) == ""
    assert bench.core.state.attempts["run", "one"].ledgers[1].revision.mode == "immediate"


def test_nobody_there() -> None:
    bench = bench_of()
    bench.receive(b"r0", m.Goodbye(reason="trained"))
    (refusal,) = sent(bench.receive(b"op", update()))
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "no_replica"
    assert "rank 0: trained" in refusal.text


def test_ranks_that_are_gone_are_named_in_their_order() -> None:
    bench = bench_of(2)
    for name in ("r1", "r0"):
        bench.receive(name.encode(), m.Goodbye(reason="finished"))
    (refusal,) = sent(bench.receive(b"op", update()))
    assert isinstance(refusal, m.Refusal)
    assert refusal.text == (
        "no replica of run (one) is there: rank 0: finished, rank 1: finished; start it again; a trainer "
        "that was started just now may take some seconds to say hello"
    )


def test_a_rollback_brings_back_what_was() -> None:
    bench = bench_of()
    bench.set("q1", learning_rate=0.5)
    bench.set("q2", learning_rate=0.25, batch_size=8)
    bench.receive(b"op", m.Rollback(id="q3", run="run", to_revision=1))
    made = bench.core.state.attempts["run", "one"].ledgers[3].revision
    assert (made.changes, made.note) == ({"learning_rate": 0.5, "batch_size": 32}, "rollback to 1")


def test_a_rollback_leaves_out_what_nobody_declares_any_more() -> None:
    bench = bench_of()
    bench.set("q1", learning_rate=0.5, batch_size=8)
    bench.receive(b"r0", m.Declare(seq=1, keys=[LEARNING_RATE], commands=[]))
    bench.receive(b"op", m.Rollback(id="q2", run="run", to_revision=0))
    assert bench.core.state.attempts["run", "one"].ledgers[2].revision.changes == {"learning_rate": 0.1}


def test_a_cancel_goes_to_those_who_have_not_answered() -> None:
    bench = bench_of(2)
    bench.receive(b"op", update(mode="at_step", at_step=100))
    bench.answer(1, "r0")
    bench.receive(b"op", m.Cancel(id="c", run="run", revision=1))
    ledger = bench.core.state.attempts["run", "one"].ledgers[2]
    assert (ledger.revision.kind, ledger.revision.cancels, ledger.targets) == ("cancel", 1, ["r1"])
    assert code(bench, m.Cancel(id="c2", run="run", revision=2)) == "bad_value"
    bench.answer(1, "r1", "cancelled")
    assert code(bench, m.Cancel(id="c3", run="run", revision=1)) == "already_settled"


def test_the_config_must_fit_into_a_snapshot() -> None:
    text = Schema(["string"])
    bench = bench_of(keys=[Key(f"key{n}", text, "") for n in range(20)])
    codes = [
        code(bench, m.SetConfig(id=f"q{n}", run="run", changes={f"key{n}": "x" * 60_000})) for n in range(20)
    ]
    assert codes[0] == ""
    assert codes[-1] == "too_large"
    assert codes.count("") * 60_000 < 512 * 1024
    assert code(bench, m.SetConfig(id="big", run="run", changes={"key0": "x" * 70_000})) == "too_large"


def test_what_a_replica_says_of_the_world_size_holds_up_nobody() -> None:
    bench = Bench()
    bench.active(world_size=2**64 - 1)
    bench.operator()
    (refusal,) = sent(bench.receive(b"op", update()))
    assert isinstance(refusal, m.Refusal)
    assert refusal.code == "ranks_missing"
    assert refusal.text.endswith("missing: 1, 2, 3, 4, 5, 6, 7, 8 (no hello yet), …")


def test_a_long_value_is_looked_at_once_for_all_ranks_that_declare_it_alike() -> None:
    layers = Key("layers", Schema(["array"], items=Schema(["integer"], minimum=0)), [1])
    bench = bench_of(64, keys=[layers])
    begun = time.monotonic()
    assert code(bench, update(changes={"layers": [1] * 20_000})) == ""
    assert code(bench, update(changes={"layers": [1] * 20_000}, preview=True)) == ""
    assert time.monotonic() - begun < 5.0, "it takes 20 s when each rank is looked at"


def test_a_replica_that_has_declared_no_key_yet_is_told_of() -> None:
    (refusal,) = sent(bench_of(keys=[]).receive(b"op", update()))
    assert isinstance(refusal, m.Refusal)
    assert (refusal.code, refusal.text) == (
        "unknown_key",
        "run has no key 'learning_rate'; known are: none yet: a trainer declares its keys as it starts, or "
        "with its first step",
    )


def test_until_a_step_is_told_more_may_be_declared() -> None:
    bench = bench_of(2)
    more = "; more may come: a trainer declares its {} as it starts, or with its first step"
    key = "run has no key 'dropout'; known are: batch_size, learning_rate"
    own = "run has no command 'norm'; known are: pause"
    stop = "run has no command 'stop'; known are: pause"

    def texts() -> list[str]:
        asked = (update(changes={"dropout": 0.5}), command("norm"), command("stop"))
        return [sent(bench.receive(b"op", each))[0].text for each in asked]  # type: ignore[attr-defined]

    by = 'with @weavelet.on_command("stop")'
    first = [key + more.format("keys"), *(each + more.format("commands") for each in (own, stop))]
    first[-1] += f", {by}"
    assert texts() == first
    bench.receive(b"r0", m.Status(seq=1, step=0))
    assert texts() == first
    bench.receive(b"r1", m.Status(seq=1, step=1))
    assert texts() == [key, own, f"{stop}; a trainer declares it {by}"]


def test_a_hint_among_thousands_of_names_holds_up_nobody() -> None:
    names = [f"{'abcdefgh' * 15}{number:05d}" for number in range(6000)]
    bench = bench_of(keys=[Key(name, Schema(["number"]), 0.1) for name in names])
    begun = time.monotonic()
    assert code(bench, update(changes={"abcdefgh" * 15 + "x": 1.0})) == "unknown_key"
    assert time.monotonic() - begun < 3.0, "it takes 6 s when all are compared"
