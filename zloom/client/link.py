"""Sockets, timer and waiters of an operator: it feeds an `OperatorSession` and carries out its effects."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from zloom import codec, leaving
from zloom.client.answers import Answers, Asked
from zloom.client.effects import (
    Confirmed,
    Connected,
    Deliver,
    Effect,
    Rejected,
    Silent,
    SubscriptionRefused,
)
from zloom.client.feeds import Feed
from zloom.client.requests import Answered
from zloom.client.results import OperatorCounters, Silence
from zloom.client.session import OperatorSession
from zloom.effects import Connect, Reconnect, Send, Subscribe, Unsubscribe
from zloom.errors import (
    BrokerUnreachable,
    Refused,
    RemoteProtocolError,
    SettingsError,
    TransportError,
    ZloomError,
)
from zloom.handshakes import HandshakeFailure
from zloom.messages import Answer, FromOperator, ToBroker
from zloom.socket_options import Context, SocketOptions
from zloom.sockets import DrainSocket
from zloom.version import __version__

LINGER = 0.3
"""Seconds for what was published just before the end; nobody at the other end must not cost more."""


def fresh_id() -> str:
    """Return 32 random hex digits: unique for ever, as a request's id must be."""
    return secrets.token_hex(16)


def chosen_id(request_id: str | None) -> str:
    """Return the id that the caller chose for a request, or a fresh one for None.

    Raises:
        SettingsError: It is empty, as of a script's variable that was never set: a repetition would have a
            second effect.
    """
    if request_id is None:
        return fresh_id()
    if not request_id:
        raise SettingsError("the request id is empty; expected 1 to 128 characters that no other request has")
    return request_id


