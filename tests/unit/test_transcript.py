"""What a recorder writes of what it sees: each thing once, and how much is missing."""

from zloom import messages, recording
from zloom.model import Event, GuardEnd, HistoryEntry, Outcome, ReplicaStatus, Revision
from zloom.recording import AnyRecord
from zloom.series import Series
from zloom.transcript import Transcript

NOW = 7.0


def transcript(*replicas: ReplicaStatus) -> Transcript:
    header = recording.Header(
        magic=recording.MAGIC, version=recording.VERSION, run="lm", attempt="one", replicas=list(replicas)
    )
    return Transcript(header)


def revision(number: int) -> Revision:
    return Revision(number, "config", {"rate": float(number)})


def entry(
    number: int, *outcomes: Outcome, settled: bool = True, guard: GuardEnd | None = None
) -> HistoryEntry:
    return HistoryEntry(revision(number), list(outcomes), settled, guard)


def applied(step: int, replica: str = "r0") -> Outcome:
    return Outcome(replica, outcome="applied", step=step)


def answered(number: int, *outcomes: Outcome, attempt: str = "one") -> messages.Answered:
    return messages.Answered(
        run="lm", attempt=attempt, revision=number, outcomes=list(outcomes), settled=True
    )


def revised(number: int, attempt: str = "one") -> messages.Revised:
    return messages.Revised(epoch="e", run="lm", attempt=attempt, revision=revision(number))


def reported(points: int, dropped: int = 0, attempt: str = "one") -> messages.Reported:
    status = ReplicaStatus("r0", "lm", attempt, dropped=dropped)
    series = Series.of(list(range(points)), [0.5] * points)
    return messages.Reported(status=status, metrics={"loss": series} if points else {})


def kinds(records: list[AnyRecord]) -> list[str]:
    return [type(record).__name__ for record in records]


def test_the_history_comes_in_order_with_what_became_of_it() -> None:
    history = [entry(2, Outcome("r0"), settled=False), entry(1, applied(5))]
    records = transcript().take_history(history, NOW)
    assert records == [
        recording.Revised(revision=revision(1), at=NOW),
        recording.Answered(revision=1, outcomes=[applied(5)], settled=True, at=NOW),
        recording.Revised(revision=revision(2), at=NOW),
    ]


def test_what_the_history_and_the_watch_tell_is_written_once() -> None:
    written = transcript()
    written.take_history([entry(1, applied(5))], NOW)
    assert written.see(revised(1), NOW) == []
    assert written.see(answered(1, applied(5)), NOW) == []
    assert kinds(written.see(revised(2), NOW)) == ["Revised"]
    assert kinds(written.see(answered(2, applied(6), applied(6, "r1")), NOW)) == ["Answered"]
    assert written.take_history([entry(2, applied(6), applied(6, "r1")), entry(1, applied(5))], NOW) == []
    assert written.revisions == 2


def test_an_outcome_that_is_amended_is_written_again() -> None:
    written = transcript()
    written.take_history([entry(1, Outcome("r0", outcome="lost"), applied(5, "r1"))], NOW)
    (record,) = written.see(answered(1, applied(5)), NOW)
    assert isinstance(record, recording.Answered)
    assert record.outcomes == [applied(5)]


def test_an_outcome_that_comes_before_its_revision_does_not_hide_it() -> None:
    written = transcript()
    written.see(answered(1, applied(5)), NOW)
    records = written.take_history([entry(1, applied(5))], NOW)
    assert kinds(records) == ["Revised"]


def test_the_end_of_a_guard_is_written_once() -> None:
    written, guard = transcript(), GuardEnd("passed")
    assert kinds(written.take_history([entry(1, applied(5))], NOW)) == ["Revised", "Answered"]
    (record,) = written.take_history([entry(1, applied(5), guard=guard)], NOW)
    assert record == recording.Answered(revision=1, settled=True, guard=guard, at=NOW)
    assert written.take_history([entry(1, applied(5), guard=guard)], NOW) == []


def test_another_attempt_is_not_written() -> None:
    written = transcript()
    others: list[messages.Reported | messages.Answered | messages.Happened | messages.Revised] = [
        revised(1, "two"),
        answered(1, applied(5), attempt="two"),
        reported(3, attempt="two"),
    ]
    assert [written.see(each, NOW) for each in others] == [[], [], []]
    assert written.see(messages.Happened(event=Event("lost", "lm", "two")), NOW) == []
    assert (written.points, written.events, written.revisions) == (0, 0, 0)


def test_events_are_written_those_of_a_device_too() -> None:
    written = transcript()
    for event in (Event("lost", "lm", "one"), Event("device_failed", "lm")):
        assert written.see(messages.Happened(event=event), NOW) == [recording.Happened(event=event, at=NOW)]
    assert written.events == 2


def test_points_and_what_was_dropped_of_them_are_counted() -> None:
    written = transcript(ReplicaStatus("r0", "lm", "one", dropped=10))
    written.see(reported(3, dropped=10), NOW)
    written.see(reported(4, dropped=15), NOW)
    written.see(reported(0), NOW)  # it came back, and has not told its count yet
    end = written.end("finished", NOW, complete=True)
    assert (end.points, end.points_dropped, written.metrics) == (7, 5, {"loss"})


def test_gaps_are_written_where_they_grow() -> None:
    written = transcript()
    assert written.see_gaps(0, 0, NOW) == []
    assert written.see_gaps(3, 0, NOW) == [recording.Gap(missed=3, at=NOW)]
    assert written.see_gaps(3, 0, NOW) == []
    assert written.see_gaps(5, 1, NOW) == [recording.Gap(missed=2, restarted=True, at=NOW)]
    end = written.end("stopped", NOW, complete=False)
    assert (end.missed, end.restarts, end.complete) == (5, 1, False)
