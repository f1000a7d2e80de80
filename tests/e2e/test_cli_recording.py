"""`zloom record` and `zloom replay` as people and scripts use them, with a real broker and a real trainer."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.test_cli import Place, ended, folder, place, trained
from tests.support import DEADLINE
from zloom import recording
from zloom.model import Outcome, Revision, Value
from zloom.recording_file import RecordingReader, RecordingWriter

__all__ = ["folder", "place", "trained"]  # fixtures


def recorded(path: Path, *changes: tuple[int, dict[str, Value]], command: str = "") -> str:
    """Write a recording of another run, which changed this at these steps."""
    header = recording.Header(magic=recording.MAGIC, version=recording.VERSION, run="old", attempt="one")
    records: list[recording.AnyRecord] = [header]
    for number, (step, values) in enumerate(changes, 1):
        kind = Revision(number, "command", command=command) if command else Revision(number, "config", values)
        outcome = Outcome("r0", outcome="applied", step=step)
        records.append(recording.Revised(revision=kind))
        records.append(recording.Answered(revision=number, outcomes=[outcome], settled=True))
    with RecordingWriter(path, replace=True) as writer:
        writer.write([*records, recording.End(reason="finished")])
    return str(path)


def step_of(place: Place) -> int:
    return int(place.json("ps", "lm")[0]["step"])


def paused(place: Place) -> int:
    """Pause the run, so that no step passes until a replay lets it go on; return the step."""
    return int(place.json("pause", "lm")["outcomes"][0]["step"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_terminal_that_is_closed_end_a_recording_whole(
    trained: Place, tmp_path: Path, number: signal.Signals
) -> None:
    file = str(tmp_path / "file")
    with ended(trained.start("record", "lm", file)) as recorder:
        assert recorder.stderr is not None
        assert recorder.stderr.readline() == f"recording lm (one) to {file}\n"
        trained.run("set", "lm", "learning_rate=0.125")
        recorder.send_signal(number)
        begun = time.monotonic()
        out, _ = recorder.communicate(timeout=DEADLINE)
        assert time.monotonic() - begun < 2.0
    assert recorder.returncode == 0
    assert out.startswith(f"recorded lm (one) to {file} · ")
    assert out.endswith(" kB · stopped by its user\n")
    records = RecordingReader(Path(file)).records()
    assert [each.reason for each in records if isinstance(each, recording.End)] == ["stopped by its user"]
    again = trained.run("record", "lm", file, code=1)
    assert again.stderr == f"zloom: {file} is there already; name another file, or give --force\n"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_terminal_that_is_closed_ends_a_recording_whole(
    trained: Place, tmp_path: Path, options: tuple[str, ...]
) -> None:
    file = tmp_path / "file"
    words = [sys.executable, "-m", "zloom", "record", "lm", str(file), *options]
    ours, theirs = os.openpty()
    in_it = "import os, sys; os.login_tty(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
    recorder = subprocess.Popen(
        [sys.executable, "-c", in_it, str(theirs), *words], env=trained.environment, pass_fds=(theirs,)
    )
    os.close(theirs)
    told = b""
    while b"recording lm (one)" not in told:
        told += os.read(ours, 1000)
    os.close(ours)
    assert recorder.wait(DEADLINE) == 0
    records = RecordingReader(file).records()
    assert [each.reason for each in records if isinstance(each, recording.End)] == ["stopped by its user"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_first_step_ends_the_wait_and_makes_no_file(
    place: Place, tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "file"
    file.write_text("of another run")
    with ended(place.start("record", "nobody", str(file), "--wait", "--force", "--json")) as recorder:
        assert recorder.stderr is not None
        assert recorder.stderr.readline() == "there is no run nobody; waiting\n"
        recorder.send_signal(number)
        begun = time.monotonic()
        out, err = recorder.communicate(timeout=DEADLINE)
        assert time.monotonic() - begun < 2.0
    text = f"stopped before {file} was begun: nothing is recorded"
    assert (recorder.returncode, err) == (1, f"zloom: {text}\n")
    assert json.loads(out)["error"] == {"code": "RecordingError", "text": text}
    assert file.read_text() == "of another run"


def test_a_run_that_is_not_there_makes_no_file(place: Place, tmp_path: Path) -> None:
    done = place.run("record", "nobody", str(tmp_path / "file"), code=1)
    assert done.stderr.startswith("zloom: unknown run 'nobody'")
    assert done.stderr.endswith("; wait for it with --wait\n")
    assert not (tmp_path / "file").exists()


def test_an_attempt_that_is_not_there_makes_no_file(trained: Place, tmp_path: Path) -> None:
    error = trained.json("record", "lm", str(tmp_path / "file"), "--attempt", "two", code=1)["error"]
    assert error["code"] == "unknown_attempt"
    assert error["text"].endswith("; wait for it with --wait")
    assert not (tmp_path / "file").exists()


def test_a_replay_says_of_each_change_that_it_came_at_its_step(trained: Place, tmp_path: Path) -> None:
    at = paused(trained) + 100
    file = recorded(tmp_path / "file", (at, {"learning_rate": 0.5}), (at + 1, {"learning_rate": 0.25}))
    lines = trained.run("replay", file, "--run", "lm").stdout.splitlines()
    assert [line.split(" · ")[:2] for line in lines[:2]] == [
        [f"step {at}", "learning_rate=0.5"],
        [f"step {at + 1}", "learning_rate=0.25"],
    ]
    assert lines[2] == "replayed 2 of 2 changes at the recorded step"
    notes = [entry["note"] for entry in trained.json("history", "lm", "--limit", "3")]
    assert notes == ["replay", "replay of old (one), revision 2", "replay of old (one), revision 1"]


def test_a_change_that_waits_beyond_its_step_ends_the_replay(trained: Place, tmp_path: Path) -> None:
    at = paused(trained) + 100
    file = recorded(tmp_path / "file", (at, {"gated": 1}), (at + 10**6, {"learning_rate": 0.5}))

    def open_gate() -> None:
        while step_of(trained) <= at:
            pass
        trained.run_apart("command", "lm", "open_gate")

    opening = threading.Thread(target=open_gate)
    with ended(trained.start("replay", file, "--run", "lm", "--json")) as replaying:
        opening.start()
        out, _ = replaying.communicate(timeout=DEADLINE)
        opening.join()
    assert replaying.returncode == 1
    late, taken_back = json.loads(out)["changes"]
    assert late["outcomes"][0]["step"] > at
    assert (late["exact"], taken_back["outcomes"][0]["outcome"]) == (False, "cancelled")


def test_ctrl_c_leaves_a_replay_with_the_run(trained: Place, tmp_path: Path) -> None:
    file = recorded(tmp_path / "file", (10**9, {"optimizer": "sgd"}))
    before = trained.json("history", "lm", "--limit", "1")[0]["revision"]
    with ended(trained.start("replay", file, "--run", "lm")) as replaying:
        deadline = time.monotonic() + DEADLINE
        while (newest := trained.json("history", "lm", "--limit", "1")[0]["revision"]) == before:
            assert time.monotonic() < deadline
        replaying.send_signal(signal.SIGINT)
        _, err = replaying.communicate(timeout=DEADLINE)
    assert replaying.returncode == 130
    assert f"interrupted: revisions {newest} to {newest} are with lm, each for its step" in err
    trained.run("cancel", "lm", str(newest))


@pytest.mark.parametrize(
    ("step", "values", "command", "options", "expected"),
    [
        (
            5,
            {},
            "validate",
            (),
            "cannot be replayed exactly: revision 1 is the command validate, carried out at step 5",
        ),
        (1, {"learning_rate": 0.5}, "", (), "has begun, and revision 1 was applied at step 1; start it with"),
        (10**9, {"lr": 0.5}, "", (), "cannot be steered as it was recorded: it has no key 'lr'"),
        (10**9, {"learning_rate": 5.0}, "", (), "learning_rate: 5.0 is out of bounds"),
        (5, {}, "validate", ("--skip", "2"), "there is no revision 2 to skip"),
    ],
)
def test_what_cannot_be_replayed_is_one_clear_line(
    trained: Place,
    tmp_path: Path,
    step: int,
    values: dict[str, Value],
    command: str,
    options: tuple[str, ...],
    expected: str,
) -> None:
    file = recorded(tmp_path / "file", (step, values), command=command)
    done = trained.run("replay", file, "--run", "lm", "--wait", *options, code=1)
    assert expected in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("changes", "options", "left_out"),
    [
        ([], (), ""),
        ([(10**9, {"learning_rate": 0.5})], ("--skip", "1"), "left out: revision 1: as you asked\n"),
    ],
)
def test_a_recording_without_a_change_to_replay_is_no_success(
    trained: Place,
    tmp_path: Path,
    changes: list[tuple[int, dict[str, Value]]],
    options: tuple[str, ...],
    left_out: str,
) -> None:
    file = recorded(tmp_path / "file", *changes)
    before = trained.json("history", "lm")
    done = trained.run("replay", file, "--run", "lm", *options, code=1)
    text = f"{file} has nothing to replay: it holds no change that is not left out"
    assert (done.stdout, done.stderr) == ("", f"zloom: {text}\n{left_out}")
    assert trained.json("replay", file, "--run", "lm", *options, code=1)["error"] == {
        "code": "RecordingError",
        "text": text,
    }
    assert trained.json("history", "lm") == before


def test_another_file_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    nowhere = Place(tmp_path)
    (tmp_path / "file").write_bytes(b"no recording")
    error = nowhere.json("replay", str(tmp_path / "file"), "--run", "lm", code=1)["error"]
    assert error["code"] == "RecordingError"
    assert nowhere.run("replay", str(tmp_path / "gone"), "--run", "lm", code=1).stderr.endswith(
        "gone cannot be read: No such file or directory\n"
    )
