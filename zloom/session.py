"""The weavelet's side of the protocol as a state machine: no clock, no sockets, no threads.

Feed it messages and time; carry out the effects that each call returns, in order. `zloom.engine` does.

    new ──▶ connecting ──Welcome──▶ syncing ──Snapshot, Log──▶ active
              ▲  └──Error──▶ closed  │  ▲──────────gap───────────┤
              └──HelloRequired, another epoch, silence───────────┘
"""

from collections.abc import Callable

from msgspec.structs import replace

from zloom import messages
from zloom.effects import Reconnect
from zloom.history import History
from zloom.model import Command, Device, Key, Outcome, Replica
from zloom.outcome_table import sendable
from zloom.session_effects import Closed, Concluded, Decided, Effect, Hand, InspectThreads, Prepared, Warn
from zloom.session_link import INTERVAL, Link
from zloom.session_reports import Reports
from zloom.session_rounds import Insistent, Rounds
from zloom.session_state import Alarm, Event, SessionCounters, State, following
from zloom.session_updates import Updates
from zloom.updates_address import updates_endpoint


class Session:
    """One weavelet's conversation with a broker; not thread-safe. The arguments are those of `Link`."""

    def __init__(
        self,
        replica: Replica,
        control: str,
        software: str,
        new_nonce: Callable[[], str],
        *,
        inherit: bool = False,
    ) -> None:
        self.state = State.NEW
        self._link = Link(replica, control, software, new_nonce, inherit=inherit)
        self.counters: SessionCounters = self._link.counters
        self._alarms = self._link.alarms
        self._reports = Reports(self._link)
        self._rounds = Rounds(self._link)
        self._updates = Updates(replica.run, replica.attempt)
        self._history = History()

    @property
    def revision(self) -> int:
        """The newest revision that was delivered, 0 before the first."""
        return max(0, self._history.revision)

    @property
    def may_report(self) -> bool:
        """Whether a status would be sent now."""
        return self._reports.may_report

    # --- the trainer's side -------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Begin; control is open."""
        self._move(Event.STARTED)
        self._reports.disconnected()
        return self._link.begin(now)

    def declare(self, keys: list[Key], commands: list[Command], now: float) -> list[Effect]:
        """Tell which keys and commands there are from now on, when the timer rings or with the next hello."""
        self._reports.declare(keys, commands, now, welcome=self._is_welcome())
        return []

    def found_devices(self, devices: list[Device], now: float) -> list[Effect]:
        """Tell which devices the replica computes on. Only a hello can carry them."""
        self._link.replica = replace(self._link.replica, devices=devices)
        return [] if self.state in (State.NEW, State.CLOSED) else self._disconnect(now)

    def answer(self, revision: int, outcome: Outcome, now: float) -> list[Effect]:
        """Take what became of a revision, and send it; those that follow within a moment go together."""
        if revision > self.revision or self._history.is_of_another(revision, outcome.chain):
            self.counters.stale += 1  # of a history that a rollback has replaced meanwhile
            return []
        self._rounds.settled(revision)
        return self._reports.answer(revision, outcome, now)

    def send_outcomes(self, now: float) -> list[Effect]:
        """Send what was answered and is still to be sent."""
        return self._reports.send_outcomes(now)

    def insist(self, message: Insistent, now: float) -> list[Effect]:
        """Say something about a consistent revision, again and again until it is answered."""
        self._rounds.say(message, now, active=self.state is State.ACTIVE)
        return []

    def not_sent(self) -> None:
        """Take note that a message of the newest effects was dropped on this side."""
        self._link.not_sent()

    def status_changed(self, now: float) -> list[Effect]:
        """Have a status collected soon, because phase or pause changed."""
        self._reports.status_changed(now)
        return []

    def more_to_report(self, now: float) -> list[Effect]:
        """Have another status collected before the next beat, because there are many points."""
        self._reports.more_to_report(now)
        return []

    def may_collect(self, now: float, *, look: bool) -> bool:
        """Whether a status that is to be collected can be sent; if not, it is asked for again in time."""
        return self._reports.may_collect(now, look=look)

    def status(self, status: messages.Status, now: float) -> list[Effect]:
        """Send a status that was collected; its `seq` and `revision` are filled in here."""
        return self._reports.status(status, self.revision, now)

    def stacks(self, taken: messages.StacksTaken) -> list[Effect]:
        """Tell what the threads do, now or never: later it is not true any more."""
        return [self._link.send(taken)] if self._is_welcome() and self._link.may_send else []

    def publish(self, topic: str, payload: bytes) -> list[Effect]:
        """Publish on a user's own topic, at most once; what cannot be sent now is dropped and counted."""
        return self._reports.publish(topic, payload, welcome=self._is_welcome())

    def subscribe(self, topic: str) -> list[Effect]:
        """Have payloads on own topics that begin with `topic` handed over."""
        return self._updates.add(topic)

    def close(self, reason: str, step: int, now: float) -> list[Effect]:
        """Leave. The broker ends what was not answered as not reached.

        Args:
            reason: In words, for operators: `finished`, `failed: …`.
            step: The last step that was begun.
            now: Seconds.
        """
        effects = self._reports.send_last(now)
        farewell = self._is_welcome()
        if farewell:
            effects.append(self._link.send(messages.Goodbye(reason=sendable(reason), step=step)))
        self._move(Event.LEFT)
        self._reports.disconnected()
        self._alarms.clear()
        return [*effects, Closed(farewell)]

    # --- time ---------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Return when `on_timer` wants to be called next, or None."""
        return self._alarms.next()

    def on_timer(self, now: float) -> list[Effect]:
        """Do what is due."""
        effects: list[Effect] = []
        due = self.next_timer()
        self._link.late = 0.0 if due is None else now - due
        while (alarm := self._alarms.take_due(now)) is not None:
            effects += self._ring(alarm, now)
        return effects

    def _ring(self, alarm: Alarm, now: float) -> list[Effect]:
        match alarm:
            case Alarm.HELLO:
                return self._reconnect(now) if self._link.exhausted else self._link.hello(now)
            case Alarm.SILENCE | Alarm.UNANSWERED:
                return self._reconnect(now)
            case Alarm.STARVED:
                return self._disconnect(now)  # what was lost on the way would starve this side for ever
            case Alarm.ECHO:
                self._alarms.set(Alarm.ECHO, now + INTERVAL)
                return self._updates.ask_again()
        if not self._link.may_send:
            return self._link.starve(alarm, now)
        match alarm:
            case Alarm.SYNC:
                return self._ask_for_history(now)
            case Alarm.ROUNDS:
                return self._rounds.send(now)
        return self._reports.send_due(alarm, now)

    # --- messages -----------------------------------------------------------------------------

    def receive_control(self, message: messages.FromBroker, now: float) -> list[Effect]:
        """Take a message from control."""
        self._link.received()
        if self.state is State.CONNECTING:
            return self._receive_unwelcome(message, now)
        if not self._is_welcome():
            self.counters.stale += 1
            return []
        self._link.answered(now)
        effects = self._receive(message, now)
        return effects + self._link.tell_credit() if self._is_welcome() else effects

    def refused(self) -> None:
        """The broker's socket has refused this side's, and that was said."""
        self._link.explained()

    def receive_unreadable(self, *, unknown_type: bool, control: bool = True) -> None:
        """Take note of something that is no message, or none that this version knows."""
        if control:
            self._link.received()  # the broker counts it too
        self.counters.unknown_types += unknown_type
        self.counters.bad_messages += not unknown_type

    def receive_update(self, topic: bytes, message: messages.Published, now: float) -> list[Effect]:
        """Take a message from updates."""
        if not self._is_welcome():
            return []
        self.counters.missed += self._updates.see(topic, message)
        self._link.heard = now
        if isinstance(message, messages.Beat):
            self._link.beat = message.beat or self._link.beat
        self._alarms.set(Alarm.SILENCE, now + self._link.patience)
        match message:
            case messages.Revised() | messages.Beat() if message.epoch != self._link.welcome.epoch:
                return self._disconnect(now)
            case messages.Revised() if topic == self._updates.steer:
                return self._history.take(message.revision) + self._check_history(now)
            case messages.Beat():
                self._history.told(message.revision or 0)
                return self._check_history(now)
            case messages.Echo() if self._updates.is_awaited(message):
                self._updates.echoed = True
                self._alarms.cancel(Alarm.ECHO)
                return self._ask_for_history(now)
            case messages.Own():
                return [Hand(message)]
        return []

    def _receive_unwelcome(self, message: messages.FromBroker, now: float) -> list[Effect]:
        match message:
            case messages.Welcome():
                return self._welcomed(message, now)
            case messages.Wait():
                self._link.wait(message.retry, now)
                return [Warn("waiting", f"the broker does not take this replica yet: {message.reason}")]
            case messages.Error():
                self.counters.errors += 1
                self._move(Event.REFUSED)
                self._alarms.clear()
                text = f"the broker refuses this replica, which trains on unsteered: {message.text}"
                return [Warn("refused", text), Closed(farewell=False)]
        self.counters.stale += 1
        return []

    def _receive(self, message: messages.FromBroker, now: float) -> list[Effect]:
        match message:
            case messages.Welcome():
                return self._welcomed_again(message, now)
            case messages.HelloRequired():
                return self._disconnect(now)
            case messages.Ping():
                pong = self._link.pong(message, now)
                self._reports.acknowledge(message.recorded)
                self._reports.credited(now)
                return [pong]
            case messages.Credit():
                self._link.acknowledged(message.received, now)
                self._reports.credited(now)
            case messages.Snapshot() | messages.Log():
                return self._take_history(message, now)
            case messages.Prepare() | messages.Decision() | messages.Conclusion():
                return self._receive_round(message, now)
            case messages.Declared():
                self._reports.declared(message.seq)
            case messages.TakeStacks():
                return [InspectThreads(message.id)]
            case messages.Failure():
                return self._reports.failed(message)
            case messages.Error():
                self.counters.errors += 1
                return [Warn(f"error {message.code}", f"the broker complains: {message.text}")]
            case _:
                self.counters.unknown_types += 1
        return []

    def _receive_round(
        self, message: messages.Prepare | messages.Decision | messages.Conclusion, now: float
    ) -> list[Effect]:
        match message:
            case messages.Decision():
                self._rounds.decided(message)
                return [Decided(message)]
            case messages.Conclusion():
                self._rounds.concluded(message)
                return [Concluded(message)]
        if self.state is not State.ACTIVE or message.epoch != self._link.welcome.epoch:
            self.counters.stale += 1
            return []
        # It may come before its revision is published, or instead: an outcome counts only when that is known.
        effects = self._history.take(message.revision) + self._check_history(now)
        if self._history.incomplete:
            return effects  # revisions before it are still on their way; another round will come
        return [*effects, Prepared(message)]

    # --- connecting ---------------------------------------------------------------------------

    def _move(self, event: Event) -> None:
        self.state = following(self.state, event)

    def _is_welcome(self) -> bool:
        return self.state in (State.SYNCING, State.ACTIVE)

    def _disconnect(self, now: float) -> list[Effect]:
        self._move(Event.DISCONNECTED)
        self._reports.disconnected()
        return self._link.begin(now)

    def _reconnect(self, now: float) -> list[Effect]:
        self.counters.reconnects += 1
        self._updates.closed()
        silent = self._link.silent()
        return [Reconnect(), *self._disconnect(now), *silent]

    def _welcomed(self, welcome: messages.Welcome, now: float) -> list[Effect]:
        if welcome.epoch != self._link.welcome.epoch:
            self._reports.restart()
            self._updates.restart()
        back = self._link.answers(now)
        self._link.welcomed(welcome)
        self._link.answered(now)
        self._move(Event.WELCOMED)
        self._history.connected()
        self._alarms.set(Alarm.SILENCE, now + self._link.patience)
        self._alarms.set(Alarm.ECHO, now + INTERVAL)
        self._reports.welcomed(now)
        updates = updates_endpoint(welcome.updates, self._link.control)
        return [*self._updates.connected(updates, self._link.nonce), *back]

    def _welcomed_again(self, welcome: messages.Welcome, now: float) -> list[Effect]:
        if welcome.epoch != self._link.welcome.epoch:
            return self._disconnect(now)
        self._link.welcomed(welcome)  # a hello was said twice: the broker has begun to count anew
        return []

    # --- history ------------------------------------------------------------------------------

    def _ask_for_history(self, now: float) -> list[Effect]:
        if not self._link.may_send:
            return self._link.starve(Alarm.SYNC, now)
        self.counters.syncs += 1
        self._alarms.set(Alarm.SYNC, now + INTERVAL)
        return [self._link.send(self._history.question(self._link.nonce))]

    def _take_history(self, message: messages.Snapshot | messages.Log, now: float) -> list[Effect]:
        if self.state is not State.SYNCING or message.epoch != self._link.welcome.epoch:
            self.counters.stale += 1
            return []
        if isinstance(message, messages.Log):
            effects = self._history.take_log(message)
        else:
            effects = self._history.take_snapshot(message)
            if effects and message.rolled_back:
                self._reports.rolled_back()
        if not self._history.incomplete:
            self._move(Event.CAUGHT_UP)
            self._alarms.cancel(Alarm.SYNC)
            self._reports.resume(now)
            self._rounds.resume(now)
        elif effects:  # it gets on, so there is no need to wait until the alarm asks again
            effects += self._ask_for_history(now)
        return effects

    def _check_history(self, now: float) -> list[Effect]:
        if self.state is not State.ACTIVE or not self._history.incomplete:
            return []
        self._move(Event.FELL_BEHIND)
        return self._ask_for_history(now)
