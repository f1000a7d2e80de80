"""The command line's pure parts: arguments, lines, shapes and exit codes."""

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from rich.console import Console

from zloom.cli import arguments, commanding, contact, exits, output, report, shapes, tables
from zloom.cli.exits import ExitCode
from zloom.cli.output import clean
from zloom.client.commands import PAUSE_LIMIT
from zloom.client.results import Result, Silence
from zloom.errors import (
    BrokerUnreachable,
    JournalError,
    LocalProtocolError,
    Refused,
    SettingsError,
    TransportError,
    ZloomError,
)
from zloom.messages import Answered, Happened, Keys, Reported, Revised
from zloom.model import (
    Command,
    Device,
    DeviceReport,
    DeviceStatus,
    Event,
    HistoryEntry,
    Key,
    KeyState,
    Outcome,
    OutcomeKind,
    ReplicaStatus,
    Revision,
    Schema,
    State,
)
from zloom.series import Series
from zloom.steerable import reason_of

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "cli.md").read_text()
RATE = Schema(["number"], exclusive_minimum=0, maximum=1)
KEYS = Keys(
    id="r1",
    run="lm",
    attempt="one",
    revision=3,
    keys=[
        KeyState(Key("learning_rate", RATE, 0.1, "Step size"), 0.2, 3, pending=True),
        KeyState(Key("optimizer_type", Schema(["string"], enum=["adamw", "sgd"]), "adamw"), "adamw"),
        KeyState(Key("accumulate", Schema(["integer"], minimum=1), 1), 1),
    ],
    commands=[
        Command("pause", Schema(["object"], properties={"limit": Schema(["number", "null"])}), "Wait"),
        Command("stop", Schema(["object"])),
    ],
)


def outcome(
    rank: int, kind: OutcomeKind | None, step: int | None = None, error: str = "", detail: str = ""
) -> Outcome:
    return Outcome(f"id{rank}", rank, kind, step, error, detail)


def result(*outcomes: Outcome, settled: bool = True, durable: bool = True) -> Result:
    return Result("lm", "one", 7, list(outcomes), settled=settled, durable=durable, latency=0.038)


APPLIED = outcome(0, "applied", 1840)
REJECTED = outcome(1, "rejected", error="ValueError: no")
PENDING = outcome(2, None)


# --- arguments -----------------------------------------------------------------------------------


def test_words_are_split_at_the_first_equals_sign() -> None:
    assert arguments.split(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["lr"], "'lr' is no change; expected key=value"),
        (["=1"], "'=1' is no change; expected key=value"),
        (["lr=", "=1"], "'=1' is no change; expected key=value"),
        (["lr", "=", "1e-3"], "'lr' is no change; expected key=value, without blanks: lr=1e-3"),
        (["a=1", "lr=", "1e-3"], "'1e-3' is no change; expected key=value, without blanks: lr=1e-3"),
        (["lr", "=1e-3", "a=1"], "'lr' is no change; expected key=value, without blanks: lr=1e-3"),
        (["lr=", "bs", "=", "3"], "'bs' is no change; expected key=value, without blanks: bs=3"),
        (["lr", "="], "'lr' is no change; expected key=value"),
        (["lr=", "a=1", "b"], "'b' is no change; expected key=value"),
        (["lr", "1e-3"], "'lr' is no change; expected key=value, without blanks: lr=1e-3"),
        (["a=1", "lr", "1e-3", "bs=3"], "'lr' is no change; expected key=value, without blanks: lr=1e-3"),
        (["lr", "bs=3"], "'lr' is no change; expected key=value"),
        (["lr", "bs", "=", "3"], "'lr' is no change; expected key=value"),
        (["lr", "bs", "=3"], "'lr' is no change; expected key=value"),
        (["a=1", "a=2"], "a is given twice"),
    ],
)
def test_wrong_words_are_wrong_usage(words: list[str], text: str) -> None:
    with pytest.raises(SettingsError, match=f"^{re.escape(text)}$") as caught:
        arguments.split(words)
    assert exits.of_error(caught.value) is ExitCode.USAGE


def test_values_are_read_by_the_declared_types() -> None:
    texts = {"learning_rate": "3e-4", "optimizer_type": "sgd", "accumulate": "4"}
    values = arguments.changes(texts, KEYS)
    assert values == {"learning_rate": 3e-4, "optimizer_type": "sgd", "accumulate": 4}
    assert type(values["accumulate"]) is int