class OperatorLink:
    """One operator's connection; all methods belong to the running loop's thread.

    Args:
        endpoint: Of the broker's control.
        user: Who this operator says that it is.
        context: Of the sockets; the caller terminates it after `close`.
        options: Of the sockets.
    """

    def __init__(self, endpoint: str, user: str, context: Context, options: SocketOptions) -> None:
        self.endpoint = endpoint
        self._context = context
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._session = OperatorSession(user, f"zloom {__version__}", endpoint, fresh_id)
        self._timer: asyncio.TimerHandle | None = None
        self._connected = asyncio.Event()
        self._asked: dict[str, Asked] = {}
        self._feeds: list[Feed[Any]] = []
        self._silent_since: float | None = None
        self._on_silence: list[Callable[[Silence], None]] = []
        self._bad_messages = 0
        self._failure: ZloomError | None = None
        self._handshake = ""
        """Why the newest attempt to connect failed, if that is known."""
        self._updates: DrainSocket | None = None
        self._control = self._open_control()

    # --- life ---------------------------------------------------------------------------------

    async def connect(self, timeout: float) -> None:  # noqa: ASYNC109 - its end has a text of its own
        """Say hello and wait for the welcome.

        Args:
            timeout: Seconds.

        Raises:
            BrokerUnreachable: No broker answered in time.
            Refused: The broker does not take this operator.
        """
        self._run(self._session.start(self._loop.time()))
        try:
            async with asyncio.timeout(timeout):
                await self._connected.wait()
        except TimeoutError:
            raise self._unreachable(timeout) from None
        self._check()

    def close(self) -> None:
        """Close the sockets; whoever still waits gets a TransportError, and feeds end."""
        if self._failure is None:
            self._fail(TransportError(f"the operator of {self.endpoint} is closed; connect anew"), quiet=True)
        if not self._control.closed:
            self._run(self._session.close())
        if self._timer is not None:
            self._timer.cancel()
        self._control.close(round(1000 * leaving.linger(self.endpoint, LINGER)))
        if self._updates is not None:
            self._updates.close()

    @property
    def silent_for(self) -> float | None:
        """For how many seconds the broker has not answered; None while it does."""
        return None if self._silent_since is None else self._loop.time() - self._silent_since

    def on_silence(self, told: Callable[[Silence], None]) -> None:
        """Have a function called when the broker falls silent, and when it answers again."""
        self._on_silence.append(told)

    @property
    def counters(self) -> OperatorCounters:
        """A snapshot."""
        counted = self._session.counters
        return OperatorCounters(
            requests_open=len(self._session.requests),
            requests_resent=self._session.requests.resent,
            reconnects=counted["reconnects"],
            late_answers=counted["late_answers"],
            bad_messages=self._bad_messages + counted["unexpected_messages"],
            errors=counted["errors"],
            publish_dropped=counted["publish_dropped"],
        )

    # --- requests -----------------------------------------------------------------------------

    async def ask(self, message: FromOperator, timeout: float) -> Answer:  # noqa: ASYNC109 - as above
        """Make a request and return its first answer.

        Raises:
            Refused: The broker refused it.
            BrokerUnreachable: No answer within `timeout` seconds.
            LocalProtocolError: The request is too long to be sent.
        """
        with self.asked(message) as answers:
            try:
                async with asyncio.timeout(timeout):
                    return await answers.next()
            except TimeoutError:
                raise self.unanswered(message.id, timeout) from None

    @contextmanager
    def asked(self, message: FromOperator) -> Iterator[Answers]:
        """Make a request; within the context its answers can be waited for.

        The same request made twice at a time is one, of which both callers get the answers.

        Raises:
            Refused: Another request under its id is open.
            LocalProtocolError: The request is too long to be sent.
        """
        self._check()
        body = codec.encode(message)  # what cannot be sent is the caller's to know, not the timer's
        is_new = message.id not in self._asked
        asked = self._asked.setdefault(message.id, Asked(body))
        if asked.body != body:
            text = f"another request with the id {message.id!r} is still open; use a fresh id"
            raise Refused("request_id_reused", text)
        answers = asked.join()
        try:
            if is_new:
                self._run(self._session.request(message, self._loop.time()))
            yield answers
        finally:
            if asked.leave(answers):
                del self._asked[message.id]
                self._session.drop(message.id)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish on a user's own topic, at most once."""
        self._check()
        self._run(self._session.publish(topic, payload))

    # --- feeds --------------------------------------------------------------------------------

    def add_feed(self, feed: Feed[Any]) -> None:
        """Subscribe for a feed."""
        self._check()
        self._feeds.append(feed)
        self._run(self._session.subscribe(feed.topic, self._loop.time()))

    def remove_feed(self, feed: Feed[Any]) -> None:
        """Undo `add_feed`."""
        if feed in self._feeds:
            self._feeds.remove(feed)
            if self._failure is None:
                self._run(self._session.unsubscribe(feed.topic))

    # --- effects ------------------------------------------------------------------------------

    def _run(self, effects: list[Effect]) -> None:
        try:
            for effect in effects:
                self._carry_out(effect)
        finally:
            self._set_timer()  # whatever happened, time goes on: it asks again, or opens the sockets anew

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._send(effect.message)
            case Answered():
                self._hand_over(effect)
            case Deliver():
                self._deliver(effect)
            case Connected():
                self._on_connected(effect)
            case Silent():
                self._silent_since = effect.since
                self._tell(Silence(self._loop.time() - effect.since, over=False))
            case SubscriptionRefused():
                for feed in [each for each in self._feeds if each.topic == effect.topic]:
                    feed.end(Refused(effect.code, effect.text))
            case Rejected():
                self._fail(Refused(effect.code, effect.text))
            case Reconnect():
                self._reopen()
            case Connect():
                self._open_updates(effect.endpoint)
            case Subscribe() if self._updates is not None:
                self._updates.subscribe(effect.topic)
            case Unsubscribe() if self._updates is not None:
                self._updates.unsubscribe(effect.topic)
            case Confirmed():
                for feed in self._feeds:
                    if feed.topic in effect.topics:
                        feed.confirm()

    def _send(self, message: ToBroker) -> None:
        sent = False
        try:
            sent = self._control.send(codec.control_frames(message))
        finally:
            if not sent:
                self._session.not_sent()

    def _hand_over(self, answered: Answered) -> None:
        asked = self._asked.get(answered.request)
        if asked is not None:
            asked.put(answered)

    def _deliver(self, effect: Deliver) -> None:
        for feed in self._feeds:
            if effect.topic.startswith(feed.topic):
                feed.put(effect.topic, effect.message)

    def _on_connected(self, connected: Connected) -> None:
        self._connected.set()
        if connected.epoch_changed:
            for feed in self._feeds:
                feed.restart()
        if connected.silence is not None or connected.epoch_changed:
            self._silent_since = None
            self._tell(Silence(connected.silence or 0.0, over=True, restarted=connected.epoch_changed))

    def _tell(self, silence: Silence) -> None:
        for told in self._on_silence:
            told(silence)

    def _set_timer(self) -> None:
        when = self._session.next_timer() if self._failure is None else None
        if self._timer is not None:
            # One that rings too early sees that. One made anew at each turn of a busy loop never rings.
            if when is not None and self._timer.when() <= when:
                return
            self._timer.cancel()
            self._timer = None
        if when is not None:
            self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        try:
            self._run(self._session.on_timer(self._loop.time()))
        except TransportError:
            self._session.counters["transport_errors"] += 1  # nobody called; the next timer tries again

    # --- sockets ------------------------------------------------------------------------------

    def _open_control(self) -> DrainSocket:
        socket = DrainSocket(self._context, "dealer", self._on_control, options=self._options)
        try:
            if self.endpoint.startswith("tcp://"):
                socket.watch_handshakes(self._on_handshake_failed)
            socket.connect(self.endpoint)
        except BaseException:
            socket.close()
            raise
        return socket

    def _open_updates(self, endpoint: str) -> None:
        if self._updates is not None:
            self._updates.close()
        self._updates = DrainSocket(self._context, "sub", self._on_updates, options=self._options)
        self._updates.connect(endpoint)

    def _reopen(self) -> None:
        self._control.close()
        if self._updates is not None:
            self._updates.close()
            self._updates = None
        self._control = self._open_control()

    def _on_handshake_failed(self, failure: HandshakeFailure) -> None:
        self._handshake = failure.text
        # A broker that was there already may be in the middle of getting other keys.
        if failure.final and not self._connected.is_set():
            self._fail(Refused("unauthenticated", f"cannot connect to {self.endpoint}: {failure.text}"))

    def _on_control(self, frames: list[bytes]) -> None:
        try:
            message = codec.from_broker.decode(codec.control_payload(frames))
        except RemoteProtocolError:
            self._bad_messages += 1
            return
        self._run(self._session.receive(message, self._loop.time()))

    def _on_updates(self, frames: list[bytes]) -> None:
        try:
            topic, payload = frames
            message = codec.published.decode(payload)
        except (ValueError, RemoteProtocolError):
            self._bad_messages += 1
            return
        self._run(self._session.receive_update(topic, message, self._loop.time()))

    # --- errors -------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: ZloomError, *, quiet: bool = False) -> None:
        self._failure = error
        self._connected.set()
        for asked in self._asked.values():
            asked.put(error)
        for feed in self._feeds:
            feed.end(None if quiet else error)

    def _unreachable(self, timeout: float) -> BrokerUnreachable:
        heard = self._session.last_error or self._handshake
        said = f" (the last that was heard: {heard})" if heard else ""
        return BrokerUnreachable(
            f"no broker answered at {self.endpoint} within {timeout:g} s{said}; start one with "
            "`zloom broker`, or name another with --broker or ZLOOM_BROKER"
        )

    def unanswered(self, request: str, timeout: float) -> BrokerUnreachable:
        """Return the error of a request that was not answered within `timeout` seconds."""
        said = f"; it last said: {self._session.last_error}" if self._session.last_error else ""
        if self._handshake:
            said += f"; {self._handshake}"
        if self._bad_messages:
            said += f"; {self._bad_messages} of its messages could not be read"
        return BrokerUnreachable(
            f"the broker at {self.endpoint} did not answer request {request} within {timeout:g} s{said}; if "
            "it was for a change, whether it was accepted is unknown: look at the history, or ask again "
            "under the same request id"
        )
