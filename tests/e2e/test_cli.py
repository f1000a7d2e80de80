"""The command line with a real broker and a real trainer.

What only ends by a signal, and the broker, run in processes of their own; the other commands run in this one,
which starts them twenty times as quickly.
"""

import contextlib
import io
import json
import os
import re
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

import zloom
from tests.support import DEADLINE
from tests.unit.fake_nvml import Card, FakeNVML, xid
from zloom.cli import main
from zloom.devices import DeviceProbe

ZLOOM = [sys.executable, "-m", "zloom"]

TRAINER = """
import sys, threading
from typing import Annotated, Literal
import zloom

gate = threading.Event()
weavelet = zloom.Weavelet(sys.argv[1], attempt=sys.argv[2])

@weavelet.on_config("learning_rate", initial=0.5, description="Step size")
def set_rate(value: Annotated[float, zloom.Meta(gt=0, le=1)]) -> None:
    if value == 0.666:
        raise ValueError("an evil \\x1b[31mrate[/red]")

@weavelet.on_config("optimizer", initial="adamw")
def set_optimizer(value: str) -> None: ...

@weavelet.on_config("shape", initial="round")
def set_shape(value: Literal["round", "square"]) -> None: ...

@weavelet.on_config("gated", initial=0, description="Waits for the gate", ready=lambda _: gate.is_set())
def set_gated(value: int) -> None: ...

@weavelet.on_command("checkpoint")
def checkpoint(filename: str = "step.ckpt") -> str:
    return f"/tmp/{filename}"

@weavelet.on_command("open_gate")
def open_gate(wide: bool = False) -> None:
    gate.set()

going = True

@weavelet.on_command("stop")
def stop() -> None:
    global going
    going = False

with weavelet:
    assert weavelet.wait_until_active(30)
    print("ready", flush=True)
    while going:
        weavelet.tick()
        weavelet.report(loss=1.0)
        threading.Event().wait(0.001)  # the step's work
"""


NOT_OF_A_BROKER = {
    "rich",
    "zloom.cli.connection",
    "zloom.cli.report",
    "zloom.client",
    "zloom.handlers",
    "zloom.mailbox",
    "zloom.training",
    "zloom.weavelet",
    "torch",
    "numpy",
    "prometheus_client",
}
"""What `zloom broker` must not load: its start and its memory would pay for it."""


