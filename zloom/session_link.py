"""A weavelet's connection on control: hello until it is welcomed, then credit in both directions. Pure."""

from collections.abc import Callable

from zloom.credit import CreditMeter
from zloom.effects import Send
from zloom.messages import PROTOCOL, Credit, FromWeavelet, Hello, Ping, Pong, Status, Welcome
from zloom.model import Replica
from zloom.session_effects import Effect, Say
from zloom.session_state import Alarm, Alarms, SessionCounters

INTERVAL = 1.0
"""Seconds until a hello, sync, declaration or echo without an answer is asked for again."""

SELDOM = 3.0
"""Seconds between hellos once a second pair of sockets has had no answer. One waits in the socket for the
connection, so to say more of them brings no answer sooner, and costs the training."""

HELLOS = 3
"""Hellos without an answer until the sockets are made anew, which empties what piled up in them."""

UNANSWERED_BEATS = 6
"""Beats without a word on control after which a connection is given up too: control alone may have died, and
not each system closes what is not acknowledged."""

MISSED_BEATS = 3
"""Beats without a word on updates, or without credit on control, until the connection is given up."""


class Link:
    """One connection after the other, each begun with a fresh nonce.

    Args:
        replica: Who this is; the newest of it goes into each hello.
        control: The endpoint of control, as this peer reached it.
        software: Name and version, for the broker's eyes.
        new_nonce: Returns 16 or more random characters, fresh at each call.
        inherit: Whether a new attempt begins with the config of the one before.
    """

    def __init__(
        self, replica: Replica, control: str, software: str, new_nonce: Callable[[], str], *, inherit: bool
    ) -> None:
        self.replica = replica
        self.control = control
        self.nonce = ""
        self.welcome = Welcome(protocol=0, epoch="", updates="", beat=0, credit=0, max_message_size=0)
        """The newest one."""
        self.alarms = Alarms()
        self.counters = SessionCounters()
        self.beat = 0.0
        """Seconds between two beats."""
        self.heard = 0.0
        """When the broker was heard last, or looked for first."""
        self.late = 0.0
        """Seconds after its time at which the newest alarm rang: this process did not run."""
        self._silent_since: float | None = None
        self._blamed = False
        """It was said of this silence that no broker answers, or why."""
        self._software = software
        self._new_nonce = new_nonce
        self._inherit = inherit
        self._credit = CreditMeter()
        self._starved: set[Alarm] = set()
        self._hellos = 0
        self._hello_interval = INTERVAL

    @property
    def patience(self) -> float:
        """Seconds of silence after which a connection is given up."""
        return MISSED_BEATS * self.beat

    def answered(self, now: float) -> None:
        """The broker answers on control, and will again: credit for each second status and for each sync that
        must wait, and pings where nothing is said.
        """
        self.alarms.set(Alarm.UNANSWERED, now + UNANSWERED_BEATS * self.beat)

    @property
    def exhausted(self) -> bool:
        """Whether as many hellos were said as make sense on one pair of sockets."""
        return self._hellos >= HELLOS

    # --- hello --------------------------------------------------------------------------------

    def begin(self, now: float) -> list[Effect]:
        """Begin a connection."""
        self.alarms.clear()
        self._starved.clear()
        self.nonce, self._hellos, self.heard = self._new_nonce(), 0, now
        return self.hello(now)

    def hello(self, now: float) -> list[Effect]:
        """Say hello, once more or for the first time."""
        self._hellos += 1
        self.counters.hellos += 1
        self._credit.said_hello()
        self.alarms.set(Alarm.HELLO, now + self._hello_interval)
        hello = Hello(
            protocols=[PROTOCOL],
            role="weavelet",
            software=self._software,
            endpoint=self.control,
            nonce=self.nonce,
            replica=self.replica,
            inherit=self._inherit,
        )
        return [Send(hello)]

    def wait(self, seconds: float, now: float) -> None:
        """The broker is there but cannot take this peer yet."""
        self._hellos = 0
        self.alarms.set(Alarm.HELLO, now + seconds)

    def silent(self) -> list[Effect]:
        """The broker does not answer: said once, however often it is tried again before it does.

        Where this process did not run, that is said first: the broker may well have answered.
        """
        known = self._silent_since is not None
        if known:
            self._hello_interval = SELDOM
        else:
            self._silent_since = self.heard
        if self.late > INTERVAL:
            text = (
                f"zloom could not run in this process for {self.late:.1f} s: it was stopped, or a call held "
                f"the GIL; the broker at {self.control} is asked again"
            )
            return [] if known else [Say(text)]
        if self._blamed:
            return []
        self._blamed = True
        return [Say(f"no broker answers at {self.control}; the training goes on, and it is tried again")]

    def explained(self) -> None:
        """It was said why no broker answers, so that it need not be said that none does."""
        self._blamed = True

    def answers(self, now: float) -> list[Effect]:
        """The broker took this peer: said if it was said before that none answers."""
        if self._silent_since is None:
            return []
        again, seconds = " again" if self.welcome.epoch else "", now - self._silent_since
        self._silent_since, self._blamed, self._hello_interval = None, False, INTERVAL
        return [Say(f"the broker at {self.control} answers{again} after {seconds:.1f} s")]

    def welcomed(self, welcome: Welcome) -> None:
        """The broker answered a hello."""
        self.welcome, self.beat = welcome, welcome.beat
        self.alarms.cancel(Alarm.HELLO)
        self._credit.welcomed(welcome.credit)

    # --- credit -------------------------------------------------------------------------------

    @property
    def may_send(self) -> bool:
        """Whether a message that can wait may be sent now."""
        return self._credit.may_send()

    @property
    def may_stream(self) -> bool:
        """Whether a message of which there are many may be sent now, and leave room for others."""
        return self._credit.may_stream()

    def send(self, message: FromWeavelet) -> Send:
        """Return the effect that sends a message, and count it."""
        self._credit.sent(streamed=isinstance(message, Status))
        return Send(message)

    def not_sent(self) -> None:
        """A message that was counted was dropped on this side."""
        self._credit.not_sent()

    def starve(self, alarm: Alarm, now: float) -> list[Effect]:
        """Put off what the alarm is for until the broker has read more."""
        if not self._starved:
            self.counters.starved += 1
            self.alarms.set(Alarm.STARVED, now + self.patience)
        self._starved.add(alarm)
        return []

    def acknowledged(self, received: int, now: float) -> None:
        """The broker told how much it has read: what was put off is due."""
        self._credit.acknowledged(received)
        if self._starved and self._credit.may_send():
            self.alarms.cancel(Alarm.STARVED)
            for alarm in self._starved:
                self.alarms.hasten(alarm, now)
            self._starved.clear()

    def received(self) -> None:
        """A message came on control."""
        self._credit.received()

    def pong(self, ping: Ping, now: float) -> Send:
        """Return the answer to a ping, which may not wait."""
        self.beat = ping.beat or self.beat
        self.acknowledged(ping.received, now)
        return self.send(Pong(id=ping.id, received=self._credit.tell()))

    def tell_credit(self) -> list[Effect]:
        """Tell the broker how far it was heard, if it is time to."""
        return [self.send(Credit(received=self._credit.tell()))] if self._credit.is_due() else []