@pytest.mark.parametrize(
    ("texts", "code", "text"),
    [
        ({"lerning_rate": "1"}, "unknown_key", "lm has no key 'lerning_rate'; did you mean learning_rate?"),
        ({"zzz": "1"}, "unknown_key", "'zzz'; known are: accumulate, learning_rate, optimizer_type"),
        (
            {"learning_rate": "fast"},
            "wrong_type",
            'learning_rate: "fast" is not a number; expected number > 0, <= 1',
        ),
        ({"accumulate": "4.0"}, "wrong_type", "accumulate"),
    ],
)
def test_what_the_run_does_not_know_is_refused(texts: dict[str, str], code: str, text: str) -> None:
    with pytest.raises(Refused, match=re.escape(text)) as caught:
        arguments.changes(texts, KEYS)
    assert caught.value.code == code
    assert exits.of_error(caught.value) is ExitCode.REFUSED


def test_a_run_that_has_declared_no_key_yet_says_when_it_does() -> None:
    early = msgspec.structs.replace(KEYS, keys=[])
    text = (
        "lm has no key 'lr'; known are: none yet: a trainer declares its keys as it starts, or with its first"
    )
    with pytest.raises(Refused, match=text):
        arguments.changes({"lr": "1"}, early)
    with pytest.raises(Refused, match=text):
        arguments.values(early, "lr")
    with pytest.raises(Refused, match=r"stop has no argument 'now'; known are: none$"):
        arguments.command_arguments("stop", {"now": "1"}, KEYS)


def test_a_run_that_has_told_no_step_yet_may_declare_more() -> None:
    early = msgspec.structs.replace(KEYS, early=True)
    more = r"; more may come: a trainer declares its {} as it starts, or with its first step"
    keys = f"known are: accumulate, learning_rate, optimizer_type{more.format('keys')}$"
    with pytest.raises(Refused, match=keys):
        arguments.changes({"zzz": "1"}, early)
    with pytest.raises(Refused, match=keys):
        arguments.values(early, "zzz")
    commands = f"known are: pause, stop{more.format('commands')}"
    with pytest.raises(Refused, match=f"{commands}$"):
        arguments.command_arguments("norm", {}, early)
    with pytest.raises(Refused, match=rf'{commands}, with @weavelet\.on_command\("validate"\)$'):
        arguments.command_arguments("validate", {}, early)


def test_a_command_that_the_cli_names_is_told_with_how_a_trainer_declares_it() -> None:
    declares = r'; a trainer declares it with @weavelet\.on_command\("checkpoint"\)$'
    with pytest.raises(Refused, match=f"known are: pause, stop{declares}"):
        arguments.command_arguments("checkpoint", {}, KEYS)
    with pytest.raises(Refused, match=r"known are: pause, stop$"):
        arguments.command_arguments("norm", {}, KEYS)


def test_arguments_of_a_command_are_read_by_its_schema() -> None:
    assert arguments.command_arguments("pause", {"limit": "2.5"}, KEYS) == {"limit": 2.5}
    assert arguments.command_arguments("pause", {"limit": "none"}, KEYS) == {"limit": None}
    assert arguments.command_arguments("stop", {}, KEYS) == {}


@pytest.mark.parametrize(
    ("name", "texts", "code"),
    [
        ("pawse", {}, "unknown_command"),
        ("stop", {"now": "1"}, "bad_arguments"),
        ("pause", {"limit": "x"}, "bad_arguments"),
    ],
)
def test_commands_and_arguments_that_do_not_exist_are_refused(
    name: str, texts: dict[str, str], code: str
) -> None:
    with pytest.raises(Refused) as caught:
        arguments.command_arguments(name, texts, KEYS)
    assert caught.value.code == code


def test_one_value_or_all() -> None:
    assert arguments.values(KEYS, "accumulate") == {"accumulate": 1}
    assert list(arguments.values(KEYS)) == ["learning_rate", "optimizer_type", "accumulate"]
    with pytest.raises(Refused, match="did you mean accumulate"):
        arguments.values(KEYS, "acumulate")