class Place:
    """A broker of its own, with the environment that leads to it."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.environment = {
            **os.environ,
            "ZLOOM_BROKER": f"ipc://{folder}/control",
            "ZLOOM_BIND": f"ipc://{folder}/control",
            "ZLOOM_DATA_DIR": str(self.data_dir),
            "ZLOOM_AUTH_DIR": str(folder / "auth"),
            "COLUMNS": "200",
        }

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*ZLOOM, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run a command in this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["zloom", *arguments])
            patch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            ended = stack.enter_context(pytest.raises(SystemExit))
            main()
        returned = int(ended.value.code or 0)
        return _checked(arguments, returned, code, out.getvalue(), err.getvalue())

    def run_apart(self, *arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run a command in a process of its own."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=DEADLINE)
        return _checked(arguments, process.returncode, code, out, err)

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)


def _checked(
    arguments: tuple[str, ...], returned: int, expected: int, out: str, err: str
) -> "subprocess.CompletedProcess[str]":
    assert returned == expected, f"{arguments}: {returned}\n{out}\n{err}"
    assert "Traceback" not in err
    return subprocess.CompletedProcess(arguments, returned, out, err)


def first_line(process: "subprocess.Popen[str]", stream: IO[str] | None = None) -> str:
    """Return what comes next on stdout, or on another stream."""
    stream = stream or process.stdout
    assert stream is not None
    ready, _, _ = select.select([stream], [], [], DEADLINE)
    assert ready, "nothing was printed in time"
    return stream.readline()


@contextlib.contextmanager
def ended(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="zloom-", dir="/tmp") as folder:  # a socket's path is short
        yield Path(folder)


@pytest.fixture(scope="module")
def place(folder: Path) -> Iterator[Place]:
    place = Place(folder)
    with ended(place.start("broker")) as broker:
        line = first_line(broker)
        assert line.startswith(f"zloom broker ready control=ipc://{folder}/control updates=")
        yield place
        broker.terminate()
        begun = time.monotonic()
        assert broker.wait(DEADLINE) == 0
        assert time.monotonic() - begun < 2.0


@pytest.fixture(scope="module")
def trained(place: Place) -> Iterator[Place]:
    """The place with a trainer of run `lm` in it."""
    with ended(trainer(place, "lm")):
        yield place


def trainer(place: Place, run: str, attempt: str = "one") -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", TRAINER, run, attempt]
    process = subprocess.Popen(command, env=place.environment, stdout=subprocess.PIPE, text=True)
    assert first_line(process) == "ready\n"
    return process


# --- changes -------------------------------------------------------------------------------------


def test_set_says_what_became_of_it(trained: Place) -> None:
    done = trained.run("set", "lm", "learning_rate=3e-1", "optimizer=sgd")
    assert done.stdout.startswith("revision ")
    assert "applied on 1/1 replica at step" in done.stdout
    assert done.stdout.endswith(" ms\n")
    assert trained.json("get", "lm")["learning_rate"] == 0.3
    assert trained.run("get", "lm", "optimizer").stdout == "sgd\n"
    assert done.stderr == ""
    late = trained.run("set", "lm", "learning_rate=0.3", "--at-step", "1")
    found = re.fullmatch(r"note: step 1 has passed: applied at step (\d+)\n", late.stderr)
    assert found is not None
    ahead = ("--at-step", str(int(found[1]) + 500))
    assert trained.run("set", "lm", "learning_rate=0.3", *ahead).stderr == ""


def test_set_as_json_is_the_result(trained: Place) -> None:
    result = trained.json("set", "lm", "learning_rate=0.25")
    assert {"run", "revision", "outcomes", "settled", "durable", "latency"} <= set(result)
    (outcome,) = result["outcomes"]
    assert {"replica", "rank", "outcome", "step", "error"} <= set(outcome)
    assert (result["run"], outcome["outcome"], outcome["rank"]) == ("lm", "applied", 0)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("set", "lm", "learning_rat=1"), 1, "did you mean learning_rate?"),
        (("set", "lm", "learning_rate=5"), 1, "expected number > 0, <= 1"),
        (("set", "lm", "learning_rate=fast"), 1, '"fast" is not a number'),
        (("set", "lm", "learning_rate=nan"), 1, "learning_rate"),
        (("set", "nobody", "a=1"), 1, "unknown run 'nobody'"),
        (("set", "lm", "learning_rate=0.1", "--expect-revision", "999"), 1, "expected revision 999"),
        (("set", "lm", "learning_rate=0.1", "--attempt", "other"), 1, "no attempt 'other'"),
        (("command", "lm", "dance"), 1, "no command 'dance'"),
        (("command", "lm", "open_gate", "wide=maybe"), 1, "wide"),
        (("rollback", "lm", "999"), 1, "999"),
        (("cancel", "lm", "999"), 1, "999"),
        (("fail-device", "GPU-none"), 1, "unknown device"),
        (("forget", "lm"), 1, "still has replicas"),
        (("get", "lm", "learning_rat"), 1, "did you mean learning_rate?"),
        (("set", "lm", "learning_rate"), 2, "expected key=value"),
        (("set", "lm", "learning_rate=1", "learning_rate=1"), 2, "given twice"),
        (("set",), 2, "missing argument 'RUN'"),
        (("set", "lm"), 2, "missing argument"),
        (("ps", "nosuch"), 1, "unknown run 'nosuch'; known are: lm"),
        (("set", "lm", "shape=Round"), 1, '"Round" is not one of round, square; did you mean round?'),
        (("stop", "lm", "--force"), 1, "force"),
        (("set", "lm", "learning_rate=1", "--mode", "soon"), 2, "--mode"),
        (("ps", "--broker", "nonsense"), 2, "expected tcp://HOST:PORT"),
        (("dance",), 2, "no such command"),
        (("ps", "--broker", "tcp://127.0.0.1:9", "--timeout", "0.2"), 3, "zloom broker"),
    ],
)
def test_what_goes_wrong_is_one_clear_line(
    trained: Place, arguments: tuple[str, ...], code: int, text: str
) -> None:
    before = trained.json("keys", "lm")["revision"]
    done = trained.run(*arguments, code=code)
    assert text in done.stderr
    assert done.stdout == ""
    if code != 2:
        assert done.stderr.count("\n") == 1
    assert trained.json("keys", "lm")["revision"] == before


def test_an_error_as_json_has_a_code(trained: Place) -> None:
    assert trained.json("set", "lm", "learning_rate=5", code=1)["error"]["code"] == "out_of_bounds"
    assert trained.json("set", "lm", "x=5", code=1)["error"]["code"] == "unknown_key"


@pytest.mark.parametrize(
    ("arguments", "problem", "code"),
    [
        (("set", "lm", "shape=Round"), 'shape: "Round" is not one of round, square', "wrong_type"),
        (("set", "lm", "learning_rat=1"), "lm has no key 'learning_rat'; did you mean", "unknown_key"),
        (("set", "lm", "learning_rate=5"), "learning_rate: 5.0 is out of bounds", "out_of_bounds"),
        (("command", "lm", "open_gate", "wide=maybe"), "wide: ", "bad_arguments"),
    ],
)
def test_a_dry_run_says_in_one_form_what_would_be_refused(
    trained: Place, arguments: tuple[str, ...], problem: str, code: str
) -> None:
    done = trained.run(*arguments, "--dry-run", code=1)
    assert done.stdout.startswith(f"dry run · would be refused\n  {problem}")
    assert done.stderr == ""
    preview = trained.json(*arguments, "--dry-run", code=1)
    assert [each["code"] for each in preview["problems"]] == [code]
    assert (preview["run"], preview["attempt"], preview["revision"]) == ("lm", "one", None)


def test_what_a_handler_raised_is_shown_harmlessly(trained: Place) -> None:
    done = trained.run("set", "lm", "learning_rate=0.666", code=1)
    assert "applied on 0/1 replica" in done.stdout
    assert r"an evil \x1b[31mrate[/red]" in done.stdout
    assert "\x1b" not in done.stdout


def test_rollback_and_history(trained: Place) -> None:
    trained.run("set", "lm", "learning_rate=0.125")
    assert trained.json("rollback", "lm", "0")["applied_everywhere"]
    assert trained.json("get", "lm") == {
        "learning_rate": 0.5,
        "optimizer": "adamw",
        "shape": "round",
        "gated": 0,
    }
    newest = trained.json("history", "lm", "--limit", "2")
    assert [entry["note"] for entry in newest] == ["rollback to 0", ""]
    assert {"revision", "changes", "by", "at", "request_id", "outcomes"} <= set(newest[1])
    assert newest[1]["changes"] == {"learning_rate": 0.125}
    assert "learning_rate=0.125" in trained.run("history", "lm").stdout


def test_commands(trained: Place) -> None:
    assert "  rank 0  /tmp/step.ckpt\n" in trained.run("checkpoint", "lm").stdout
    assert "  rank 0  /tmp/best.ckpt\n" in trained.run("checkpoint", "lm", "filename=best.ckpt").stdout
    assert "no argument 'name'" in trained.run("checkpoint", "lm", "name=best.ckpt", code=1).stderr
    assert trained.json("pause", "lm", "--for", "60")["applied_everywhere"]
    assert trained.json("ps", "lm")[0]["state"] == "paused"
    assert trained.run("pause", "lm", "--for", "90").stderr == (
        "note: the pause ends by itself after 90 s; `zloom resume lm` ends it before\n"
    )
    resumed = trained.run("resume", "lm", "--steps", "1")
    assert re.search(r"\n  rank 0  pauses again from step \d+ on, for 90 s at most\n$", resumed.stdout)
    assert resumed.stderr == ""
    assert trained.json("resume", "lm")["applied_everywhere"]
    assert trained.run("pause", "lm", "--no-limit").stderr == ""
    resumed = trained.run("resume", "lm", "--steps", "1")
    assert re.search(r"\n  rank 0  pauses again from step \d+ on, without a limit\n$", resumed.stdout)
    trained.run("resume", "lm")
    assert trained.json("history", "lm", "--limit", "3")[2]["arguments"] == {"limit": None}
    done = trained.run("resume", "lm")
    assert "applied on 1/1 replica" in done.stdout
    assert done.stdout.endswith("\n  rank 0  was not paused\n")


REQUESTS: list[tuple[str, ...]] = [
    ("set", "lm", "learning_rate=0.0625"),
    ("set", "lm", "optimizer=sgd", "--checkpoint-first"),
    ("rollback", "lm", "0"),
    ("command", "lm", "checkpoint", "--note", "by name"),
    ("pause", "lm"),
    ("resume", "lm"),
    ("checkpoint", "lm"),
]


def test_a_request_id_has_one_effect_and_one_answer(trained: Place) -> None:  # G5
    for number, request in enumerate(REQUESTS):
        named = (*request, "--request-id", f"script-{number}")
        first, second = trained.json(*named), trained.json(*named)
        assert (first["applied_everywhere"], second["duplicate"]) == (True, True)
        for answer in (first, second):
            del answer["latency"], answer["duplicate"], answer["checkpoint"]
        assert first == second
        newest = trained.json("history", "lm", "--limit", "1")[0]
        assert (newest["revision"], newest["request_id"]) == (first["revision"], f"script-{number}")


def test_pending_is_its_own_code_and_can_be_taken_back(trained: Place) -> None:
    late = trained.run("set", "lm", "gated=1", "--timeout", "0.3", code=5)
    assert "still pending on 1/1 replica" in late.stdout
    assert "rank 0  no answer yet" in late.stdout
    assert "at the end of the step that runs" in late.stderr
    assert "  gated: Waits for the gate" in late.stderr
    newest = trained.json("keys", "lm")["revision"]
    assert late.stderr.endswith(
        f"revision {newest} is still coming on rank 0; `zloom cancel lm {newest}` takes it back where it is "
        "pending\n"
    )
    assert trained.run("get", "lm", "gated").stderr == (
        "note: gated is pending: not every replica has answered yet\n"
    )
    assert "1 (pending)" in trained.run("get", "lm").stdout
    accepted = trained.run("set", "lm", "gated=2", "--no-wait", code=5)
    assert " · accepted · " in accepted.stdout
    stuck = trained.run("rollback", "lm", "0", "--timeout", "0.3", code=5).stderr
    assert f"waits behind revision {newest}, which is not applied yet either\n  gated: Waits for" in stuck
    assert f"`zloom cancel lm {newest}` takes revision {newest} back" in stuck
    revision = trained.json("set", "lm", "gated=3", "--no-wait", code=5)["revision"]
    assert trained.json("cancel", "lm", str(revision))["applied_everywhere"]
    taken_back = trained.json("set", "lm", "gated=4", "--timeout", "0.3", "--cancel-on-timeout", code=1)
    assert taken_back["outcomes"][0]["outcome"] == "cancelled"


def test_a_change_that_waits_in_a_pause_says_that_it_does(trained: Place) -> None:
    step = trained.json("pause", "lm", "--for", "60")["outcomes"][0]["step"]
    late = trained.run("set", "lm", "optimizer=sgd", "--at-step", "1000000000", "--timeout", "0.3", code=5)
    told = f"rank 0 is paused at step {step}; `zloom resume lm` ends the pause"
    assert told in late.stderr.splitlines()
    trained.run("resume", "lm")
    trained.run("cancel", "lm", str(trained.json("keys", "lm")["revision"] - 1))


def test_a_change_queues_behind_what_waits_for_an_earlier_step(trained: Place) -> None:
    first = trained.json("set", "lm", "optimizer=sgd", "--at-step", "1000000000", "--no-wait", code=5)
    later = ("set", "lm", "optimizer=adam", "--at-step", "2000000000")
    assert f"waits in revision {first['revision']} for step" in trained.run(*later, code=1).stderr
    assert "dry run · would be revision" in trained.run(*later, "--queue", "--dry-run").stdout
    second = trained.json(*later, "--queue", "--no-wait", code=5)
    assert second["revision"] == first["revision"] + 1
    for waiting in (second, first):
        trained.run("cancel", "lm", str(waiting["revision"]))


def test_a_request_id_also_stands_for_what_has_not_been_answered_yet(trained: Place) -> None:
    late = trained.json("set", "lm", "gated=6", "--request-id", "late", "--no-wait", code=5)
    again = trained.json("set", "lm", "gated=6", "--request-id", "late", "--timeout", "0.1", code=5)
    assert again["revision"] == late["revision"]
    cancel = ("cancel", "lm", str(late["revision"]), "--request-id", "never mind")
    assert trained.json(*cancel)["revision"] == trained.json(*cancel)["revision"] == late["revision"] + 1


def test_a_request_id_of_another_request_is_refused(trained: Place) -> None:
    trained.run("set", "lm", "learning_rate=0.2", "--request-id", "taken")
    reused = trained.run("set", "lm", "learning_rate=0.3", "--request-id", "taken", code=1)
    assert "request id 'taken' was used before with another body" in reused.stderr
    unset = trained.run("set", "lm", "learning_rate=0.3", "--request-id", "", code=2)
    assert "the request id is empty" in unset.stderr
    assert trained.json("get", "lm", "learning_rate")["learning_rate"] == 0.2


def follows(place: Place) -> int:
    count = place.json("stats")["counters"].get("received_follow", 0)
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize("gap", [0.001, 0.03, 0.08])
def test_ctrl_c_says_whether_the_change_is_still_coming_however_often_it_is_hit(
    trained: Place, gap: float
) -> None:
    newest = trained.json("keys", "lm")["revision"]
    before = follows(trained)
    with ended(trained.start("set", "lm", "gated=5")) as setting:
        deadline = time.monotonic() + DEADLINE
        while follows(trained) == before:  # who asks what became of a change knows that it was accepted
            assert time.monotonic() < deadline
        setting.send_signal(signal.SIGINT)
        time.sleep(gap)  # of a user's fingers, or of `timeout -s INT`, which tells the process and its group
        setting.send_signal(signal.SIGINT)
        out, err = setting.communicate(timeout=DEADLINE)
    assert setting.returncode == 130
    assert f"revision {newest + 1} is still coming on rank 0" in err
    assert f"`zloom cancel lm {newest + 1}` takes it back" in err
    assert "still pending on 1/1" in out
    cancelled = trained.run("cancel", "lm", str(newest + 1)).stdout
    assert f": cancel of revision {newest + 1} · applied on 1/1 replica" in cancelled


@contextlib.contextmanager
def own_broker() -> Iterator[tuple[Place, "subprocess.Popen[str]"]]:
    """A place of its own, with a broker that may be killed and a trainer of run `lm`."""
    with tempfile.TemporaryDirectory(prefix="zloom-", dir="/tmp") as folder:
        place = Place(Path(folder))
        with ended(place.start("broker")) as broker:
            first_line(broker)
            with ended(trainer(place, "lm")):
                yield place, broker


def killed_once_accepted(
    place: Place, broker: "subprocess.Popen[str]", *arguments: str
) -> "subprocess.Popen[str]":
    """Start a change that waits for its gate, and kill the broker when it is accepted."""
    before = follows(place)
    setting = place.start("set", "lm", "gated=1", *arguments)
    deadline = time.monotonic() + DEADLINE
    while follows(place) == before:
        assert time.monotonic() < deadline
    broker.kill()
    broker.wait()
    return setting


def line_with(stream: IO[str] | None, text: str) -> str:
    assert stream is not None
    for line in stream:
        if text in line:
            return line
    raise AssertionError(f"ended without {text!r}")


def test_a_wait_over_a_dead_broker_says_so_and_advises_what_works() -> None:
    with (
        own_broker() as (place, broker),
        ended(killed_once_accepted(place, broker, "--timeout", "5", "--cancel-on-timeout")) as setting,
    ):
        out, err = setting.communicate(timeout=DEADLINE)
    assert setting.returncode == 5
    assert "revision 1 · not known on 1/1 replica" in out
    assert "rank 0  no answer known" in out
    endpoint = place.environment["ZLOOM_BROKER"]
    first, last = [
        line for line in err.splitlines() if f"the broker at {endpoint} has not answered for" in line
    ]
    assert "revision 1 was accepted before, and may be applied without it" in first
    assert last.endswith("`zloom history lm` tells what became of it, once the broker answers")
    assert "it was not taken back" in last
    assert "zloom cancel" not in err


def test_a_broker_that_is_back_within_the_wait_ends_it_as_ever() -> None:
    with (
        own_broker() as (place, broker),
        ended(killed_once_accepted(place, broker, "--timeout", str(DEADLINE))) as setting,
    ):
        line_with(setting.stderr, "has not answered for")
        with ended(place.start("broker")) as again:
            first_line(again)
            line_with(setting.stderr, "answers again after")
            place.run("command", "lm", "open_gate")
            out, err = setting.communicate(timeout=DEADLINE)
    assert setting.returncode == 0
    assert "revision 1 · applied on 1/1 replica" in out
    assert "has not answered" not in err


# --- looking -------------------------------------------------------------------------------------


def test_ps_keys_and_devices_for_people_and_for_scripts(trained: Place) -> None:
    (replica,) = trained.json("ps")
    assert {"run", "replica", "rank", "state", "step"} <= set(replica)
    table = trained.run("ps").stdout
    assert table.split()[:3] == ["RUN", "ATTEMPT", "RANK"]
    assert replica["replica"] in table
    keys = {key["name"]: key for key in trained.json("keys", "lm")["keys"]}
    assert keys["learning_rate"]["type"] == "number > 0, <= 1"
    assert keys["learning_rate"]["schema"] == {"type": ["number"], "exclusiveMinimum": 0, "maximum": 1}
    shown = trained.run("keys", "lm").stdout
    assert "Step size" in shown
    assert "checkpoint" in shown
    (device,) = trained.json("devices")
    assert device["replicas"] == [replica["replica"]]
    assert device["device"]["id"] in trained.run("devices").stdout
    deadline = time.monotonic() + DEADLINE
    while not (stats := trained.json("stats"))["gauges"].get("commit_seconds_median"):
        assert time.monotonic() < deadline, stats  # what the shell measures is up to a beat old
    assert stats["counters"]["received_hello"] > 0
    assert abs(stats["at"] - time.time()) < DEADLINE
    gauges = stats["gauges"]
    assert gauges["replicas_live"] + gauges["replicas_paused"] + gauges["replicas_stalled"] == 1
    assert gauges["commit_seconds_median"] <= gauges["commit_seconds_max"] < DEADLINE
    assert gauges["disk_free_bytes"] > 0
    table = trained.run("stats").stdout
    assert "received_hello" in table
    assert "loop_lag_seconds_max" in table


def test_watch_prints_lines_as_things_happen(trained: Place) -> None:
    with ended(trained.start("watch", "lm")) as watching:
        assert "  lm  rank 0  " in first_line(watching)
        trained.run("set", "lm", "learning_rate=0.75")
        assert watching.stdout is not None
        while "learning_rate=0.75" not in (line := watching.stdout.readline()):
            assert line, "the watch ended"
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=DEADLINE)
    assert watching.returncode == 130
    assert err == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_watch_says_that_the_broker_is_gone_and_that_it_was_restarted(as_json: bool) -> None:
    with (
        own_broker() as (place, broker),
        ended(place.start("watch", "lm", *(["--json"] if as_json else []))) as watching,
    ):
        first_line(watching)
        broker.kill()
        broker.wait()
        at = f"the broker at {place.environment['ZLOOM_BROKER']}"
        assert watching.stderr is not None
        assert first_line(watching, watching.stderr).startswith(f"{at} has not answered for ")
        with ended(place.start("broker")) as again:
            first_line(again)
            back = first_line(watching, watching.stderr)
            first_line(watching)
        assert back.startswith(f"{at} answers again after ")
        assert "restarted; what happened meanwhile may be missing here: `zloom history lm` tells" in back


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_that_closes_the_pipe_ends_a_watch_quietly(trained: Place, options: tuple[str, ...]) -> None:
    with ended(trained.start("watch", *options)) as watching:
        first_line(watching)
        assert watching.stdout is not None
        assert watching.stderr is not None
        watching.stdout.close()
        assert watching.wait(DEADLINE) == 141
        assert watching.stderr.read() == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("ps",),
        ("ps", "--json"),
        ("keys", "lm"),
        ("watch",),
        ("watch", "--json"),
        ("set", "lm", "learning_rate=0.5"),
        ("--help",),
        ("ps", "--help"),
        ("--version",),
    ],
)
def test_a_stdout_that_cannot_be_written_is_one_line(trained: Place, arguments: tuple[str, ...]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*ZLOOM, *arguments],
            env=trained.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=DEADLINE,
        )
    assert (done.returncode, done.stderr) == (6, "zloom: cannot write to stdout: No space left on device\n")


@pytest.mark.parametrize("arguments", [("ps",), ("get", "lm"), ("set", "lm", "learning_rate=0.5")])
def test_a_stdout_that_is_closed_is_one_line(trained: Place, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *ZLOOM, *arguments],
        env=trained.environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stderr) == (6, "zloom: cannot write to stdout: Bad file descriptor\n")


def test_a_stderr_that_cannot_be_written_ends_no_change(trained: Place) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*ZLOOM, "set", "lm", "learning_rate=0.5", "--at-step", "1"],
            env=trained.environment,
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            check=False,
            timeout=DEADLINE,
        )
    assert (done.returncode, "applied on 1/1 replica" in done.stdout) == (0, True)


def test_a_failed_device_and_a_run_from_start_to_oblivion(trained: Place) -> None:
    with contextlib.ExitStack() as stack:
        watching = stack.enter_context(ended(trained.start("watch", "short", "--timeout", "2")))
        said = first_line(watching, watching.stderr)
        assert re.fullmatch(r"no run 'short' yet; known are: .*\blm\b.*; waiting for it\n", said)
        process = stack.enter_context(ended(trainer(trained, "short")))
        assert "  short  attempt started: " in first_line(watching)
        device = trained.json("devices")[0]["device"]["id"]
        assert len(trained.json("fail-device", device, "--reason", "fell off")["replicas"]) == 2
        assert "failed: fell off" in trained.run("devices").stdout
        stop = ("stop", "short", "--request-id", "enough")
        revision = trained.json(*stop)["revision"]
        assert process.wait(DEADLINE) == 0
        assert trained.json(*stop)["revision"] == revision  # of a run that has ended
        assert trained.json("ps", "short")[0]["state"] == "finished"
        assert trained.json("ps", "short", "--live") == []
        assert trained.run("ps", "short", "--live").stdout == (
            "no replica is live; ps without --live lists 1 other\n"
        )
        assert [each["run"] for each in trained.json("ps", "--live")] == ["lm"]
        gone = (
            "zloom: no replica of short (one) is there: rank 0: finished; start it again; a trainer that was "
            "started just now may take some seconds to say hello\n"
        )
        for looked in (("stacks", "short"), ("stacks", "short", "--rank", "7"), ("set", "short", "gated=1")):
            assert trained.run(*looked, code=1).stderr == gone
        for _ in range(2):
            told = trained.json("forget", "short", "--request-id", "gone")
            assert told == {"run": "short", "attempt": "one", "forgotten": True}
        assert "unknown run 'short'" in trained.run("ps", "short", code=1).stderr


def test_another_attempt_that_is_live_is_pointed_out(trained: Place) -> None:
    with ended(trainer(trained, "twice", "first")), ended(trainer(trained, "twice", "second")):
        change = ("set", "twice", "learning_rate=0.25")
        both = "note: this is attempt second of twice; first is live too; --attempt names another\n"
        for looked in (change, (*change, "--dry-run"), ("keys", "twice"), ("get", "twice")):
            assert trained.run(*looked).stderr == both
        assert trained.json("get", "twice", "--attempt", "second")["learning_rate"] == 0.25
        assert trained.run(*change, "--attempt", "first").stderr == ""
        refused = trained.run("set", "twice", "learning_rate=9", code=1).stderr
        assert refused.endswith(f"\n{both}")


def test_the_newest_attempt_that_is_live_is_taken_and_named(trained: Place) -> None:
    with ended(trainer(trained, "two", "first")) as first, ended(trainer(trained, "two", "second")) as second:
        assert "; first is live too; " in trained.run("stop", "two").stderr
        assert second.wait(DEADLINE) == 0
        older = "note: this is attempt first of two; second is newer, but not live; --attempt names another\n"
        looked = trained.run("history", "two")
        assert looked.stderr == older
        assert looked.stdout == (
            "nobody changed attempt first of two yet; --attempt names another: second (1 revision)\n"
        )
        assert trained.run("stop", "two").stderr == older
        assert first.wait(DEADLINE) == 0
    assert trained.run("history", "two").stderr == ""


def test_forget_says_which_attempts_are_left_and_which_could_go(trained: Place) -> None:
    ids = ("first", "second", "third", "last")
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(ended(trainer(trained, "kept", each))) for each in ids]
        refused = trained.run("forget", "kept", code=1).stderr
        assert refused.endswith("; stop it first\n")
        for attempt, process in zip(ids[:2], processes, strict=False):
            trained.run("stop", "kept", "--attempt", attempt)
            assert process.wait(DEADLINE) == 0
        assert trained.run("forget", "kept", code=1).stderr.endswith(
            "stop it first; `zloom forget kept --attempt second` forgets the newest of 2 that have finished\n"
        )
        done = trained.run("forget", "kept", "--attempt", "second")
        assert done.stdout == "attempt second of kept is forgotten; 3 other attempts are left\n"
        error = trained.json("forget", "kept", code=1)["error"]
        assert error["code"] == "still_live"
        assert error["text"].endswith("; `zloom forget kept --attempt first` forgets one that has finished")
        trained.run("forget", "kept", "--attempt", "first")
        trained.run("stop", "kept", "--attempt", "last")
        assert processes[3].wait(DEADLINE) == 0
        done = trained.run("forget", "kept", "--attempt", "last")
        assert done.stdout == "attempt last of kept is forgotten; 1 other attempt is left\n"
        trained.run("stop", "kept")
        assert processes[2].wait(DEADLINE) == 0
        assert trained.run("forget", "kept").stdout == "attempt third of kept is forgotten\n"


# --- the broker's side -------------------------------------------------------------------------------


def test_a_broker_that_cannot_say_that_it_is_ready_ends_with_one_line(place: Place, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    arguments = ("broker", "--data-dir", str(tmp_path), "--bind", "tcp://127.0.0.1:*", "--no-auth")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*ZLOOM, *arguments, "--log-level", "error"],
            env=place.environment | {"PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=DEADLINE,
        )
    assert (done.returncode, done.stderr) == (1, "zloom: cannot write to stdout: No space left on device\n")


def test_a_second_broker_on_the_same_data_is_refused_with_one_line(place: Place) -> None:
    done = place.run_apart("broker", "--bind", "ipc:///tmp/zloom-never", code=1)
    assert str(place.data_dir) in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_second_broker_at_the_same_endpoint_is_refused_with_one_line(place: Place, tmp_path: Path) -> None:
    done = place.run_apart("broker", "--data-dir", str(tmp_path / "other"), code=1)
    assert "another process already listens there" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_broker_says_as_json_where_it_is(place: Place, tmp_path: Path) -> None:
    arguments = ("broker", "--json", "--data-dir", str(tmp_path), "--bind", "tcp://127.0.0.1:*", "--no-auth")
    with ended(place.start(*arguments)) as broker:
        said = json.loads(first_line(broker))
        assert said["ready"]
        assert [sorted(pair) for pair in said["bound"]] == [["control", "updates"]]


def test_a_broker_loads_what_it_checks_values_with_and_nothing_of_a_client(
    place: Place, tmp_path: Path
) -> None:
    arguments = ("broker", "--data-dir", str(tmp_path / "data"), "--bind", "tcp://127.0.0.1:*", "--no-auth")
    environment = {**place.environment, "PYTHONPROFILEIMPORTTIME": "1"}  # a line on stderr for each module
    with (tmp_path / "imports").open("w+") as imports:
        command = [*ZLOOM, *arguments]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=imports, text=True
        )
        with ended(process) as broker:
            first_line(broker)
            broker.terminate()
            assert broker.wait(DEADLINE) == 0
        imports.seek(0)
        loaded = set(re.findall(r"^import time:.*\| +(\S+)$", imports.read(), re.MULTILINE))
    assert {"zloom_broker.core", "jsonschema"} <= loaded
    assert loaded & NOT_OF_A_BROKER == set()


def test_keys_are_given_out_used_and_revoked(place: Place, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(place.environment, "ZLOOM_AUTH_DIR", str(tmp_path / "auth"))
        assert "zloom auth init" in place.run("auth", "list", code=2).stderr
        place.run("auth", "init")
        assert "is there already" in place.run("auth", "init", code=1).stderr
        key = place.json("auth", "add", "olga", "--role", "observer", "--run", "tiny-*")["key"]
        assert "already" in place.run("auth", "add", "olga", "--role", "operator", code=1).stderr
        assert "no user 'nobody'" in place.run("auth", "revoke", "nobody", code=1).stderr
        (row,) = place.json("auth", "list")
        assert (row["name"], row["role"], row["runs"]) == ("olga", "observer", ["tiny-*"])
        assert "tiny-*" in place.run("auth", "list").stdout
        arguments = ("broker", "--data-dir", str(tmp_path / "data"), "--bind", "tcp://127.0.0.1:*")
        with ended(place.start(*arguments)) as broker:
            address = re.findall(r"control=(\S+)", first_line(broker))[0]
            refused = place.run("ps", "--broker", address, code=1)
            assert "the broker wants a key" in refused.stderr
            (finding,) = place.json("doctor", "--broker", address, code=1)
            assert (finding["check"], finding["state"]) == ("key", "problem")
            assert finding["advice"].startswith("have its owner run `zloom auth add`")
            patch.setitem(place.environment, "ZLOOM_KEY", key)
            assert place.json("ps", "--broker", address) == []
            found = {each["check"]: each["text"] for each in place.json("doctor", "--broker", address)}
            assert found["key"] == f"the broker knows the one in {key}"
            said = place.run("set", "tiny-lm", "learning_rate=1", "--broker", address, code=1)
            assert "unknown run" in said.stderr
            kept = str(shutil.copy(key, Path(key).with_name("kept")))
            patch.setitem(place.environment, "ZLOOM_KEY", kept)
            place.run("auth", "revoke", "olga")
            assert not Path(key).exists()
            refused = place.run("ps", "--broker", address, "--timeout", "3", code=1)
            assert "revoked" in refused.stderr


def test_a_folder_may_begin_with_home(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.environment["HOME"] = str(tmp_path)
    assert place.json("auth", "init", "--auth-dir=~/keys")["folder"] == str(tmp_path / "keys")
    assert (
        f"no journal in {tmp_path}/data" in place.run("journal", "verify", "--data-dir=~/data", code=1).stderr
    )
    unknown = place.run("auth", "list", "--auth-dir=~nobody-of-this-name/keys", code=2)
    assert "~nobody-of-this-name/keys" in unknown.stderr


def test_an_address_that_others_reach_needs_no_auth(place: Place, tmp_path: Path) -> None:
    arguments = ("broker", "--data-dir", str(tmp_path / "open"), "--bind", "tcp://0.0.0.0:*")
    assert "--no-auth" in place.run_apart(*arguments, code=2).stderr
    with ended(place.start(*arguments, "--no-auth")) as broker:
        assert first_line(broker).startswith("zloom broker ready control=tcp://0.0.0.0:")
        broker.send_signal(signal.SIGINT)
        _, err = broker.communicate(timeout=DEADLINE)
        assert broker.returncode == 0
        assert "anybody who reaches this address can steer" in err


def test_the_journal_is_verified_and_repaired_without_a_broker(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="zloom-", dir="/tmp") as folder:
        place = Place(Path(folder))
        assert "there is no journal" in place.run("journal", "verify", code=1).stderr
        with ended(place.start("broker")) as broker:
            first_line(broker)
            assert place.json("journal", "verify")["ok"]
            assert "in use" in place.run("journal", "repair", code=1).stderr
            broker.terminate()
            assert broker.wait(DEADLINE) == 0
        assert "in order" in place.run("journal", "verify").stdout
        (place.data_dir / "head").unlink()
        damaged = place.run("journal", "verify", code=1)
        assert "head" in damaged.stderr
        assert "nothing was done" in place.run("journal", "repair", code=1).stdout
        assert place.json("journal", "repair", "--accept-loss")["repaired"]
        assert place.json("journal", "verify")["ok"]


def test_a_copy_that_another_one_stands_in_for_is_noted(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="zloom-", dir="/tmp") as folder:
        place = Place(Path(folder))
        with ended(place.start("broker")) as broker:
            first_line(broker)
            broker.terminate()
            assert broker.wait(DEADLINE) == 0
        for statement, use in (
            ("UPDATE rows SET payload = x'00'", ("repair", "--accept-loss")),
            ("DELETE FROM snapshot_copies", ("verify",)),
        ):
            with (
                contextlib.closing(sqlite3.connect(place.data_dir / "journal.sqlite3")) as connection,
                connection,
            ):
                connection.execute(statement)
            said = place.run("journal", *use)
        assert "a copy of the snapshot of row 1 is missing or damaged" in said.stderr
        assert "in order" in said.stdout
        found = place.json("journal", "verify")
        assert (found["ok"], len(found["notes"])) == (True, 1)
        assert "nothing was done" in place.run("journal", "repair").stdout


# --- the program ---------------------------------------------------------------------------------


def test_the_doctor_finds_nothing_where_all_is_well(trained: Place) -> None:
    found = trained.json("doctor")
    assert {each["check"] for each in found} == {"broker", "key", "clocks", "disk", "load", "runs", "config"}
    assert [each for each in found if each["state"] == "problem"] == []
    assert "ok       broker  ipc://" in trained.run("doctor").stdout


def test_the_doctor_names_what_ranks_do_not_agree_on(trained: Place) -> None:
    with contextlib.ExitStack() as stack:
        for rank in range(2):
            weavelet = zloom.Weavelet(
                "apart",
                broker=trained.environment["ZLOOM_BROKER"],
                attempt="one",
                rank=rank,
                world_size=2,
            )
            weavelet.on_config("same", initial=1)(lambda value: None)
            weavelet.on_config("rate", initial=float(rank))(lambda value: None)
            assert stack.enter_context(weavelet).wait_until_active(DEADLINE)
        deadline = time.monotonic() + DEADLINE
        while len([each for each in trained.json("ps", "apart") if each["values"]]) < 2:
            assert time.monotonic() < deadline
        found = trained.json("doctor", code=1)
    (problem,) = [each for each in found if each["check"] == "config"]
    assert problem["text"] == "apart: rate is not the same on rank 0 and rank 1"


def test_the_doctor_says_why_there_is_no_broker(tmp_path: Path, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        place = Place(tmp_path)
        (found,) = place.json("doctor", "--broker", endpoint, "--timeout", "0.5", code=3)
        assert found["text"] == f"something listens at {endpoint}, but does not answer as a broker does"
    told = place.run("doctor", "--broker", endpoint, "--timeout", "0.5", code=3).stdout
    assert f"problem  broker  nobody listens at {endpoint}" in told
    nowhere = f"ipc://{folder}/nowhere"
    told = place.run("doctor", "--broker", nowhere, "--timeout", "0.5", code=3).stdout
    assert f"nobody listens at {nowhere}" in told
    assert "→ start one with `zloom broker`" in told


def test_a_host_that_nobody_knows_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    unknown = "tcp://nowhere.invalid:5555"
    place = Place(tmp_path)
    said = f"the host of {unknown} is unknown here: Name or service not known"
    told = place.run("ps", "--broker", unknown, code=3).stderr
    advice = "see that it is spelt right, or name another broker with --broker or ZLOOM_BROKER"
    assert told == f"zloom: {said}; {advice}\n"
    assert f"problem  broker  {said}" in place.run("doctor", "--broker", unknown, code=3).stdout


def test_a_resolver_that_hangs_keeps_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: hangs.wait(DEADLINE))
    try:
        told = (
            Place(tmp_path)
            .run("ps", "--broker", "tcp://slow.invalid:5555", "--timeout", "0.1", code=3)
            .stderr
        )
    finally:
        hangs.set()
    assert told.startswith("zloom: no broker answered at tcp://slow.invalid:5555 within 0.1 s")


def test_a_command_without_descriptors_says_so_in_one_line(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))\n"
        "from zloom.cli import main\n"
        "sys.argv[1:] = ['ps']\n"
        "main()\n"
    )
    command = [sys.executable, "-c", program]
    environment = Place(tmp_path).environment
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (line,) = ended.stderr.splitlines()
    assert (ended.returncode, line.startswith("zloom: "), "Too many open files" in line) == (1, True, True)


def test_prometheus_reads_the_brokers_numbers(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with ended(place.start("broker", "--metrics-port", "0")) as broker:
        first_line(broker)
        assert broker.stderr is not None
        urls = (re.search(r"metrics at (\S+)$", line.strip()) for line in broker.stderr)
        url = next(found[1] for found in urls if found)
        place.json("stats")
        deadline = time.monotonic() + DEADLINE
        while b'zloom_received_total{type="get_stats"} 1.0' not in urllib.request.urlopen(url).read():
            assert time.monotonic() < deadline
        broker.terminate()
        begun = time.monotonic()
        assert broker.wait(DEADLINE) == 0
        assert time.monotonic() - begun < 2.0


def test_a_run_whose_gpu_fails_stops_where_that_was_wanted(tmp_path: Path) -> None:
    place, card, going = Place(tmp_path), Card("GPU-1"), True
    endpoint = place.environment["ZLOOM_BROKER"]
    with ended(place.start("broker", "--on-device-failure", "stop")) as broker:
        first_line(broker)
        probe = DeviceProbe({}, FakeNVML(card))
        weavelet = zloom.Weavelet(
            "gpu", broker=endpoint, devices=probe, settings=zloom.WeaveletSettings(device_interval=0.1)
        )

        @weavelet.on_command("stop")
        def stop() -> None:
            nonlocal going
            going = False

        deadline = time.monotonic() + DEADLINE
        with weavelet:
            assert weavelet.wait_until_active(DEADLINE)
            card.pending.append(xid(79))
            while going:
                assert time.monotonic() < deadline
                weavelet.tick()
        (change,) = place.json("history", "gpu")
        assert (change["command"], change["by"]) == ("stop", "zloom")
        assert change["note"] == "GPU-1 failed: XID 79: it has fallen off the bus"


COMMANDS = """
broker ps devices keys get set history rollback pause resume stop checkpoint validate command cancel watch
fail-device forget stats stacks doctor journal record replay
"""


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_command_is_there_and_helps(tmp_path: Path, command: str) -> None:
    place = Place(tmp_path)
    assert f" {command} " in place.run("--help").stdout
    assert place.run(command, "--help").stdout


def test_it_runs_as_a_program(trained: Place) -> None:
    assert json.loads(trained.run_apart("ps", "--json").stdout)


def test_version(tmp_path: Path) -> None:
    assert Place(tmp_path).run("--version").stdout == f"zloom {zloom.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed(tmp_path: Path, shell: str) -> None:
    place = Place(tmp_path)
    place.environment |= {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)}
    assert "_ZLOOM_COMPLETE" in place.run("--show-completion", shell).stdout
    place.run_apart("--install-completion", shell)
    assert any("_ZLOOM_COMPLETE" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_completion_knows_the_commands(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.environment |= {"_ZLOOM_COMPLETE": "complete_bash", "COMP_WORDS": "zloom fail", "COMP_CWORD": "1"}
    assert place.run().stdout.split() == ["fail-device"]


def test_an_unexpected_error_is_one_line_and_a_traceback_on_request(tmp_path: Path) -> None:
    code = (
        "import sys, zloom.cli.app as app, zloom.cli\n"
        "def broken(): raise RuntimeError('boom')\n"
        "app.app.command('broken')(broken)\n"
        "sys.argv = ['zloom', 'broken']\n"
        "zloom.cli.main()\n"
    )
    run = [sys.executable, "-c", code]
    quiet = subprocess.run(run, capture_output=True, text=True, check=False)
    assert quiet.returncode == 1
    assert quiet.stderr.startswith("zloom: RuntimeError: boom; this is a bug in zloom")
    assert quiet.stderr.count("\n") == 1
    environment = {**os.environ, "ZLOOM_TRACEBACK": "1"}
    loud = subprocess.run(run, capture_output=True, text=True, check=False, env=environment)
    assert "Traceback" in loud.stderr
