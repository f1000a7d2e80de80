"""Sockets, timer and devices of a weavelet: it feeds a `Session` and carries out its effects."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

from zloom import leaving
from zloom.delivery import Delivery
from zloom.device_watch import DeviceWatch
from zloom.devices import DeviceProbe
from zloom.effects import Connect, Reconnect, Send, Subscribe, Unsubscribe
from zloom.endpoints import is_deserted
from zloom.errors import (
    LocalProtocolError,
    RemoteProtocolError,
    TransportError,
    UnknownMessageType,
)
from zloom.handshakes import HandshakeFailure
from zloom.hold_watch import HoldWatch
from zloom.introduction import Awaited, Introduction
from zloom.messages import Confirm, FromBroker, Published, StacksTaken, ToBroker
from zloom.metrics import nobody
from zloom.model import MAX_METRIC_NAME, MAX_METRICS, Device, DeviceStatus, Outcome, Replica
from zloom.promises import Promises
from zloom.restoring import Restore
from zloom.rounds import Round
from zloom.security import ClientKey, with_key
from zloom.series import points_in
from zloom.session import Session
from zloom.session_effects import (
    Closed,
    CollectStatus,
    Concluded,
    Decided,
    Deliver,
    Effect,
    Failed,
    Hand,
    InspectThreads,
    Prepared,
    Say,
    Warn,
)
from zloom.session_sockets import SessionSockets
from zloom.session_state import SessionCounters, State
from zloom.settings import WeaveletSettings
from zloom.socket_options import Context, new_context
from zloom.stack_source import take
from zloom.status_source import NO_SAFE_POINT, StatusSource
from zloom.training import Training
from zloom.version import __version__

SURPLUS_METRICS = (
    f"a replica has {MAX_METRICS} metrics, with names of {MAX_METRIC_NAME} characters of Unicode at most; "
    "points of others are dropped and counted (is the step in the name?), those first of"
)


@dataclass(frozen=True, slots=True)
class WeaveletCounters:
    """What a weavelet dropped, missed or repeated since it began."""

    session: SessionCounters
    points_dropped: int
    """Points of metrics that were kept and lost."""
    points_refused: int
    """Values that were no numbers."""
    unsent: int
    """Messages that were too long, or that the socket had no room for."""


class Engine:
    """Runs a session on the running loop; all methods belong to its thread.

    Args:
        replica: Who this is; keys, commands and devices are filled in here.
        endpoint: Of the broker's control.
        training: Whom revisions are for, and of whom to report.
        settings: See `WeaveletSettings`.
        key: For a broker on TCP, which may want one.
        inherit: Whether a new attempt begins with the config of the one before.
        probe: Of the devices; by default one that looks for NVML.
        context: Of the sockets; by default one of its own.

    Raises:
        TransportError: The endpoint is malformed, or the loop cannot watch sockets.
    """

    def __init__(
        self,
        replica: Replica,
        endpoint: str,
        training: Training,
        settings: WeaveletSettings,
        *,
        key: ClientKey | None = None,
        inherit: bool = False,
        probe: DeviceProbe | None = None,
        context: Context | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._endpoint = endpoint
        self._training = training
        self._settings = settings
        self._session = Session(
            replica, endpoint, f"zloom {__version__}", lambda: secrets.token_hex(8), inherit=inherit
        )
        self._delivery = Delivery(training, self.answer, together=replica.world_size > 1 or replica.resumed)
        self._promises = Promises(training.mailbox, lambda: training.step)
        self._status = StatusSource(training, settings.status_points, together=replica.world_size > 1)
        self._holds = HoldWatch(replica.id, training, settings.hold_watch)
        self._declared = -1
        self._subscribed = 0
        self._unsent = 0
        self._warned: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        """Whether effects are being carried out, some of which bring others."""
        self._active = False
        self._introduction = Introduction(self._say_hello)
        self._owns_context = context is None
        self._context = new_context() if context is None else context
        takers = self._on_control, self._on_update, self._on_unreadable, self._on_handshake_failed
        options = with_key(settings.sockets, key, endpoint)
        try:
            self._sockets = SessionSockets(self._context, endpoint, options, *takers)
        except TransportError:
            self.end()
            raise
        self._watch = DeviceWatch(
            probe,
            settings.device_interval,
            self._from_thread(self._on_devices),
            self._from_thread(self._on_device_status),
        )
        # Last, when nothing can fail any more.
        training.metrics.ripe = self._from_thread(self._more_to_report)

    @property
    def state(self) -> State:
        """Where the conversation stands. Any thread may ask."""
        return self._session.state

    @property
    def counters(self) -> WeaveletCounters:
        """A snapshot. Any thread may take it."""
        metrics = self._training.metrics
        return WeaveletCounters(copy(self._session.counters), metrics.dropped, metrics.refused, self._unsent)

    # --- life ---------------------------------------------------------------------------------

    def start(self, *, declared: bool = True) -> None:
        """Look for devices, then say hello; unless all is `declared` wait for `begin` too."""
        awaited: tuple[Awaited, ...] = ("devices",) if declared else ("devices", "declarations")
        self._introduction.begin(*awaited, patience=self._settings.device_patience)
        self._watch.start()
        self._holds.start()

    def begin(self) -> None:
        """Say hello, now that all is declared that the first hello must tell."""
        self._introduction.arrived("declarations")

    async def introduce(self) -> None:
        """Wait a moment where the broker may be about to answer the very first hello.

        It knows who said hello from then on; one that left before would be no more to it than one that was
        killed.
        """
        self._introduction.hurry()
        first = self._session.state is State.CONNECTING and self._session.counters.hellos == 1
        if first and not is_deserted(self._endpoint):
            await self._introduction.hear(lambda: self._sockets.connected)

    def close(self, reason: str) -> None:
        """Tell what is left, say goodbye, and close the sockets; `end` must follow."""
        self._introduction.end()
        self._watch.stop()
        self._holds.stop()
        self._training.metrics.ripe = nobody
        try:
            if self._session.state is not State.CLOSED:
                self.send_outcomes()  # first: the points may take all credit
                self._send_last_statuses()
        finally:
            if self._session.state is not State.CLOSED:
                self._run(self._session.close(reason, self._training.step, self._loop.time()))

    def end(self) -> None:
        """Wait until the goodbye has left, `settings.farewell` seconds at most. Any thread may do this."""
        if self._owns_context:
            leaving.terminate(self._context, self._endpoint, self._settings.farewell)

    def _say_hello(self) -> None:
        self.declare()
        self.subscribe()
        self._run(self._session.start(self._loop.time()))

    # --- the trainer's side -------------------------------------------------------------------

    def declare(self) -> None:
        """Tell what the registry declares, if that changed."""
        registry = self._training.registry
        if registry.version != self._declared:
            self._declared = registry.version
            self._run(self._session.declare(registry.keys(), registry.commands(), self._loop.time()))

    def answer(self, revision: int, outcome: Outcome) -> None:
        """Take what became of a revision."""
        self._promises.answered(revision, outcome.chain)
        self._run(self._session.answer(revision, outcome, self._loop.time()))

    def send_outcomes(self) -> None:
        """Send what was answered and is still to be sent."""
        self._run(self._session.send_outcomes(self._loop.time()))

    def confirm(self, round: Round, step: int) -> None:
        """Tell the broker that a consistent update was carried out."""
        revision = round.revision.revision
        confirm = Confirm(epoch=round.epoch, revision=revision, round=round.number, step=step)
        self._run(self._session.insist(confirm, self._loop.time()))

    def status_changed(self) -> None:
        """Have a status sent soon, because phase or pause changed."""
        self._run(self._session.status_changed(self._loop.time()))

    def pause_ended(self) -> None:
        """Wake the trainer that is held, and tell the broker."""
        self._training.wake()
        self.status_changed()

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish on a user's own topic."""
        self._run(self._session.publish(topic, payload))

    def subscribe(self) -> None:
        """Subscribe for those of the training's subscribers that are new."""
        for topic, _ in self._training.subscribers[self._subscribed :]:
            self._subscribed += 1
            self._run(self._session.subscribe(topic))

    # --- effects ------------------------------------------------------------------------------

    def _run(self, effects: list[Effect]) -> None:
        outermost, self._running = not self._running, True
        raised: list[BaseException] = []
        try:
            for effect in effects:
                try:
                    self._carry_out(effect)
                except TransportError as error:
                    self._warn("transport", str(error))
                except BaseException as error:  # noqa: BLE001 - the rest comes only once, so it is not left out
                    raised.append(error)
            # Compared after the effects: what a snapshot restores is in the mailbox when its owner is woken.
            if self._session.state not in (State.NEW, State.CONNECTING):
                self._introduction.answered()
            active = self._session.state is State.ACTIVE
            if active is not self._active:
                self._active = active
                self._training.activated(active)
            if raised:
                raise next((each for each in raised if not isinstance(each, Exception)), raised[0])
        finally:
            if outermost:
                self._running = False
                self._set_timer()  # whatever happened, time goes on: it asks again, or opens the sockets anew

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._send(effect.message)
            case Deliver():
                self._delivery.deliver(effect.revision)
            case Restore():
                self._delivery.restore(effect)
            case Prepared():
                promise = self._promises.prepare(effect.prepare)
                self._training.wake()
                self._run(self._session.insist(promise, self._loop.time()))
            case Decided():
                self._promises.decided(effect.decision)
                self._training.wake()
            case Concluded():
                self._promises.concluded(effect.conclusion)
                self._training.wake()
            case CollectStatus():
                self._send_status(look=effect.look)
            case InspectThreads():
                self._send_stacks(effect.id)
            case Failed():
                self._training.failed(effect.failure)
            case Hand():
                self._delivery.hand(effect.own)
            case Say():
                logging.getLogger("zloom").warning("%s", effect.text)
            case Warn():
                self._warn(effect.kind, effect.text)
            case Closed():
                farewell = self._settings.farewell if effect.farewell else 0.0
                self._sockets.close(leaving.linger(self._endpoint, farewell))
            case Reconnect():
                self._sockets.reconnect()
            case Connect():
                self._sockets.open_updates(effect.endpoint)
            case Subscribe():
                self._sockets.subscribe(effect.topic)
            case Unsubscribe():
                self._sockets.unsubscribe(effect.topic)

    def _send(self, message: ToBroker) -> None:
        try:
            sent = self._sockets.send(message)
        except LocalProtocolError as error:
            sent = False
            self._warn("too long", str(error))
        if not sent:
            self._unsent += 1
            self._session.not_sent()

    def _send_status(self, *, look: bool) -> None:
        now = self._loop.time()
        if not self._session.may_collect(now, look=look):
            return
        status = self._status.collect(now, look=look)
        self.declare()  # after the look at the step: all that was declared before it is told before it
        self._run(self._session.status(status, now))
        if points_in(status.metrics) >= self._settings.status_points:
            self._more_to_report()  # fewer are there for now, or on their way from a GPU
        if self._status.lacks_safe_points:
            self._warn("no safe point", NO_SAFE_POINT)
        if surplus := self._training.metrics.surplus:
            self._warn("surplus metric", f"{SURPLUS_METRICS} {surplus}")

    def _more_to_report(self) -> None:
        self._run(self._session.more_to_report(self._loop.time()))

    def _send_last_statuses(self) -> None:
        kept = len(self._training.metrics)
        for _ in range(-(-kept // self._settings.status_points)):
            if len(self._training.metrics) and self._session.may_report:
                self._send_status(look=False)

    def _send_stacks(self, id: int) -> None:
        training = self._training
        threads = [] if training.elsewhere else take(training.thread)
        taken = StacksTaken(id=id, threads=threads, reason=training.elsewhere, hold=self._holds.newest)
        self._run(self._session.stacks(taken))

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            logging.getLogger("zloom").warning("%s", text)

    def _set_timer(self) -> None:
        when = self._session.next_timer()
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
        self._run(self._session.on_timer(self._loop.time()))

    # --- what comes ---------------------------------------------------------------------------

    def _on_control(self, message: FromBroker) -> None:
        self._run(self._session.receive_control(message, self._loop.time()))

    def _on_update(self, topic: bytes, message: Published) -> None:
        self._run(self._session.receive_update(topic, message, self._loop.time()))

    def _on_unreadable(self, error: RemoteProtocolError, control: bool) -> None:
        unknown = isinstance(error, UnknownMessageType)
        self._session.receive_unreadable(unknown_type=unknown, control=control)

    def _on_handshake_failed(self, failure: HandshakeFailure) -> None:
        if failure.final:
            text = f"cannot connect to {self._endpoint}: {failure.text}"
            self._warn("handshake", f"{text}; the training goes on, and it is tried again")
            self._session.refused()

    # --- devices ------------------------------------------------------------------------------

    def _from_thread(self, callback: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            try:
                self._loop.call_soon_threadsafe(callback, *arguments)
            except RuntimeError:  # the loop is closed: nobody is left to be told
                self._watch.stop()

        return call

    def _on_devices(self, devices: list[Device]) -> None:
        self._run(self._session.found_devices(devices, self._loop.time()))
        self._introduction.arrived("devices")

    def _on_device_status(self, status: list[DeviceStatus]) -> None:
        self._status.devices = status