# --- exit codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "settled", "code"),
    [
        ([APPLIED], True, 0),
        ([APPLIED, REJECTED], True, 4),
        ([REJECTED], True, 1),
        ([outcome(0, "cancelled"), outcome(1, "cancelled")], True, 1),
        ([APPLIED, outcome(1, "lost")], True, 4),
        ([outcome(0, "rejected"), outcome(1, "lost")], True, 5),
        ([APPLIED, PENDING], False, 5),
        ([PENDING], False, 5),
    ],
)
def test_the_exit_code_of_a_change(outcomes: list[Outcome], settled: bool, code: int) -> None:
    assert exits.of_result(result(*outcomes, settled=settled)) == code


@pytest.mark.parametrize(
    ("error", "code", "serving"),
    [
        (Refused("unknown_key", "no"), 1, 1),
        (LocalProtocolError("too long"), 1, 1),
        (JournalError("broken"), 1, 1),
        (SettingsError("no endpoint"), 2, 2),
        (BrokerUnreachable("nobody"), 3, 3),
        (TransportError("malformed"), 3, 1),
        (ZloomError("other"), 1, 1),
    ],
)
def test_the_exit_code_of_an_error(error: ZloomError, code: int, serving: int) -> None:
    assert exits.of_error(error) == code
    assert exits.of_error(error, serving=True) == serving


# --- lines ---------------------------------------------------------------------------------------


def lines(*outcomes: Outcome, settled: bool = True, durable: bool = True, waited: bool = True) -> list[str]:
    return report.result_lines(result(*outcomes, settled=settled, durable=durable), waited=waited)


def test_a_change_that_is_applied_everywhere_is_one_line() -> None:
    everywhere = [outcome(rank, "applied", 1840) for rank in range(4)]
    assert lines(*everywhere) == ["revision 7 · applied on 4/4 replicas at step 1840 · 38 ms"]
    assert lines(APPLIED) == ["revision 7 · applied on 1/1 replica at step 1840 · 38 ms"]


def test_steps_that_differ_are_a_range() -> None:
    (line,) = lines(APPLIED, outcome(1, "applied", 1844), outcome(2, "applied", 1841))
    assert line == "revision 7 · applied on 3/3 replicas at steps 1840 to 1844 · 38 ms"


def test_replicas_that_did_not_apply_have_a_line_each() -> None:
    assert lines(APPLIED, REJECTED, PENDING, outcome(3, "not_reached"), settled=False) == [
        "revision 7 · applied on 1/4 replicas at step 1840, 1 still pending · 38 ms",
        "  rank 1  rejected: ValueError: no (id1)",
        "  rank 2  no answer yet (id2)",
        "  rank 3  not reached (id3)",
    ]


def test_what_none_has_applied_yet_begins_with_that() -> None:
    assert (
        lines(PENDING, outcome(3, None), settled=False)[0]
        == "revision 7 · still pending on 2/2 replicas · 38 ms"
    )
    assert lines(REJECTED, PENDING, settled=False)[0] == "revision 7 · still pending on 1/2 replicas · 38 ms"


def test_what_a_silent_broker_would_know_is_not_called_pending() -> None:
    waiting = result(APPLIED, PENDING, settled=False)
    first, second = report.result_lines(waiting, waited=True, silent=True)
    assert first == "revision 7 · applied on 1/2 replicas at step 1840, 1 not known · 38 ms"
    assert second == "  rank 2  no answer known (id2)"
    assert contact.unheard(waiting, "ipc:///b", 3.04) == (
        "the broker at ipc:///b has not answered for 3.0 s; revision 7 was accepted before, and may be "
        "applied without it; what is left of it comes when the broker is back"
    )
    lost = contact.unheard(result(PENDING, settled=False, durable=False), "ipc:///b", 3.0)
    assert lost.endswith("but was not yet on disk: it may be applied without the broker, or be lost")


def test_a_broker_that_is_back_or_was_restarted_is_told() -> None:
    assert contact.told(Silence(3.04, over=False), "ipc:///b", "") == (
        "the broker at ipc:///b has not answered for 3.0 s; waiting for it"
    )
    told = contact.told(Silence(5.0, over=True), "ipc:///b", "lm")
    assert told == contact.back("ipc:///b", Silence(5.0, over=True))
    assert told == "the broker at ipc:///b answers again after 5.0 s"
    assert contact.told(Silence(0.0, over=True, restarted=True), "ipc:///b", "") == (
        "the broker at ipc:///b was restarted; what happened meanwhile may be missing here: "
        "`zloom history RUN` tells the changes and what became of them"
    )


