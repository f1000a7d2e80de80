"""The operator's side of the protocol as a state machine: no clock, no sockets, no tasks.

Feed it messages and time; carry out the effects that each call returns, in order. `zloom.client.link` does.

    connecting ──Welcome──▶ connected ──HelloRequired, another epoch, silence──▶ connecting
         └──Error──▶ refused
"""

import enum
from collections import Counter
from collections.abc import Callable
from typing import get_args

from zloom.client.effects import Connected, Deliver, Effect, Rejected, Silent, SubscriptionRefused
from zloom.client.requests import RequestTable
from zloom.client.subscriptions import Subscriptions
from zloom.credit import CreditMeter
from zloom.effects import Reconnect, Send
from zloom.gaps import PublishSeqs
from zloom.messages import (
    PROTOCOL,
    Answer,
    Beat,
    Credit,
    Echo,
    Error,
    FromBroker,
    FromOperator,
    Goodbye,
    Hello,
    HelloRequired,
    Ping,
    Pong,
    Publish,
    Published,
    Revised,
    ToBroker,
    Wait,
    Welcome,
)
from zloom.updates_address import updates_endpoint

HELLO_INTERVAL = 1.0
"""Seconds between hellos: the connection itself is retried by libzmq within a second."""

HELLOS = 3
"""Hellos without an answer until the sockets are made anew, which empties what piled up in them."""

MISSED_BEATS = 3
"""Beats without a word, on control while a request is open, until the sockets are made anew. A connection
that a stopped or partitioned broker left behind can look alive for longer."""

_ANSWERS = get_args(Answer)


class State(enum.Enum):
    """Where an operator's connection stands."""

    CONNECTING = enum.auto()
    CONNECTED = enum.auto()
    REFUSED = enum.auto()


