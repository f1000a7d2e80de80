"""The broker's shell: sockets, timers, signals and the journal around the core. It decides nothing."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext

import msgspec

from zloom import codec
from zloom.errors import (
    JournalError,
    LocalProtocolError,
    RemoteProtocolError,
    UnknownMessageType,
)
from zloom.socket_options import Context, new_context
from zloom.socket_sender import NOBODY
from zloom.sockets import DrainSocket
from zloom_broker import chronicle, validation
from zloom_broker.addresses import Addresses
from zloom_broker.admission import Admission
from zloom_broker.core import Core
from zloom_broker.effects import Admit, Bug, Commit, Effect, Expel, Publish, Send
from zloom_broker.hub import CoreSettings
from zloom_broker.journal import Journal, open_journal
from zloom_broker.keyring import Keyring
from zloom_broker.measuring import Measuring
from zloom_broker.parts import ImageError
from zloom_broker.permissions import OWNER, Access
from zloom_broker.ports import Ports, Takers
from zloom_broker.records import encode
from zloom_broker.recovery import next_epoch, recover
from zloom_broker.settings import BrokerSettings
from zloom_broker.snapshots import Snapshots
from zloom_broker.state import State

FAREWELL = 200
"""Milliseconds that the sockets keep unsent messages at exit: answers on their way, well within the 2 s."""

STUMBLE = 1.0
"""Seconds that the timer waits after it failed: what raised once may raise at once again."""


class Server:
    """A broker on the running loop; `running` makes one. Not thread-safe."""

    def __init__(self, settings: BrokerSettings, journal: Journal, context: Context) -> None:
        self._settings = settings
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._log = logging.getLogger("zloom.broker")
        self._admission = (
            Admission(context, Keyring(settings.auth_dir), self._on_revoked) if settings.secured else None
        )
        security = self._admission.options() if self._admission is not None else None
        self._ports = Ports(
            context, Takers(self._on_control, self._on_unroutable, self._on_subscription), security
        )
        self._timer: asyncio.TimerHandle | None = None
        self._not_before = 0.0
        """When the timer may ring again, on the loop's clock."""
        self._ending_turn = False
        """`_end_turn` is called in this turn of the loop, or the next."""
        self._committed = journal.recovered.last_seq
        self._snapshots = Snapshots(journal)
        self._epoch_written: asyncio.Future[None] | None = None
        self._failing = ""
        """Why the newest commit failed; empty when it did not."""
        self.measuring = Measuring(self._ports, self._admission, journal)
        self._core: Core | None = None
        """From the first message that it takes to the last."""
        self.addresses = Addresses()
        self.epoch = ""

    async def start(self) -> None:
        """Put the epoch on disk, then bind, then serve.

        Raises:
            JournalError: The journal cannot be read by this version, or the epoch could not be written.
            TransportError: An endpoint cannot be bound.
        """
        state = self._recover()
        await self._begin_epoch(state)
        self.addresses = Addresses(self._ports.bind(self._settings.bind), self._settings.advertise or "")
        self._journal.listening([pair.control for pair in self.addresses.bound])
        core_settings = CoreSettings(
            epoch=self.epoch,
            addresses=self.addresses,
            durable=self._settings.durability == "fsync",
            on_device_failure=self._settings.on_device_failure,
            read_only=self._journal.read_only_reason or "",
            secured=self._settings.secured,
        )
        self._core = Core(state, core_settings, self._committed, self._loop.time(), time.time())
        self.measuring.start()
        self._set_timer(self._core)
        self._loop.call_soon(validation.prepare)  # once it is told that the broker is ready

    def close(self) -> None:
        """Take no more messages, write a snapshot, and let go of the sockets."""
        if self._timer is not None:
            self._timer.cancel()
        self.measuring.stop()
        if self._admission is not None:
            self._admission.close()
        if self._core is not None:
            self._handle(self._core, self._core.end)
        self._ports.close(FAREWELL)
        core, self._core = self._core, None
        if core is not None and not self._journal.read_only_reason:
            self._snapshots.end(self._committed, core.state)

    # --- start -------------------------------------------------------------------------------

    def _recover(self) -> State:
        try:
            while True:
                try:
                    return recover(self._journal.recovered)
                except ImageError as error:
                    text = "the snapshot of row %d is not used: %s; the one before it or the rows stand in"
                    self._log.error(text, self._journal.recovered.snapshot_seq, error)
                    self._journal.reject_snapshot()
                    self._snapshots = Snapshots(self._journal)
        except msgspec.DecodeError as exc:
            where = self._settings.data_dir
            raise JournalError(f"the journal in {where} holds what this version cannot read: {exc}") from exc

    async def _begin_epoch(self, state: State) -> None:
        record = next_epoch(state, secrets.token_hex(8), time.time())
        self.epoch = record.epoch
        if self._journal.read_only_reason:
            self._log.error("serving read-only: %s", self._journal.read_only_reason)
            return
        self._epoch_written = self._loop.create_future()
        self._journal.start(self._from_thread(self._on_committed), self._from_thread(self._on_commit_failed))
        self._journal.submit(self._committed + 1, [encode(record)])
        await self._epoch_written
        state.apply(record)

    def _from_thread(self, callback: Callable[..., None]) -> Callable[..., None]:
        def call(*args: object) -> None:
            try:
                self._loop.call_soon_threadsafe(callback, *args)
            except RuntimeError:  # the loop is closed: nobody is left to be told
                self._log.debug("a commit ended after the loop")

        return call

    # --- events ------------------------------------------------------------------------------

    def _on_control(self, frames: list[bytes]) -> None:
        if self._core is None:
            return
        identity, now = frames[0], self._loop.time()
        try:
            message = codec.to_broker.decode(codec.control_payload(frames[1:]))
        except UnknownMessageType as error:
            self._carry_out(self._core, self._core.bad_message(identity, "unknown_type", str(error)))
        except RemoteProtocolError as error:
            self._carry_out(self._core, self._core.bad_message(identity, "bad_message", str(error)))
        else:
            if self._admission is not None:
                self._admission.look()
            access = self._access(self._ports.control)
            try:
                if access is None:
                    effects = self._core.stranger(identity, message)
                else:
                    effects = self._core.receive(identity, message, now, access)
            except Exception:  # noqa: BLE001 - a bug must not leave the peer without an answer
                self._log.exception("a %s could not be handled", type(message).__name__)
                effects = self._core.failed(identity, message)
            self._carry_out(self._core, effects)

    def _on_unroutable(self, frames: list[bytes]) -> None:
        if (core := self._core) is not None:
            self._handle(core, lambda: core.unroutable(frames[0], self._loop.time()))

    def _on_subscription(self, frames: list[bytes]) -> None:
        if (core := self._core) is not None and len(frames) == 1 and frames[0][:1] in (b"\0", b"\1"):
            topic, present = frames[0][1:], frames[0][:1] == b"\1"
            if not core.minds(topic):
                return
            updates = self._ports.subscriber()
            known = present or updates.sender != NOBODY
            access = self._access(updates) if known else None
            now = self._loop.time()
            self._handle(core, lambda: core.subscription(topic, now, present=present, access=access))

    def _access(self, socket: DrainSocket) -> Access | None:
        return OWNER if self._admission is None else self._admission.access(socket.sender)

    def _on_revoked(self, users: set[str]) -> None:
        if (core := self._core) is not None:
            self._handle(core, lambda: core.revoked(users, self._loop.time()))
            self._ports.cut_off()

    def _on_committed(self, seq: int) -> None:
        self._committed = seq
        self.measuring.load.committed(seq, self._loop.time())
        if self._failing:
            self._failing = ""
            self._log.info("commits succeed again")
        if self._epoch_written is not None and not self._epoch_written.done():
            self._epoch_written.set_result(None)
        elif (core := self._core) is not None:
            while not self._handle(core, lambda: core.committed(seq, self._loop.time())):
                pass  # the commit that raised is done with: those after it are still to be told
            self._snapshots.committed(seq, core.state)

    def _on_commit_failed(self, seq: int, reason: str) -> None:
        self.measuring.load.commit_failed()
        # A disk that is full fails each second, as departures are tried again and again.
        level = logging.DEBUG if reason == self._failing else logging.ERROR
        self._failing = reason
        self._log.log(level, "a commit failed: %s", reason)
        if self._epoch_written is not None and not self._epoch_written.done():
            self._epoch_written.set_exception(
                JournalError(f"the journal in {self._settings.data_dir} cannot be written: {reason}")
            )
        elif (core := self._core) is not None:
            self._journal.resume(seq)
            self._snapshots.discarded(seq)
            self._handle(core, lambda: core.commit_failed(seq, reason, self._loop.time()))

    def _on_timer(self) -> None:
        if (core := self._core) is not None and self._timer is not None:
            now = self._loop.time()
            self.measuring.load.rang(self._timer.when(), now)
            self._timer = None
            self.measuring.look(core, now)
            numbers = self.measuring.counters(), self.measuring.gauges(now)
            if not self._handle(core, lambda: core.on_timer(now, time.time(), *numbers)):
                self._not_before = now + STUMBLE

    def _handle(self, core: Core, event: Callable[[], list[Effect]]) -> bool:
        """Have the core take an event, and carry out what it decides; return whether it did not raise.

        A bug must not end what everybody depends on: the beat, and the answers to others.
        """
        try:
            effects, taken = event(), True
        except Exception:  # noqa: BLE001 - see above
            self._log.exception("an event could not be handled")
            effects, taken = core.stumbled(), False
        self._carry_out(core, effects)
        return taken

    # --- effects -----------------------------------------------------------------------------

    def _carry_out(self, core: Core, effects: Sequence[Effect]) -> None:
        if effects and self._log.isEnabledFor(logging.INFO):
            for line in chronicle.lines(effects):
                self._log.info("%s", line)
        for effect in effects:
            match effect:
                case Send():
                    self._send(core, effect)
                case Publish():
                    self._publish(effect)
                case Admit():
                    self._ports.subscriber().admit(effect.topic, present=effect.present)
                case Expel():
                    self._expel(effect)
                case Bug():
                    self._log.error("a request could not be handled", exc_info=effect.error)
                case Commit():
                    self.measuring.load.submitted(effect.seq + len(effect.payloads) - 1, self._loop.time())
                    self._snapshots.submitted(effect.seq, effect.payloads)
                    self._journal.submit(effect.seq, effect.payloads, effect.durable)
        if not self._ending_turn:
            self._ending_turn = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        """Do what is done once for all that a turn of the loop brings."""
        try:
            if self._core is not None:
                self._handle(self._core, self._core.end_turn)
                self._set_timer(self._core)
        finally:
            self._ending_turn = False

    def _expel(self, effect: Expel) -> None:
        self._log.error("the key of %s is refused until the next start: %s", effect.user, effect.reason)
        if self._admission is not None:
            self._admission.expel(effect.user)

    def _send(self, core: Core, effect: Send) -> None:
        try:
            frames = codec.control_frames(effect.message)
        except LocalProtocolError as error:
            self._log.warning("an answer could not be sent: %s", error)
            self._carry_out(core, core.too_long(effect))
        else:
            self._ports.control.send([effect.peer, *frames])

    def _publish(self, effect: Publish) -> None:
        try:
            self._ports.publish(effect.topic, codec.encode(effect.message))
        except LocalProtocolError as error:
            # Receivers see the gap in the topic's numbers.
            self.measuring.unpublished += 1
            self._log.debug("a publication could not be sent: %s", error)

    def _set_timer(self, core: Core) -> None:
        due = max(core.next_timer(), self._not_before)
        if self._timer is not None:
            if self._not_before <= self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._on_timer)