def test_a_cancel_says_what_it_takes_back() -> None:
    (line,) = report.result_lines(result(APPLIED), waited=True, cancels=5)
    assert line == "revision 7: cancel of revision 5 · applied on 1/1 replica at step 1840 · 38 ms"


def test_what_a_command_returned_is_shown() -> None:
    assert lines(outcome(0, "applied", 5, detail="/tmp/a.ckpt"))[1:] == ["  rank 0  /tmp/a.ckpt"]


def test_what_several_ranks_say_is_said_once() -> None:
    said = {0: "saved", 1: "saved", 2: "", 3: "skipped", 4: "saved"}
    outcomes = [outcome(rank, "applied", 5, detail=detail) for rank, detail in said.items()]
    assert lines(*outcomes, outcome(5, "rejected", detail="saved"))[1:] == [
        "  ranks 0, 1, 4  saved",
        "  rank 3  skipped",
        "  rank 5  rejected (id5)",
    ]


def test_what_is_not_waited_for_is_accepted() -> None:
    assert lines(PENDING, settled=False, waited=False) == ["revision 7 · accepted · 38 ms"]


def test_what_is_not_on_disk_says_so() -> None:
    assert "not yet on disk" in lines(APPLIED, durable=False)[0]


@pytest.mark.parametrize(("seconds", "text"), [(0.0384, "38 ms"), (0.9996, "1.0 s"), (2.44, "2.4 s")])
def test_durations(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


def test_the_time_of_another_day_has_its_date() -> None:
    assert re.fullmatch(r"\d\d:\d\d:\d\d", report.clock(time.time()))
    assert re.fullmatch(r"2001-09-\d\d \d\d:\d\d:\d\d", report.clock(1_000_000_000))


@pytest.mark.parametrize(
    ("revision", "text"),
    [
        (Revision(1, "config", {"lr": 0.1, "name": "sgd", "flag": True}), "lr=0.1 name=sgd flag=true"),
        (Revision(1, "command", command="pause", arguments={"limit": None}), "pause limit=null"),
        (Revision(1, "command", command="stop"), "stop"),
        (Revision(8, "cancel", cancels=7), "cancel 7"),
    ],
)
def test_what_a_revision_does(revision: Revision, text: str) -> None:
    assert report.what(revision) == text


def test_outcomes_are_counted_by_kind() -> None:
    assert report.outcome_summary([APPLIED, REJECTED, PENDING]) == (
        "applied 1/3 at step 1840, rejected 1/3, pending 1/3"
    )


STATUS = ReplicaStatus(
    "id0",
    "lm",
    "one",
    0,
    2,
    "gpu-1",
    42,
    step=7,
    revision=3,
    step_time=0.05,
    metrics={"loss": 2.31456, "acc": 0.5},
)


@pytest.mark.parametrize(
    ("observation", "text"),
    [
        (Reported(status=STATUS), "lm  rank 0  live  training  step 7  acc 0.5  loss 2.315"),
        (
            Reported(status=ReplicaStatus("r1", "lm", "one", 1, state="paused", step=7, pause_left=45.2)),
            "lm  rank 1  paused, 45 s left  training  step 7",
        ),
        (
            Revised(
                epoch="e", run="lm", attempt="one", revision=Revision(3, "config", {"lr": 1}, by="me@here")
            ),
            "lm  revision 3: lr=1 (by me@here)",
        ),
        (
            Answered(run="lm", attempt="one", revision=3, outcomes=[REJECTED], settled=True),
            "lm  revision 3: rank 1 rejected: ValueError: no",
        ),
        (Happened(event=Event("rank_conflict", "lm", text="two")), "lm  rank conflict: two"),
    ],
)
def test_what_a_watcher_sees(observation: Reported | Revised | Answered | Happened, text: str) -> None:
    (line,) = report.observation_lines(observation, 0.0)
    assert line.endswith(f"  {text}")


def test_a_run_that_is_not_there_yet_is_waited_for_in_words() -> None:
    assert report.awaited("lm", ["lm"]) == "nobody trains in lm now; waiting for one who does"
    assert report.awaited("", []) == "nobody trains now; waiting for one who does"
    assert report.awaited("nope", []) == "no run 'nope' yet; known are: none; waiting for it"
    assert report.awaited("tiny-ml", ["tiny-lm", "a"]) == (
        "no run 'tiny-ml' yet; did you mean tiny-lm? known are: a, tiny-lm; waiting for it"
    )
    assert "r19, and 5 more; waiting" in report.awaited("nope", [f"r{number:02}" for number in range(25)])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 模型 🔥", "plain é 模型 🔥"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b31m", r"\x9b31m"),
        ("safe\u202etxt.exe", r"safe\u202etxt.exe"),
        ("[red]not markup[/red]", "[red]not markup[/red]"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_the_limit_of_a_pause_is_that_of_the_client() -> None:
    assert commanding.PAUSE_LIMIT == PAUSE_LIMIT


# --- shapes and tables ---------------------------------------------------------------------------


def test_the_shape_of_a_result_names_everything() -> None:
    assert shapes.of_result(result(APPLIED)) == {
        "run": "lm",
        "attempt": "one",
        "revision": 7,
        "outcomes": [
            {
                "replica": "id0",
                "rank": 0,
                "outcome": "applied",
                "step": 1840,
                "error": "",
                "detail": "",
                "values": {},
            }
        ],
        "settled": True,
        "durable": True,
        "duplicate": False,
        "at_step": None,
        "checkpoint": None,
        "latency": 0.038,
        "applied_everywhere": True,
    }


def test_the_documented_shape_of_a_result_has_every_field() -> None:
    found = re.search(r"^\$ zloom set .* --json\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    documented, shape = json.loads(found[1]), shapes.of_result(result(APPLIED))
    assert list(documented) == list(shape)
    assert list(documented["outcomes"][0]) == list(shape["outcomes"][0])


def test_the_shape_of_history_names_who_what_and_when() -> None:
    revision = Revision(3, "config", {"lr": 0.1}, by="me@here", at=5.0, request_id="r1", chain=b"\x01\xff")
    shape = shapes.of_history(HistoryEntry(revision, [APPLIED], settled=True))
    assert shape["chain"] == "01ff"
    expected = {"revision": 3, "changes": {"lr": 0.1}, "by": "me@here", "at": 5.0, "request_id": "r1"}
    assert {name: shape[name] for name in expected} == expected
    assert shape["outcomes"][0]["outcome"] == "applied"
    assert shape["settled"] is True


def test_the_page_names_every_field_of_history() -> None:
    shape = shapes.of_history(HistoryEntry(Revision(3, "config"), [APPLIED]))
    paragraph = re.search(r"^\*\*`history`\*\*: .*?(?=\n\n)", PAGE, re.MULTILINE | re.DOTALL)
    assert paragraph is not None
    assert set(shape) - set(re.findall(r"`(\w+)`", paragraph[0])) == set()


def test_the_shape_of_a_replica_has_every_field() -> None:
    shape = shapes.of_struct(STATUS)
    assert set(shape) == set(ReplicaStatus.__struct_fields__)
    assert (shape["run"], shape["state"], shape["reason"]) == ("lm", "live", "")


def test_the_pages_name_the_states_that_there_are_and_no_others() -> None:
    listed = re.search(r"`state` \((.*?)\)", PAGE, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"`(\w+)`", listed[1])) == set(get_args(State))
    states = (DOCS / "diagnosis.md").read_text().partition("## States\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", states, re.MULTILINE) == list(get_args(State))


def test_the_shape_of_keys_has_the_schema_and_the_words() -> None:
    shape = shapes.of_keys(KEYS)
    rate = shape["keys"][0]
    assert rate["schema"] == {"type": ["number"], "exclusiveMinimum": 0, "maximum": 1}
    assert (rate["name"], rate["type"], rate["value"]) == ("learning_rate", "number > 0, <= 1", 0.2)
    assert (rate["baseline"], rate["revision"], rate["pending"]) == (0.1, 3, True)
    assert [command["name"] for command in shape["commands"]] == ["pause", "stop"]


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        (
            Reported(status=STATUS, metrics={"loss": Series.of([7], [2.3])}),
            {"type": "reported", "run": "lm", "step": 7, "points": {"loss": {"steps": [7], "values": [2.3]}}},
        ),
        (
            Revised(epoch="e", run="lm", attempt="one", revision=Revision(3, "config")),
            {"type": "revised", "run": "lm", "attempt": "one", "revision": 3},
        ),
        (
            Answered(run="lm", attempt="one", revision=3, outcomes=[], settled=True),
            {"type": "answered", "run": "lm", "revision": 3, "settled": True},
        ),
        (Happened(event=Event("lost", "lm")), {"type": "happened", "kind": "lost", "run": "lm"}),
    ],
)
def test_the_shape_of_what_a_watcher_sees(
    observation: Reported | Revised | Answered | Happened, expected: dict[str, object]
) -> None:
    shape = shapes.of_observation(observation)
    assert {name: shape[name] for name in expected} == expected
    assert "seq" not in shape


