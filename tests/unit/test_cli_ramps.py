"""Ramps on the command line: read from words, and told in lines and tables."""

import re

import pytest

from tests.unit.test_cli import APPLIED, KEYS, PENDING, result
from zloom.cli import exits, ramps, report, shapes, tables
from zloom.cli.exits import ExitCode
from zloom.errors import CheckpointFailed, SettingsError
from zloom.messages import Keys, Preview, Reported
from zloom.model import (
    HistoryEntry,
    Key,
    KeyState,
    Problem,
    Ramp,
    RampState,
    ReplicaStatus,
    Revision,
    Schema,
    Value,
)

MIDWAY = RampState(7, 0.00055, 0.001, 3000)


@pytest.mark.parametrize(
    ("text", "end", "ramp"),
    [
        ("1e-4..1e-3 over 2000 steps", "1e-3", Ramp(2000, 1e-4)),
        ("1e-4..1e-3 over 2000 steps cosine", "1e-3", Ramp(2000, 1e-4, "cosine")),
        (" 1e-4 .. 1e-3 over 1 step linear ", "1e-3", Ramp(1, 1e-4)),
        ("..1e-3 over 2000 steps", "1e-3", Ramp(2000)),
        ("1...5 over 2 steps", ".5", Ramp(2, 1.0)),
    ],
)
def test_a_ramp_is_read(text: str, end: str, ramp: Ramp) -> None:
    assert ramps.split({"learning_rate": text}, KEYS) == (
        {"learning_rate": end},
        {"learning_rate": ramp},
    )


def test_what_is_no_ramp_is_left_alone() -> None:
    keys = Keys(
        id="k",
        run="lm",
        attempt="one",
        revision=0,
        commands=[],
        keys=[KeyState(Key("name", Schema(["string"])))],
    )
    texts = {"name": "1..2 over 5 steps", "other": "1..2"}
    assert ramps.split(texts, keys) == (texts, {})
    assert ramps.split({"learning_rate": "-1e-3"}, KEYS) == ({"learning_rate": "-1e-3"}, {})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1e-4..1e-3", "is no ramp; expected start..end over N steps"),
        ("1e-3 over 20 steps", "is no ramp"),
        ("1e-4..1e-3 over 20 epochs", "is no ramp"),
        ("1e-4..1e-3 over 20 steps sine", "is no ramp"),
        ("..1e-3 over 0 steps", "learning_rate: a ramp over 0 steps; expected 1 or more"),
        ("1e-4..1e-3 over many steps", "'many' is no number of steps"),
        ("low..1e-3 over 20 steps", '"low" is not a number'),
    ],
)
def test_a_ramp_that_is_written_wrongly_is_wrong_usage(text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(complaint)) as caught:
        ramps.split({"learning_rate": text}, KEYS)
    assert exits.of_error(caught.value) is ExitCode.USAGE


def test_a_revision_tells_its_ramps_as_they_are_written() -> None:
    changes: dict[str, Value] = {"a": 0.001, "b": 3, "c": "x"}
    revision = Revision(7, "config", changes, ramps={"a": Ramp(2000, 0.0001), "b": Ramp(1, shape="cosine")})
    assert report.what(revision) == "a=0.0001..0.001 over 2000 steps b=..3 over 1 step cosine c=x"


def test_where_a_ramp_stands_is_told() -> None:
    assert report.ramp_text(MIDWAY) == "0.00055 now, 0.001 at step 3000"
    failed = RampState(7, 0.00055, 0.001, 3000, "ValueError: too hot")
    assert report.ramp_text(failed) == "stopped at 0.00055: ValueError: too hot"
    status = ReplicaStatus("id0", "lm", "one", step=1500, ramps={"learning_rate": MIDWAY})
    [line] = report.observation_lines(Reported(status=status), 0.0)
    assert line.endswith("step 1500  learning_rate 0.00055 now, 0.001 at step 3000")
    table = tables.of_replicas([status], ids=False)
    assert table.columns[-1] == "RAMPS"
    assert table.rows[0][-1] == "learning_rate 0.00055 now, 0.001 at step 3000"
    assert "RAMPS" not in tables.of_replicas([ReplicaStatus("id0", "lm", "one")], ids=False).columns


def test_keys_show_the_value_that_is_wanted_and_where_the_ramp_stands() -> None:
    state = KeyState(KEYS.keys[0].key, 0.001, 7, ramp=MIDWAY)
    keys = Keys(id="k", run="lm", attempt="one", revision=7, keys=[state], commands=[])
    assert tables.of_keys(keys).rows[0][2:4] == [
        "0.001",
        "revision 7 (ramp: 0.00055 now, 0.001 at step 3000)",
    ]
    assert shapes.of_keys(keys)["keys"][0]["ramp"]["until"] == 3000
    assert shapes.of_keys(KEYS)["keys"][0]["ramp"] is None


def test_a_step_that_is_waited_for_is_named() -> None:
    waiting = result(PENDING, settled=False)
    waiting = type(waiting)("lm", "one", 7, [PENDING], settled=False, at_step=2340, latency=0.038)
    assert report.result_lines(waiting, waited=False) == ["revision 7 · for step 2340 · accepted · 38 ms"]
    assert report.result_lines(waiting, waited=True)[0].startswith(
        "revision 7 · for step 2340 · still pending on 1/1"
    )
    together = Revision(7, "config", {"a": 1}, mode="consistent", at_step=2340)
    assert tables.of_history([HistoryEntry(together, [APPLIED])], "").rows[0][2] == "consistent, at step 2340"


def test_a_preview_says_what_would_be_accepted() -> None:
    revision = Revision(8, "config", {"lr": 0.1}, mode="consistent", at_step=14, note="5 steps after about 9")
    preview = Preview(id="p", run="lm", attempt="one", revision=revision, targets=["r0", "r1"])
    assert report.preview_lines(preview) == [
        "dry run · would be revision 8 · consistent, at step 14 · 2 replicas",
        "  lr=0.1",
        "  5 steps after about 9",
    ]
    shape = shapes.of_preview(preview)
    assert sorted(shape) == ["attempt", "problems", "revision", "run", "targets"]
    assert shape["revision"]["changes"] == {"lr": 0.1}


def test_a_preview_says_what_would_be_refused_and_whose_schema_it_is() -> None:
    problems = [Problem("key_pending", "lr waits"), Problem("out_of_bounds", "lr: 5 is", ["r0", "r1"])]
    preview = Preview(id="p", run="lm", attempt="one", problems=problems)
    assert report.preview_lines(preview) == [
        "dry run · would be refused",
        "  lr waits",
        "  lr: 5 is (r0, r1)",
    ]


def test_a_checkpoint_that_failed_means_that_nothing_was_changed() -> None:
    error = CheckpointFailed(7, "rank 1: rejected: disk full")
    assert exits.of_error(error) is ExitCode.REFUSED
    assert shapes.of_error(error)["error"]["code"] == "CheckpointFailed"
    assert "nothing was changed: checkpoint 7" in str(error)