@asynccontextmanager
async def running(settings: BrokerSettings, context: Context | None = None) -> AsyncIterator[Server]:
    """Run a broker on the running loop, as long as the block lasts.

    Args:
        settings: Where to bind and to write; see `BrokerSettings`.
        context: Shared with peers that connect over inproc; by default one of its own.

    Raises:
        SettingsError, JournalError, TransportError: It cannot start; the text says what to do.
    """
    began = time.monotonic()
    journal = await asyncio.to_thread(open_journal, settings.data_dir, durability=settings.durability)
    seconds = time.monotonic() - began
    try:
        with _context_of_its_own() if context is None else nullcontext(context) as shared:
            server = Server(settings, journal, shared)
            try:
                await server.start()
                _tell_start(server, journal, seconds)
                yield server
            finally:
                server.close()
    finally:
        if not await asyncio.to_thread(journal.close):
            logging.getLogger("zloom.broker").error("the disk did not take the last rows in time")


def _tell_start(server: Server, journal: Journal, seconds: float) -> None:
    log, held = logging.getLogger("zloom.broker"), journal.recovered
    text = "journal in %s: %d rows, read from row %d on in %.2f s"
    log.info(text, journal.data_dir, held.last_seq, held.snapshot_seq + 1, seconds)
    for note in held.notes:
        log.warning("%s", note)
    for pair in server.addresses.bound:
        log.info("listening at %s, with updates at %s", pair.control, pair.updates)


@contextmanager
def _context_of_its_own() -> Iterator[Context]:
    context = new_context()
    try:
        yield context
    finally:
        context.destroy(linger=FAREWELL)