def test_the_shape_of_an_error_has_the_brokers_code() -> None:
    assert shapes.of_error(Refused("unknown_key", "no")) == {"error": {"code": "unknown_key", "text": "no"}}
    assert shapes.of_error(SettingsError("no"))["error"]["code"] == "bad_usage"
    assert shapes.of_error(BrokerUnreachable("none"))["error"]["code"] == "BrokerUnreachable"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_a_table_leaves_out_whole_columns_rather_than_half_of_a_number(width: int) -> None:
    table = tables.of_replicas([msgspec.structs.replace(STATUS, attempt="f" * 36, step=123456)], ids=True)
    shown = output.fitting(table, width)
    assert shown.rows[0][shown.columns.index("STEP")] == "123456"
    assert {"RUN", "RANK", "STATE", "STEP", "REV"} <= set(shown.columns) <= set(table.columns)
    assert ("ATTEMPT" in shown.columns) == (width >= 100)
    assert [len(row) for row in shown.rows] == [len(shown.columns)]


def test_the_table_of_replicas() -> None:
    (row,) = tables.of_replicas([STATUS], ids=True).rows
    assert row[:8] == ["lm", "one", "0/2", "live", "training", "7", "50 ms", "3"]
    assert row[8:] == ["loss 2.315  acc 0.5", "gpu-1:42", "id0"]


