"""What a recorder writes down of what it sees: each revision, outcome, report and event once. Pure."""

from collections.abc import Iterable

from zloom import messages, recording
from zloom.model import HistoryEntry, Outcome, ReplicaStatus
from zloom.recording import AnyRecord
from zloom.series import points_in

Seen = messages.Reported | messages.Answered | messages.Happened | messages.Revised
"""What a watcher of a run sees."""


class Transcript:
    """Turns the history and what is watched of one attempt into records, in any order and with repetitions.

    Args:
        header: Of the recording; its replicas are counted from where they stood.
    """

    def __init__(self, header: recording.Header) -> None:
        self.points = 0
        """Of metrics, written so far."""
        self.metrics: set[str] = set()
        """Names of the metrics that had points."""
        self.events = 0
        self.missed = 0
        self.restarts = 0
        self._header = header
        self._revisions: set[int] = set()
        self._outcomes: dict[int, dict[str, Outcome]] = {}
        """By revision and replica."""
        self._guards_told: set[int] = set()
        self._dropped_before = {each.replica: each.dropped for each in header.replicas}
        self._dropped = dict(self._dropped_before)

    @property
    def revisions(self) -> int:
        """How many were written."""
        return len(self._revisions)

    @property
    def points_dropped(self) -> int:
        """Points that weavelets dropped since the recording began."""
        return sum(count - self._dropped_before.get(name, 0) for name, count in self._dropped.items())

    def take_history(self, entries: Iterable[HistoryEntry], at: float) -> list[AnyRecord]:
        """Return records of what the broker's history has and is not written yet."""
        records: list[AnyRecord] = []
        for entry in sorted(entries, key=lambda entry: entry.revision.revision):
            number = entry.revision.revision
            records += self._revised(recording.Revised(revision=entry.revision, at=at))
            guard = None if number in self._guards_told else entry.guard
            news = self._news(number, entry.outcomes)
            if news or guard is not None:
                self._guards_told |= {number} if guard is not None else set()
                records.append(
                    recording.Answered(
                        revision=number, outcomes=news, settled=entry.settled, guard=guard, at=at
                    )
                )
        return records

    def see(self, seen: Seen, at: float) -> list[AnyRecord]:
        """Return records of something that was watched; none of another attempt, or of what is written."""
        match seen:
            case messages.Reported() if self._is_mine(seen.status.run, seen.status.attempt):
                return self._report(seen, at)
            case messages.Revised() if self._is_mine(seen.run, seen.attempt):
                return self._revised(recording.Revised(revision=seen.revision, at=at))
            case messages.Answered() if self._is_mine(seen.run, seen.attempt):
                news = self._news(seen.revision, seen.outcomes)
                answered = recording.Answered(
                    revision=seen.revision, outcomes=news, settled=seen.settled, at=at
                )
                return [answered] if news else []
            case messages.Happened() if self._is_mine(seen.event.run, seen.event.attempt):
                self.events += 1
                return [recording.Happened(event=seen.event, at=at)]
        return []

    def see_gaps(self, missed: int, restarts: int, at: float) -> list[AnyRecord]:
        """Return a record where more is missing than before; both are counted since the recording began."""
        more, restarted = missed - self.missed, restarts > self.restarts
        self.missed, self.restarts = missed, restarts
        return [recording.Gap(missed=more, restarted=restarted, at=at)] if more or restarted else []

    def end(self, reason: str, at: float, *, complete: bool) -> recording.End:
        """Return the last record."""
        return recording.End(
            reason=reason,
            complete=complete,
            missed=self.missed,
            restarts=self.restarts,
            points=self.points,
            points_dropped=self.points_dropped,
            at=at,
        )

    def _is_mine(self, run: str, attempt: str) -> bool:
        # An event of a device is of no attempt.
        return run == self._header.run and attempt in ("", self._header.attempt)

    def _revised(self, revised: recording.Revised) -> list[AnyRecord]:
        number = revised.revision.revision
        if number in self._revisions:
            return []
        self._revisions.add(number)
        return [revised]

    def _news(self, number: int, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """Return the outcomes that are not written, and take note of them."""
        known = self._outcomes.setdefault(number, {})
        news = [each for each in outcomes if each.outcome is not None and known.get(each.replica) != each]
        known |= {each.replica: each for each in news}
        return news

    def _report(self, seen: messages.Reported, at: float) -> list[AnyRecord]:
        status: ReplicaStatus = seen.status
        self.points += points_in(seen.metrics)
        self.metrics |= seen.metrics.keys()
        # One that comes back says 0 until it has told its status.
        self._dropped[status.replica] = max(status.dropped, self._dropped.get(status.replica, 0))
        return [recording.Reported(status=status, metrics=seen.metrics, devices=seen.devices, at=at)]
