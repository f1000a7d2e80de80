"""What `record` and `replay` say, above all what is missing."""

from pathlib import Path

from zloom import recording
from zloom.cli import recounting
from zloom.client.recorder import Recorded
from zloom.client.replaying import Replayed
from zloom.client.results import Result
from zloom.model import Outcome, Ramp, ReplicaStatus
from zloom.recording_file import Loss
from zloom.replay_schedule import Change

HEADER = recording.Header(magic=recording.MAGIC, version=recording.VERSION, run="lm", attempt="one")


def test_what_a_recording_holds_is_one_line() -> None:
    end = recording.End(reason="finished", points=3400)
    recorded = Recorded(Path("file"), 1_250_000, HEADER, end, 1, ["loss", "lr"], 9)
    assert recounting.recorded_line(recorded) == (
        "recorded lm (one) to file · 1 revision, 3400 points of 2 metrics, 9 events · 1.2 MB · finished"
    )
    assert recounting.of_recorded(recorded)["points"] == 3400


def test_each_thing_that_is_missing_is_said() -> None:
    replicas = [ReplicaStatus("r0", "lm", "one", step=512), ReplicaStatus("r1", "lm", "one", rank=1)]
    header = recording.Header(
        magic=recording.MAGIC, version=recording.VERSION, run="lm", attempt="one", replicas=replicas
    )
    end = recording.End(reason="", complete=False, missed=2, restarts=1, points_dropped=7)
    assert list(recounting.missing_lines(header, end)) == [
        "points of rank 0 up to step 512 came before it began",
        "7 points were dropped by trainers before a broker took them",
        "2 messages with reports or events did not arrive",
        "the broker was restarted (1 time); reports and events of meanwhile may be missing",
        "the broker did not answer at the end; the newest revisions and outcomes may be missing",
    ]
    assert list(recounting.missing_lines(HEADER, recording.End(reason="finished"))) == []


def test_a_replay_says_what_its_recording_lacks() -> None:
    assert list(recounting.loss_lines(Loss(), recording.End(reason=""))) == []
    said = [*recounting.loss_lines(Loss(cut=3, unknown=1), None)]
    said += recounting.loss_lines(Loss(), recording.End(reason="", complete=False))
    assert [line.partition(":")[2].split(";")[0].strip() for line in said] == [
        "the recording ends in 3 bytes that are no whole record",
        "the recorder was killed",
        "1 record of a newer zloom passed over",
        "the recorder lost its broker",
    ]


def test_a_change_that_did_not_come_as_recorded_is_marked() -> None:
    change = Change(3, 20, {"rate": 0.5}, {"rate": Ramp(100)})
    exact = Replayed(change, Result("lm", "one", 2, [Outcome("r0", outcome="applied", step=20)], True))
    late = Replayed(change, Result("lm", "one", 2, [Outcome("r0", outcome="applied", step=21)], True))
    line = "step 20 · rate=..0.5 over 100 steps · revision 3 as 2 · applied 1/1 at step "
    assert recounting.change_line(exact) == f"{line}20"
    assert recounting.change_line(late) == f"{line}21 · not as recorded"
    assert recounting.replayed_line([exact, late]) == "replayed 1 of 2 changes at the recorded step"


def test_an_interrupted_replay_says_what_is_still_coming() -> None:
    assert recounting.interrupted("lm", []) == "interrupted: nothing was handed over"
    assert "revisions 4 to 6 are with lm" in recounting.interrupted("lm", [4, 5, 6])