def test_a_step_that_nobody_told_is_no_step_zero() -> None:
    unknown = ReplicaStatus("id0", "lm", "one")
    (row,) = tables.of_replicas([unknown], ids=True).rows
    assert row[5:8] == ["", "", ""]
    assert shapes.of_struct(unknown)["step"] is None
    (line,) = report.observation_lines(Reported(status=unknown), 0.0)
    assert line.endswith("lm  rank 0  live  training")


@pytest.mark.parametrize("state", ["lost", "finished"])
def test_a_replica_that_is_gone_is_in_no_phase(state: State) -> None:
    gone = msgspec.structs.replace(STATUS, state=state, reason="gone")
    assert tables.of_replicas([gone], ids=False).rows[0][4] == ""


def test_the_live_and_the_newest_replicas_come_first() -> None:
    told = [
        msgspec.structs.replace(STATUS, attempt=attempt, state=state, rank=rank)
        for attempt, state, rank in (
            ("try-11", "lost", 0),
            ("try-10", "paused", 1),
            ("try-10", "live", 0),
            ("try-9", "live", 0),
        )
    ]
    rows = tables.of_replicas(told, ids=False).rows
    assert [(row[1], row[2]) for row in rows] == [
        ("try-10", "0/2"),
        ("try-10", "1/2"),
        ("try-9", "0/2"),
        ("try-11", "0/2"),
    ]


def test_a_replica_of_lightning_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = {"epoch": 3.0, "grad_norm": 1.25, "lr": 0.001, "train_loss": 2.3146, "val_loss": 2.4567}
    status = msgspec.structs.replace(STATUS, run="tiny-lm", attempt="20261123-230137-4a2114", metrics=metrics)
    table = tables.of_replicas([status], ids=False)
    assert table.rows[0][8] == "train_loss 2.315  val_loss 2.457  epoch 3"
    printed = Console(file=io.StringIO(), width=110)
    monkeypatch.setattr(output, "_console", lambda *, stderr: printed)
    output.show(table)
    text = printed.file.getvalue()  # type: ignore[attr-defined]
    assert "20261123-230137-4a2114" in text
    assert max(map(len, text.splitlines())) <= 110
    assert all(word in text for word in ("train_loss", "val_loss", "gpu-1:42"))


