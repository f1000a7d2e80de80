"""What the doctor makes of what it saw."""

from typing import Any

import pytest
from msgspec import structs

from zloom.cli import findings
from zloom.cli.findings import GIB, Finding
from zloom.messages import Stats
from zloom.model import RampState, ReplicaStatus


def replica(rank: int, size: int = 4, **fields: Any) -> ReplicaStatus:
    return ReplicaStatus(f"r{rank}", "lm", "one", rank, size, **({"host": f"gpu-{rank}"} | fields))


def seen(found: list[Finding]) -> list[tuple[str, str]]:
    return [(each.state, each.text) for each in found]


@pytest.mark.parametrize("ahead", [-5.0, 5.0])
def test_a_clock_that_is_wrong_is_named(ahead: float) -> None:
    way = "ahead of" if ahead > 0 else "behind"
    found = list(findings.of_clocks(0.1, [replica(0, clock=0.0), replica(1, clock=ahead), replica(2)]))
    assert seen(found) == [("warning", f"the clock of gpu-1 is 5 s {way} the broker's")]
    assert "NTP" in found[0].advice
    assert seen(list(findings.of_clocks(ahead, [])))[0][1].startswith("the clock of this host is 5 s")


def test_clocks_that_agree_are_fine() -> None:
    found = list(findings.of_clocks(1.9, [replica(0, clock=-1.9)]))
    assert seen(found) == [("ok", "2 clocks within 2 s of the broker's")]


@pytest.mark.parametrize(
    ("free", "state"), [(50, "ok"), (11, "ok"), (9, "warning"), (2, "problem"), (0, "problem")]
)
def test_a_disk_that_fills_is_told_in_time(free: int, state: str) -> None:
    found = findings.of_disk({"disk_free_bytes": free * GIB, "disk_total_bytes": 100.0 * GIB})
    assert (found.state, found.text) == (state, f"{free}.0 of 100.0 GiB are free for the journal")
    assert bool(found.advice) == (state != "ok")


def test_a_broker_that_cannot_tell_is_no_broker_with_room() -> None:
    assert findings.of_disk({}).state == "warning"


def test_a_broker_that_is_late_or_fails_is_told() -> None:
    fine = Stats(
        id="s", epoch="e", counters={}, gauges={"loop_lag_seconds_max": 0.01, "commit_seconds_max": 0.02}
    )
    assert seen(list(findings.of_load(fine))) == [
        ("ok", "its loop is at most 10 ms late, and a commit takes 20 ms at most")
    ]
    gauges = {"loop_lag_seconds_max": 1.5, "commit_seconds_max": 12.0}
    bad = Stats(id="s", epoch="e", counters={"commits_failed": 3}, gauges=gauges)
    assert seen(list(findings.of_load(bad))) == [
        ("warning", "the broker's loop was 1.5 s late in the last minutes"),
        ("warning", "a commit took 12.0 s"),
        ("warning", "3 commits failed since the broker began"),
    ]


def test_replicas_that_do_not_get_on_are_named_with_what_to_do() -> None:
    replicas = [replica(0), replica(1, state="stalled", step=12), replica(2, state="unresponsive")]
    replicas.append(replica(3, straggles="it is 3 steps behind rank 0"))
    found = list(findings.of_runs(replicas))
    assert seen(found) == [
        ("problem", "rank 1 of lm is stalled at step 12"),
        ("problem", "rank 2 of lm on gpu-2 does not answer; its GIL is held, or it is stopped"),
        ("warning", "rank 3 of lm makes the others wait: it is 3 steps behind rank 0"),
    ]
    assert found[0].advice == "see where it is: zloom stacks lm --rank 1"
    assert found[1].advice.endswith("zloom stacks lm --rank 2, on gpu-2")


@pytest.mark.parametrize("state", ["live", "paused", "holding"])
def test_replicas_that_get_on_are_fine(state: str) -> None:
    one, two = ([replica(rank, size, state=state) for rank in range(size)] for size in (1, 2))
    assert seen(list(findings.of_runs(one))) == [("ok", "1 run with 1 replica, none of them stuck")]
    assert seen(list(findings.of_runs(two))) == [("ok", "1 run with 2 replicas, none of them stuck")]
    assert seen(list(findings.of_runs([]))) == [("ok", "none is there")]