class OperatorSession:
    """One operator's conversation with a broker; not thread-safe.

    Args:
        user: Who this operator says that it is, `name@host`.
        software: Name and version, for the broker's eyes.
        control: The endpoint of control, of which the host may be needed to reach updates.
        new_id: Returns 16 or more random characters, fresh at each call.
    """

    def __init__(self, user: str, software: str, control: str, new_id: Callable[[], str]) -> None:
        self._user = user
        self._software = software
        self._control = control
        self._new_id = new_id
        self._subscriptions = Subscriptions()
        self._welcome: Welcome | None = None
        self._beat = HELLO_INTERVAL
        """Seconds between two beats."""
        self._nonce = ""
        self._hellos = 0
        self._hello_due = 0.0
        self._heard = 0.0
        self._silent_since: float | None = None
        self._credit = CreditMeter()
        self._starved_since: float | None = None
        self._publish_seqs = PublishSeqs()
        self.state = State.CONNECTING
        self.requests = RequestTable(new_id)
        """Only to be read."""
        self.last_error = ""
        """What the broker last complained of, if it did."""
        self.counters: Counter[str] = Counter()

    # --- what the caller wants ----------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Begin; control is open."""
        return self._say_hello(now)

    def close(self) -> list[Effect]:
        """Leave: the broker need not find out that this operator is gone."""
        return [self._counted(Goodbye())] if self._welcome else []

    def not_sent(self) -> None:
        """Take note that a message of the newest effects was dropped on this side."""
        self._credit.not_sent()

    def request(self, message: FromOperator, now: float) -> list[Effect]:
        """Make a request, answered by `Answered` under its id, once or until its revision is settled."""
        if not self.requests:
            self._heard = now
        self.requests.add(message, now)
        return self._send_due(now)

    def drop(self, request: str) -> None:
        """Wait no longer for an answer."""
        self.requests.drop(request)

    def publish(self, topic: str, payload: bytes) -> list[Effect]:
        """Publish on a user's own topic, at most once; what cannot be sent now is dropped and counted."""
        seq = self._publish_seqs.next(topic)  # also when it is dropped: receivers see the gap
        if self.state is not State.CONNECTED or not self._credit.may_send():
            self.counters["publish_dropped"] += 1
            return []
        return [self._counted(Publish(topic=topic, payload=payload, seq=seq))]

    def subscribe(self, topic: bytes, now: float) -> list[Effect]:
        """Subscribe to a topic; `Confirmed` follows."""
        endpoint = self._updates() if self.state is State.CONNECTED else ""
        return self._subscriptions.add(topic, endpoint, now)

    def unsubscribe(self, topic: bytes) -> list[Effect]:
        """Undo one `subscribe`."""
        return self._subscriptions.remove(topic)

    # --- time ---------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Return when `on_timer` wants to be called next, or None."""
        if self.state is State.CONNECTING:
            return self._hello_due
        if self.state is not State.CONNECTED:
            return None
        starved = self._starved_since
        asks = self.requests.next_due() if starved is None else starved + self._patience
        timers = self._subscriptions.next_timer(), self._silent_at(), asks
        return min([when for when in timers if when is not None], default=None)

    def on_timer(self, now: float) -> list[Effect]:
        """Do what is due."""
        if self.state is State.CONNECTING and now >= self._hello_due:
            return self._reopen(self._heard, now) if self._hellos >= HELLOS else self._send_hello(now)
        if self.state is not State.CONNECTED:
            return []
        silent_at = self._silent_at()
        if silent_at is not None and now >= silent_at:
            return self._reopen(silent_at - self._patience, now)
        if self._starved_since is not None and now >= self._starved_since + self._patience:
            return self._say_hello(now)  # a lost Credit would starve this side for ever
        return self._send_due(now) + self._subscriptions.on_timer(now)

    @property
    def _patience(self) -> float:
        """Seconds of silence after which a connection is given up."""
        return MISSED_BEATS * self._beat

    def _silent_at(self) -> float | None:
        updates = self._subscriptions.silent_at(self._patience)
        if not self.requests:
            return updates
        control = self._heard + self._patience
        return control if updates is None else min(control, updates)

    # --- messages -----------------------------------------------------------------------------

    def receive(self, message: FromBroker, now: float) -> list[Effect]:
        """Take a message from control."""
        self._heard = now
        self._credit.received()
        match message:
            case Welcome():
                return self._welcomed(message, now)
            case Wait():
                return self._told_to_wait(message, now)
            case HelloRequired():
                return self._say_hello(now) if self.state is State.CONNECTED else []
            case Error():
                return self._complained(message)
            case Credit():
                return self._credited(message.received, now) + self._tell_credit()
            case Ping():
                return self._ponged(message, now)
        return self._answered(message, now) + self._tell_credit()

    def receive_update(self, topic: bytes, message: Published, now: float) -> list[Effect]:
        """Take a message from updates."""
        self._subscriptions.heard(now)
        match message:
            case Echo():
                effects = self._subscriptions.echoed(message.nonce, now)
            case Beat():
                self._beat = message.beat or self._beat
                effects = []
            case _:
                effects = [Deliver(topic, message)]
        if isinstance(message, Beat | Revised) and self._is_other_epoch(message.epoch):
            effects += self._say_hello(now)
        return effects

    def _is_other_epoch(self, epoch: str) -> bool:
        return self.state is State.CONNECTED and self._welcome is not None and epoch != self._welcome.epoch

    def _answered(self, message: FromBroker, now: float) -> list[Effect]:
        if not isinstance(message, _ANSWERS):
            self.counters["unexpected_messages"] += 1
            return []
        answered = self.requests.receive(message, now)
        if not answered:
            self.counters["late_answers"] += 1
        return list(answered)

    def _complained(self, error: Error) -> list[Effect]:
        self.last_error = error.text
        self.counters["errors"] += 1
        if error.topic:
            return [SubscriptionRefused(error.topic.encode(), error.code, error.text)]
        if self.state is not State.CONNECTING:
            return []
        self.state = State.REFUSED
        return [Rejected(error.code, error.text)]

    # --- connecting ---------------------------------------------------------------------------

    def _say_hello(self, now: float) -> list[Effect]:
        self.state = State.CONNECTING
        self._nonce = self._new_id()
        self._hellos = 0
        self._starved_since = None
        return self._send_hello(now)

    def _send_hello(self, now: float) -> list[Effect]:
        self._hellos += 1
        self._hello_due = now + HELLO_INTERVAL
        self._credit.said_hello()
        hello = Hello(
            protocols=[PROTOCOL],
            role="operator",
            user=self._user,
            software=self._software,
            endpoint=self._control,
            nonce=self._nonce,
        )
        return [Send(hello)]

    def _reopen(self, since: float, now: float) -> list[Effect]:
        self.counters["reconnects"] += 1
        self._subscriptions.closed()
        silent: list[Effect] = []
        if self._welcome is not None and self._silent_since is None:
            self._silent_since = since
            silent = [Silent(since)]
        return [*silent, Reconnect(), *self._say_hello(now)]

    def _told_to_wait(self, wait: Wait, now: float) -> list[Effect]:
        self.last_error = wait.reason
        self._hellos = 0
        self._hello_due = now + wait.retry
        return []

    def _welcomed(self, welcome: Welcome, now: float) -> list[Effect]:
        self._credit.welcomed(welcome.credit)
        if self.state is not State.CONNECTING:
            return []  # the answer to a hello that was sent twice
        before, self._welcome = self._welcome, welcome
        self._beat = welcome.beat
        self.state = State.CONNECTED
        self.requests.restart(now)
        changed = before is not None and before.epoch != welcome.epoch
        silence = None if self._silent_since is None else now - self._silent_since
        self._silent_since = None
        subscribed = self._subscriptions.connected(self._updates(), self._nonce, now)
        return [Connected(epoch_changed=changed, silence=silence), *subscribed, *self._send_due(now)]

    def _updates(self) -> str:
        return updates_endpoint(self._welcome.updates, self._control) if self._welcome else ""

    # --- credit and requests --------------------------------------------------------------------

    def _counted(self, message: ToBroker) -> Send:
        self._credit.sent()
        return Send(message)

    def _credited(self, received: int, now: float) -> list[Effect]:
        self._credit.acknowledged(received)
        self._starved_since = None
        return self._send_due(now)

    def _ponged(self, ping: Ping, now: float) -> list[Effect]:
        self._beat = ping.beat or self._beat
        pong = self._counted(Pong(id=ping.id, received=self._credit.tell()))
        return [pong, *self._credited(ping.received, now)]

    def _tell_credit(self) -> list[Effect]:
        return [self._counted(Credit(received=self._credit.tell()))] if self._credit.is_due() else []

    def _send_due(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self.state is not State.CONNECTED or self._starved_since is not None:
            return effects
        while (message := self.requests.first_due(now)) is not None:
            if not self._credit.may_send():
                self._starved_since = now
                break
            self.requests.sent(message, now)
            effects.append(self._counted(message))
        return effects