LONG = Keys(
    id="r1",
    run="lm",
    attempt="one",
    revision=3,
    keys=[
        KeyState(
            Key("accumulate_grad_batches", RATE, 0.1, "Batches per step; applies where both begin"), 0.2, 3
        ),
        KeyState(Key("gradient_clip_val", RATE, 0.1, "Norm to which gradients are clipped"), 0.2, 3),
    ],
    commands=[Command("checkpoint", Schema(["object"]), "Save a checkpoint, where no gradient is pending")],
)
CHANGED = Revision(
    3, "config", {"accumulate_grad_batches": 4, "gradient_clip_val": 0.5}, by="ann@vm", at=5.0, note="a " * 20
)
DEVICE = DeviceReport(
    Device("GPU-8c9a0b1c-0d12-4e5f-9a3b", "NVIDIA H200 NVL", "gpu", 0, 2**37),
    DeviceStatus("x", 0.5, 2**30, 61.4, 300.2),
    "gpu-host-1",
    ["r0-6825-4a211498", "r1-6826-4a211499"],
)


@pytest.mark.parametrize("colours", [False, True])
def test_no_line_of_a_table_ends_in_blanks(colours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = Console(
        file=io.StringIO(), width=60, force_terminal=colours, color_system="standard" if colours else None
    )
    monkeypatch.setattr(output, "_console", lambda *, stderr: printed)
    output.show(output.Table(("KEY", "NOTE"), [("a", "why " * 20), ("b", ""), ("c", "so")], "none"))
    lines = printed.file.getvalue().splitlines()  # type: ignore[attr-defined]
    plain = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]
    assert len(plain) == 5
    assert plain == [line.rstrip() for line in plain]
    assert (plain != lines) == colours


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize(
    ("table", "names"),
    [
        (tables.of_keys(LONG), ["accumulate_grad_batches", "gradient_clip_val"]),
        (tables.of_commands(LONG), ["checkpoint"]),
        (tables.of_values({"accumulate_grad_batches": "x" * 90}, "lm"), ["accumulate_grad_batches"]),
        (
            tables.of_history([HistoryEntry(CHANGED, [APPLIED])], ""),
            ["accumulate_grad_batches=4", "gradient_clip_val=0.5"],
        ),
        (tables.of_devices([DEVICE]), ["GPU-8c9a0b1c-0d12-4e5f-9a3b"]),
    ],
)
def test_a_narrow_terminal_breaks_no_name(
    table: output.Table, names: list[str], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = {stderr: Console(file=io.StringIO(), width=width) for stderr in (False, True)}
    monkeypatch.setattr(output, "_console", lambda *, stderr: printed[stderr])
    output.show(table)
    text, told = (printed[stderr].file.getvalue() for stderr in (False, True))  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert all(name in text for name in names)
    heading = text.splitlines()[0].split("  ")
    left_out = [name for name in table.columns if name not in {cell.strip() for cell in heading}]
    assert bool(left_out) == bool(told)
    assert told.startswith(f"no room for {', '.join(left_out)}: " if left_out else "")


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (None, "paused"),
        (0.0, "paused, 0 s left"),
        (99.4, "paused, 99 s left"),
        (600.0, "paused, 10 min left"),
        (1799.0, "paused, 30 min left"),
        (86000.0, "paused, 23.9 h left"),
    ],
)
def test_a_pause_is_listed_with_what_is_left_of_it(left: float | None, text: str) -> None:
    paused = msgspec.structs.replace(STATUS, state="paused", pause_left=left)
    table = tables.of_replicas([paused], ids=False)
    assert table.rows[0][3] == text
    assert ("STATE" in table.whole) == (left is None)


@pytest.mark.parametrize(
    ("state", "reason", "text"),
    [
        ("live", "", "live"),
        ("finished", "finished", "finished"),
        ("finished", "failed: ValueError: boom", "failed: ValueError: boom"),
        ("finished", "interrupted", "interrupted"),
        ("lost", "no answer", "lost: no answer"),
    ],
)
def test_a_state_says_what_happened_once(state: State, reason: str, text: str) -> None:
    status = msgspec.structs.replace(STATUS, state=state, reason=reason)
    assert tables.of_replicas([status], ids=False).rows[0][3] == text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "finished"),
        (KeyboardInterrupt(), "interrupted"),
        (ValueError(), "failed: ValueError"),
        (ValueError("boom"), "failed: ValueError: boom"),
    ],
)
def test_the_reason_that_an_exception_is(error: BaseException | None, reason: str) -> None:
    assert reason_of(error) == reason