def test_a_rank_that_is_lost_is_named_before_those_that_wait_for_it() -> None:
    gone = replica(1, 2, state="lost", reason="the connection was closed", step=7, pid=42)
    found = list(findings.of_runs([replica(0, 2, state="stalled", step=8), gone]))
    told = "rank 1 of lm is lost (the connection was closed) at step 7 on gpu-1 (pid 42)"
    assert seen(found) == [
        ("problem", f"{told}; the others may wait for it"),
        ("problem", "rank 0 of lm is stalled at step 8"),
    ]
    alone = structs.replace(replica(0), world_size=1)
    for others in ([replica(0, state="finished")], [replica(0), replica(1)], [alone]):
        assert "lost" not in str(seen(list(findings.of_runs([gone, *others]))))


def test_ranks_that_never_came_are_told_of() -> None:
    (found,) = findings.of_runs([replica(0, 2)])
    assert (found.state, found.text) == ("warning", "rank 1 of lm has not come: it has 2 ranks")
    assert found.advice.endswith("reaches this broker as attempt one of lm")
    left = [replica(1, state="finished"), replica(0)]
    assert seen(list(findings.of_runs(left))) == [
        ("warning", "ranks 2, 3 of lm have not come: it has 4 ranks")
    ]
    (boast,) = findings.of_runs([replica(0, 2**53)])
    assert boast.text.startswith(f"ranks 1, 2, 3, 4, 5, 6, 7, 8 and {2**53 - 9} more of lm have not come")


def test_a_run_of_which_every_rank_is_lost_is_told_of() -> None:
    gone = [replica(rank, 2, state="lost", reason="no answer", step=7, pid=42) for rank in (0, 1)]
    (found,) = findings.of_runs(gone[:1])
    told = "rank 0 of lm is lost (no answer) at step 7 on gpu-0 (pid 42)"
    assert (found.state, found.text) == ("warning", f"{told}; nobody trains in lm")
    assert found.advice.endswith("`zloom forget lm --attempt one` ends this warning")
    assert seen(list(findings.of_runs(gone)))[0][1].startswith(f"{told}, and 1 other rank too; ")
    unknown = structs.replace(gone[0], step=None)
    assert "is lost (no answer) on gpu-0" in seen(list(findings.of_runs([unknown])))[0][1]
    earlier = structs.replace(gone[0], attempt="zero")
    for newer in ([replica(0, 1)], [replica(0, state="finished")]):
        assert {state for state, _ in seen(list(findings.of_runs([*newer, earlier])))} == {"ok"}


def test_ranks_that_differ_are_named_by_key() -> None:
    values = [{"rate": 1, "size": 5}, {"rate": 2, "size": 5}, {"rate": 1}, {}]
    found = list(findings.of_config([replica(rank, values=values[rank]) for rank in range(4)]))
    assert seen(found) == [("problem", "lm: rate is not the same on rank 0, 2 and rank 1")]
    assert "zloom set lm rate=…" in found[0].advice


def test_ranks_on_a_ramp_may_differ_and_so_may_attempts() -> None:
    ramp = {"rate": RampState(3, 0.5, 1.0, 99)}
    assert (
        seen(
            list(
                findings.of_config(
                    [replica(0, values={"rate": 1}, ramps=ramp), replica(1, values={"rate": 2})]
                )
            )
        )[0][0]
        == "ok"
    )
    two = [replica(0, values={"rate": 1}), ReplicaStatus("x", "lm", "two", values={"rate": 2})]
    assert seen(list(findings.of_config(two)))[0][0] == "ok"


def test_what_is_printed_has_the_advice_below() -> None:
    key = findings.of_key("ipc:///run/zloom", "/home/me/key")
    told = list(findings.lines([Finding("runs", "problem", "it hangs", "look"), key]))
    assert told == [
        "problem  runs    it hangs",
        "                 → look",
        "ok       key     this endpoint needs none: whoever may open it may steer",
    ]


def test_what_is_said_of_a_key() -> None:
    known = findings.of_key("tcp://gpu-1:5555", "/home/me/key")
    assert (known.state, known.text) == ("ok", "the broker knows the one in /home/me/key")
    bare = findings.of_key("tcp://gpu-1:5555", None)
    assert (bare.state, "--no-auth" in bare.advice) == ("warning", True)
    refused = findings.of_refused_key("cannot connect: the broker wants a key; have its owner")
    assert (refused.state, refused.advice) == ("problem", "have its owner")
