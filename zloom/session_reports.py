"""What a weavelet tells of itself: declarations, outcomes, status, and payloads of its user. Pure."""

from msgspec.structs import replace

from zloom.gaps import PublishSeqs
from zloom.messages import Declare, Failure, FailureReceived, Outcomes, Publish, Status
from zloom.model import Command, Key, Outcome
from zloom.outcome_table import OutcomeTable
from zloom.session_effects import CollectStatus, Effect, Failed
from zloom.session_link import INTERVAL, Link
from zloom.session_state import Alarm

STATUS_GAP = 0.05
"""Seconds between two statuses at least, however often phase or pause change."""

RESEND_BEATS = 6
"""Beats until an outcome without acknowledgement is sent again: a ping of the next three beats names it,
where the broker could write it."""

OUTCOMES_GAP = 0.001
"""Seconds between two messages of new outcomes at least: what a safe point carries out goes together."""

STREAM_GAP = 0.002
"""Seconds between two statuses at least, however many points there are: time for all else."""


class Reports:
    """Everything that one weavelet has to tell, over all its connections."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._alarms = link.alarms
        self._open = False
        self._outcomes = OutcomeTable()
        self._declared = self._told = 0
        self._status_seq = 0
        self._status_sent = 0.0
        self._outcomes_sent = -OUTCOMES_GAP
        self._more = False
        """There are points for another status, which waits for the broker to read more."""
        self._publish_seqs = PublishSeqs()
        self._failures: set[int] = set()

    @property
    def may_report(self) -> bool:
        """Whether a status would be sent now."""
        return self._open and self._link.may_send

    # --- the connection -----------------------------------------------------------------------

    def disconnected(self) -> None:
        """A hello is about to be said, which tells the newest declarations."""
        self._open = False
        self._told = self._declared

    def welcomed(self, now: float) -> None:
        """Declarations that came after that hello may be told."""
        if self._told != self._declared:
            self._alarms.set(Alarm.DECLARE, now)

    def resume(self, now: float) -> None:
        """The broker's history and this side's are one again, so outcomes and status mean something to it."""
        if not self._open:
            self._open = True
            self._outcomes.restart(now)
            self._set_outcomes_alarm()
            self._alarms.set(Alarm.STATUS, now)

    def rolled_back(self) -> None:
        """The broker's history replaced this side's: the same numbers mean other revisions there."""
        self._outcomes.clear()

    # --- what is to be told -------------------------------------------------------------------

    def declare(self, keys: list[Key], commands: list[Command], now: float, *, welcome: bool) -> None:
        """Take new declarations, all of them; without a welcome the next hello tells them."""
        self._link.replica = replace(self._link.replica, keys=keys, commands=commands)
        self._declared += 1
        if welcome:
            self._alarms.hasten(Alarm.DECLARE, now)

    def declared(self, seq: int) -> None:
        """The broker has declarations."""
        if seq == self._declared:
            self._alarms.cancel(Alarm.DECLARE)

    def answer(self, revision: int, outcome: Outcome, now: float) -> list[Effect]:
        """Take what became of a revision, and send it: at once, unless another was sent a moment ago."""
        replica = self._link.replica
        outcome = replace(outcome, replica=replica.id, rank=replica.rank)
        together = self._outcomes_sent + OUTCOMES_GAP
        if now >= together and self.may_report and not self._outcomes.has_new:
            again = self._due_again(now)
            self._alarms.hasten(Alarm.OUTCOMES, again)
            return self._message(self._outcomes.send(revision, outcome, again), now)
        self._outcomes.add(revision, outcome, now)
        if self._open:
            self._alarms.hasten(Alarm.OUTCOMES, max(now, together))
        return []

    def send_outcomes(self, now: float) -> list[Effect]:
        """Send the new outcomes now, without waiting for others of the same moment."""
        return self._send_outcomes(now) if self.may_report else []

    def acknowledge(self, revisions: list[int]) -> None:
        """The broker has outcomes."""
        self._outcomes.acknowledge(revisions)
        if self._open and revisions:
            self._set_outcomes_alarm()

    def status_changed(self, now: float) -> None:
        """Phase or pause changed."""
        if self._open:
            self._alarms.hasten(Alarm.STATUS, max(now, self._status_sent + STATUS_GAP))

    def more_to_report(self, now: float) -> None:
        """There are points for another status already: it follows soon, or once the broker has read more."""
        self._more = self._open and not self._link.may_stream
        if self._open and not self._more:
            self._alarms.hasten(Alarm.STREAM, max(now, self._status_sent + STREAM_GAP))

    def credited(self, now: float) -> None:
        """The broker has read more."""
        if self._more:
            self.more_to_report(now)

    def may_collect(self, now: float, *, look: bool) -> bool:
        """Whether a status would be sent now; if only credit lacks, it is asked for again in time."""
        if self._open and not self._link.may_send:
            self._link.starve(Alarm.STATUS if look else Alarm.STREAM, now)
        return self.may_report

    def status(self, status: Status, revision: int, now: float) -> list[Effect]:
        """Send a status, with its number and the newest revision, behind what was declared before it."""
        if not self.may_report:
            return []
        untold = self._send_untold(now)
        self._status_seq += 1
        self._status_sent = now
        return [*untold, self._link.send(replace(status, seq=self._status_seq, revision=revision))]

    def publish(self, topic: str, payload: bytes, *, welcome: bool) -> list[Effect]:
        """Send a user's payload now or never."""
        seq = self._publish_seqs.next(topic)  # also when it is dropped: receivers see the gap
        if not welcome or not self._link.may_send:
            self._link.counters.publish_dropped += 1
            return []
        return [self._link.send(Publish(topic=topic, payload=payload, seq=seq))]

    def failed(self, failure: Failure) -> list[Effect]:
        """Take a failure, which comes again until it is acknowledged."""
        if not self._link.may_send:
            return []
        received = self._link.send(FailureReceived(id=failure.id))
        if failure.id in self._failures:
            return [received]
        self._failures.add(failure.id)
        return [received, Failed(failure)]

    def restart(self) -> None:
        """Another life of the broker counts its failures anew, and may not have what an earlier one had."""
        self._failures.clear()
        self._outcomes.doubt()

    # --- sending ------------------------------------------------------------------------------

    def send_due(self, alarm: Alarm, now: float) -> list[Effect]:
        """Send what the alarm is for."""
        match alarm:
            case Alarm.DECLARE:
                return self._send_declaration(now)
            case Alarm.OUTCOMES:
                return self._send_outcomes(now)
            case Alarm.STREAM:
                return [*self._send_untold(now), CollectStatus(look=False)]
        self._alarms.set(Alarm.STATUS, now + self._link.beat)
        return [*self._send_untold(now), CollectStatus()]

    def send_last(self, now: float) -> list[Effect]:
        """Send the outcomes that the broker may lack, all of them, as far as credit goes."""
        effects: list[Effect] = []
        self._outcomes.restart(now)
        while self.may_report and (sent := self._send_outcomes(now)):
            effects += sent
        return effects

    def _send_untold(self, now: float) -> list[Effect]:
        return [] if self._told == self._declared else self._send_declaration(now)

    def _send_declaration(self, now: float) -> list[Effect]:
        self._link.counters.resent += self._told == self._declared
        self._told = self._declared
        self._alarms.set(Alarm.DECLARE, now + INTERVAL)
        replica = self._link.replica
        return [self._link.send(Declare(seq=self._declared, keys=replica.keys, commands=replica.commands))]

    def _send_outcomes(self, now: float) -> list[Effect]:
        before = self._outcomes.resent
        outcomes = self._outcomes.due(now, self._due_again(now))
        self._link.counters.resent += self._outcomes.resent - before
        self._set_outcomes_alarm()
        return self._message(outcomes, now) if outcomes else []

    def _message(self, outcomes: dict[int, Outcome], now: float) -> list[Effect]:
        self._outcomes_sent = now
        return [self._link.send(Outcomes(epoch=self._link.welcome.epoch, outcomes=outcomes))]

    def _due_again(self, now: float) -> float:
        return now + RESEND_BEATS * self._link.beat

    def _set_outcomes_alarm(self) -> None:
        due = self._outcomes.next_due()
        if due is None:
            self._alarms.cancel(Alarm.OUTCOMES)
        else:
            self._alarms.set(Alarm.OUTCOMES, due)