def test_a_pending_value_is_marked() -> None:
    rows = tables.of_values({"a": 1, "b": 2}, "lm", {"b": "pending"}).rows
    assert rows == [["a", "1"], ["b", "2 (pending)"]]


def test_what_is_still_coming_says_how_it_is_taken_back() -> None:
    waiting = result(APPLIED, outcome(1, None), PENDING, settled=False)
    coming = "revision 7 is still coming on ranks 1, 2"
    take_back = f"{coming}; `zloom cancel lm 7` takes it back where it is pending"
    assert report.still_coming(waiting) == take_back
    assert "`zloom cancel lm 7 --attempt one`" in report.still_coming(waiting, "one")
    assert report.still_coming(waiting, can_cancel=False) == coming


@pytest.mark.parametrize(
    ("limit", "after"),
    [
        (1800.0, "30 minutes"),
        (60.0, "1 minute"),
        (600, "10 minutes"),
        (86400.0, "1 day"),
        (1e9, "about 11574 days"),
        (90.0, "90 s"),
        (1_000_000.5, "about 12 days"),
        (100_000.5, "100000.5 s"),
        (0.5, "0.5 s"),
    ],
)
def test_a_pause_says_when_it_ends_by_itself(limit: float, after: str) -> None:
    note = f"note: the pause ends by itself after {after}; `zloom resume lm` ends it before"
    assert report.pause_ends(result(APPLIED), limit) == note
    assert report.pause_ends(result(PENDING, settled=False), limit) == note


def test_a_pause_without_a_limit_or_that_did_not_come_says_nothing_of_its_end() -> None:
    assert report.pause_ends(result(APPLIED), None) == ""
    assert report.pause_ends(result(REJECTED), 60.0) == ""


def test_the_table_of_devices_leaves_out_what_is_not_known() -> None:
    device = Device("GPU-1", "H200", "gpu", 0, 141 * 2**30)
    status = DeviceStatus("GPU-1", 0.5, 2**30, 61.4, 300.2, ecc_errors=2, xid=79)
    known, unknown = tables.of_devices(
        [DeviceReport(device, status, "gpu-1", ["id0"], "fell off"), DeviceReport(Device("h", "", "host"))]
    ).rows
    assert known[3:] == ["50%", "1.0/141.0", "61", "300", "2 ECC, XID 79", "failed: fell off", "id0"]
    assert unknown[3:] == ["", "", "", "", "", "ok", ""]


def test_the_tables_of_keys_and_commands() -> None:
    keys = tables.of_keys(KEYS).rows
    assert keys[0] == ["learning_rate", "number > 0, <= 1", "0.2", "revision 3 (pending)", "Step size"]
    assert keys[1][2:4] == ["adamw", "trainer"]
    assert tables.of_commands(KEYS).rows[0] == ["pause", "limit: number or null", "Wait"]


def test_the_tables_of_keys_and_commands_name_the_first_of_many_values_alone() -> None:
    many = Schema(["string"], enum=[f"optimizer_{number}" for number in range(15)])
    command = Command("swap", Schema(["object"], properties={"to": many}))
    state = KeyState(Key("optimizer_type", many, "adamw"), "adamw")
    keys = msgspec.structs.replace(KEYS, keys=[state], commands=[command])
    first = "one of optimizer_0, optimizer_1, optimizer_2, … (15)"
    assert tables.of_keys(keys).rows[0][1] == first
    assert tables.of_commands(keys).rows[0][1] == f"to: {first}"
    assert shapes.of_keys(keys)["keys"][0]["type"].endswith(", optimizer_14")


def test_every_row_has_a_cell_for_each_column() -> None:
    entry = HistoryEntry(Revision(3, "config", {"lr": 0.1}), [APPLIED])
    for table in (
        tables.of_replicas([STATUS], ids=True),
        tables.of_devices([DeviceReport(Device("h", "", "host"))]),
        tables.of_keys(KEYS),
        tables.of_commands(KEYS),
        tables.of_values({"lr": 0.1}, "lm"),
        tables.of_history([entry], ""),
    ):
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert table.right <= set(table.columns)


# --- start ---------------------------------------------------------------------------------------


def test_the_declaration_of_commands_loads_no_client() -> None:
    code = (
        "import sys, zloom.cli.app; print(*(n for n in ('zmq', 'asyncio', 'zloom_broker', 'rich') "
        "if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
